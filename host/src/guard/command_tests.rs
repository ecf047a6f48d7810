//! Commands that end in every way, on a clock that only moves when all wait.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use stigmer_sdk::SandboxPath;
use tokio_util::task::TaskTracker;

use super::*;
use crate::guard::GuardedSandbox;
use crate::ops::fake::Fake;

/// How a command behaves once it gets a signal.
#[derive(Clone, Copy, PartialEq)]
enum Temper {
    /// Ends at SIGTERM, with a last word.
    Mild,
    /// Ends at SIGKILL.
    Stubborn,
    /// Does not end.
    Immortal,
}

/// What a command saw.
#[derive(Clone, Default)]
struct Seen {
    inputs: Arc<Mutex<Vec<Input>>>,
    dropped: Arc<AtomicBool>,
}

impl Seen {
    fn inputs(&self) -> Vec<Input> {
        self.inputs.lock().unwrap().clone()
    }
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A command that writes `output` and then waits for its end. The backend takes
/// inputs in a task of its own, whether or not its events are taken.
fn sandbox(output: Vec<Bytes>, temper: Temper, seen: &Seen) -> Fake {
    let seen = seen.clone();
    Fake::scripted(move |_, mut input| {
        let (sender, receiver) = tokio::sync::mpsc::channel(1024);
        for bytes in output.clone() {
            sender.try_send(Ok(Event::Stdout(bytes))).unwrap();
        }
        let inputs = Arc::clone(&seen.inputs);
        #[expect(clippy::disallowed_methods, reason = "ends with the input")]
        tokio::spawn(async move {
            while let Some(next) = input.next().await {
                inputs.lock().unwrap().push(next.clone());
                let ends = matches!(
                    (&next, temper),
                    (Input::Signal(Signal::Terminate), Temper::Mild)
                        | (Input::Signal(Signal::Kill), Temper::Stubborn)
                );
                if let (true, Input::Signal(signal)) = (ends, next) {
                    sender
                        .send(Ok(Event::Stderr(Bytes::from_static(b"bye"))))
                        .await
                        .ok();
                    let status = ExitStatus::Signal(signal.number());
                    sender.send(Ok(Event::Exit(status))).await.ok();
                }
            }
        });
        let dropped = SetOnDrop(Arc::clone(&seen.dropped));
        tokio_stream::wrappers::ReceiverStream::new(receiver)
            .map(move |event| {
                let _held = &dropped;
                event
            })
            .boxed()
    })
}

fn limits() -> Limits {
    Limits {
        grace: Duration::from_secs(5),
        ..Limits::default()
    }
}

fn guarded(fake: Fake) -> (Arc<Guard>, Arc<GuardedSandbox>) {
    let guard = Guard::new(limits(), TaskTracker::new());
    let sandbox = guard.sandbox("fake:1", Arc::new(fake));
    (guard, sandbox)
}

fn command() -> Command {
    Command::new(["program", "secret"]).unwrap()
}

fn no_input() -> InputStream {
    futures_util::stream::empty().boxed()
}

fn after(seconds: u64) -> Timeout {
    Timeout::After(Duration::from_secs(seconds))
}

/// How the events end, and after how many seconds.
async fn ending(mut events: EventStream) -> (Result<ExitStatus, ErrorCode>, u64) {
    let start = Instant::now();
    loop {
        let ending = match events.next().await.expect("an exit comes first") {
            Ok(Event::Exit(status)) => Ok(status),
            Ok(_) => continue,
            Err(error) => Err(error.code()),
        };
        assert!(events.next().await.is_none());
        return (ending, start.elapsed().as_secs());
    }
}

const TERMINATE: Input = Input::Signal(Signal::Terminate);
const KILL: Input = Input::Signal(Signal::Kill);

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_command_step_by_step() {
    for (temper, seconds, signals) in [
        (Temper::Mild, 10, &[TERMINATE][..]),
        (Temper::Stubborn, 15, &[TERMINATE, KILL]),
        (Temper::Immortal, 20, &[TERMINATE, KILL]),
    ] {
        let seen = Seen::default();
        let (guard, sandbox) = guarded(sandbox(Vec::new(), temper, &seen));
        let events = sandbox.run(command(), no_input(), after(10)).await.unwrap();
        assert_eq!(ending(events).await, (Ok(ExitStatus::TimedOut), seconds));
        assert_eq!(seen.inputs()[0], Input::CloseStdin);
        assert_eq!(&seen.inputs()[1..], signals);
        assert!(seen.dropped.load(Ordering::SeqCst));
        assert!(guard.tasks.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn output_is_passed_on_until_the_end() {
    let seen = Seen::default();
    let (_, sandbox) = guarded(sandbox(vec!["hello".into()], Temper::Mild, &seen));
    let events = sandbox.run(command(), no_input(), after(1)).await.unwrap();
    let events: Vec<_> = events.map(|event| event.unwrap()).collect().await;
    assert_eq!(
        events,
        [
            Event::Stdout("hello".into()),
            Event::Stderr("bye".into()),
            Event::Exit(ExitStatus::TimedOut),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_command_that_ends_by_itself_keeps_its_status() {
    for timeout in [Timeout::Default, after(10), after(0), Timeout::None] {
        let (guard, sandbox) = guarded(Fake::scripted(|_, _| {
            crate::ops::fake::events(vec![Event::Exit(ExitStatus::Code(3))])
        }));
        let events = sandbox.run(command(), no_input(), timeout).await.unwrap();
        assert_eq!(ending(events).await, (Ok(ExitStatus::Code(3)), 0));
        assert!(guard.tasks.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_never_stops_writing_has_a_deadline_too() {
    let (guard, sandbox) = guarded(Fake::scripted(|_, input| {
        let output = futures_util::stream::unfold(input, |input| async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Some((Ok(Event::Stdout(Bytes::from_static(&[0; 1024]))), input))
        });
        output.boxed()
    }));
    let events = sandbox.run(command(), no_input(), after(10)).await.unwrap();
    assert_eq!(ending(events).await, (Ok(ExitStatus::TimedOut), 20));
    guard.shut_down().await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_reading_does_not_stop_the_deadline() {
    let seen = Seen::default();
    let output = vec![Bytes::from_static(&[0; 40_000]); 3];
    let (_, sandbox) = guarded(sandbox(output, Temper::Mild, &seen));
    let mut events = sandbox.run(command(), no_input(), after(10)).await.unwrap();
    events.next().await.unwrap().unwrap();
    events.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(seen.inputs(), [Input::CloseStdin, TERMINATE]);
    assert_eq!(ending(events).await.0, Ok(ExitStatus::TimedOut));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_events_ends_the_command_in_the_background() {
    for (temper, seconds) in [
        (Temper::Mild, 0),
        (Temper::Stubborn, 5),
        (Temper::Immortal, 5),
    ] {
        let seen = Seen::default();
        let (guard, sandbox) = guarded(sandbox(vec!["x".into()], temper, &seen));
        let mut events = sandbox
            .run(command(), no_input(), Timeout::None)
            .await
            .unwrap();
        events.next().await.unwrap().unwrap();
        let start = Instant::now();
        drop(events);
        assert_eq!(guard.tasks.len(), 1);
        guard.tasks.close();
        guard.tasks.wait().await;
        assert_eq!(start.elapsed().as_secs(), seconds);
        assert!(seen.dropped.load(Ordering::SeqCst));
        assert!(seen.inputs().contains(&TERMINATE));
        assert!(!seen.inputs().contains(&KILL));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_happens_after_the_exit() {
    let (guard, sandbox) = guarded(Fake::scripted(|_, _| {
        crate::ops::fake::events(vec![Event::Exit(ExitStatus::Code(0))])
    }));
    let mut events = sandbox
        .run(command(), no_input(), Timeout::None)
        .await
        .unwrap();
    events.next().await.unwrap().unwrap();
    drop(events);
    assert!(guard.tasks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_commands_with_their_own_status() {
    for (temper, expected, seconds) in [
        (Temper::Mild, Ok(ExitStatus::Signal(15)), 0),
        (Temper::Stubborn, Ok(ExitStatus::Signal(9)), 5),
        (Temper::Immortal, Err(ErrorCode::Cancelled), 10),
    ] {
        let seen = Seen::default();
        let (guard, sandbox) = guarded(sandbox(Vec::new(), temper, &seen));
        let events = sandbox
            .run(command(), no_input(), Timeout::None)
            .await
            .unwrap();
        let (ended, ()) = tokio::join!(ending(events), guard.shut_down());
        assert_eq!(ended, (expected, seconds));
    }
}

#[tokio::test(start_paused = true)]
async fn callers_inputs_arrive_and_their_end_closes_stdin_alone() {
    let seen = Seen::default();
    let (_, sandbox) = guarded(sandbox(Vec::new(), Temper::Mild, &seen));
    let given = vec![Input::Stdin("a".into()), Input::Signal(Signal::Interrupt)];
    let input = futures_util::stream::iter(given.clone()).boxed();
    let events = sandbox.run(command(), input, after(1)).await.unwrap();
    assert_eq!(ending(events).await.0, Ok(ExitStatus::TimedOut));
    let expected = [given, vec![Input::CloseStdin, TERMINATE]].concat();
    assert_eq!(seen.inputs(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_lost_is_an_error() {
    let (_, sandbox) = guarded(Fake::scripted(|_, _| crate::ops::fake::events(Vec::new())));
    let events = sandbox
        .run(command(), no_input(), Timeout::Default)
        .await
        .unwrap();
    assert_eq!(ending(events).await.0, Err(ErrorCode::Unavailable));
}

#[tokio::test(start_paused = true)]
async fn what_may_not_run_does_not() {
    let (_, sandbox) = guarded(Fake::new());
    let too_long = sandbox
        .run(command(), no_input(), after(86_401))
        .await
        .err()
        .unwrap();
    assert_eq!(too_long.code(), ErrorCode::InvalidArgument);
    assert_eq!(
        too_long.to_string(),
        "a timeout of 1day 1s is above the maximum of 1day; 0 means none"
    );
    let reserved = command().env("STIGMER_SANDBOX_ID", "x").unwrap();
    let refused = sandbox
        .run(reserved, no_input(), Timeout::None)
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), ErrorCode::PermissionDenied);
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_stands_still_ends() {
    let fake = Fake::scripted(|_, _| unreachable!());
    fake.put("/w/f", "x");
    *fake.delay.lock().unwrap() = Duration::from_secs(3600);
    let (_, sandbox) = guarded(fake);
    let sandbox = sandbox.as_dyn();
    let path = SandboxPath::new("f").unwrap();
    let start = Instant::now();
    let data = futures_util::stream::empty().boxed();
    let outcomes = [
        sandbox.stat(&path, true).await.err(),
        sandbox.list(&path).await.err(),
        sandbox.read(&path, Default::default()).await.err(),
        sandbox.write(&path, Default::default(), data).await.err(),
        sandbox.remove(&path, false).await.err(),
        sandbox.exec(command(), no_input()).await.err(),
    ];
    for error in outcomes {
        assert_eq!(error.unwrap().code(), ErrorCode::TimedOut);
    }
    assert_eq!(start.elapsed().as_secs(), 6 * 60);
}

#[tokio::test(start_paused = true)]
async fn data_that_moves_has_no_deadline() {
    let (_, sandbox) = guarded(Fake::new());
    let sandbox = sandbox.as_dyn();
    let path = SandboxPath::new("f").unwrap();
    let slow = |pause: u64| {
        futures_util::stream::iter(0..5)
            .then(move |_| async move {
                tokio::time::sleep(Duration::from_secs(pause)).await;
                Ok(Bytes::from_static(b"x"))
            })
            .boxed()
    };
    let written = sandbox
        .write(&path, Default::default(), slow(50))
        .await
        .unwrap();
    assert_eq!(written.size, 5);
    let stalled = sandbox
        .write(&path, Default::default(), slow(200))
        .await
        .err();
    assert_eq!(stalled.unwrap().code(), ErrorCode::TimedOut);
}

/// Everything that was logged while `work` ran.
fn logged(work: impl Future<Output = ()>) -> String {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    tracing::subscriber::with_default(subscriber, || runtime.block_on(work));
    String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
}

#[test]
fn every_operation_has_one_line_of_audit_without_secrets() {
    let log = logged(async {
        let seen = Seen::default();
        let fake = sandbox(vec!["hello".into()], Temper::Mild, &seen);
        fake.put("/w/a\nb", "content");
        let (guard, sandbox) = guarded(fake);
        let events = sandbox.run(command(), no_input(), after(2)).await.unwrap();
        assert!(ending(events).await.0.is_ok());
        drop(sandbox.run(command(), no_input(), after(2)).await.unwrap());

        let sandbox = sandbox.as_dyn();
        let path = SandboxPath::new("a\nb").unwrap();
        let (_, data) = sandbox.read(&path, Default::default()).await.unwrap();
        assert_eq!(data.count().await, 3);
        let missing = SandboxPath::new("missing").unwrap();
        assert!(sandbox.stat(&missing, true).await.is_err());
        guard.shut_down().await;
    });
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 4, "{log}");
    let expected = [
        [
            "operation=\"exec\"",
            "program=\"program\" arguments=1 bytes=8 ",
            "outcome=\"timed_out\" exit_code=124",
        ],
        ["operation=\"exec\"", "bytes=0 ", "outcome=\"abandoned\""],
        [
            "operation=\"read\"",
            "path=\"a\\nb\" bytes=7 ",
            "outcome=\"ok\"",
        ],
        [
            "operation=\"stat\"",
            "path=\"missing\"",
            "outcome=\"not_found\"",
        ],
    ];
    for (line, parts) in lines.iter().zip(expected) {
        assert!(
            line.contains("sandbox=\"fake:1\"") && line.contains("duration_ms="),
            "{line}"
        );
        for part in parts {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
    assert!(!log.contains("secret"), "{log}");
}
