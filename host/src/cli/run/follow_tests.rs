//! Following an execution of a daemon that is in this process, and goes away
//! when it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use futures_core::stream::BoxStream;
use futures_util::stream;
use stigmer_sdk::wire::agent::{
    self, Approval, ApprovalState, CancelExecutionResponse, CreateExecutionResponse,
    DecideResponse, ExecutionStatus, GetExecutionResponse, ListExecutionsResponse, PhaseChange,
    SubscribeRequest, SubscribeResponse, TextDelta,
};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response};

use super::*;
use crate::config::{self, Entry, Flags};
use crate::grpc::generated::agent::executions_server::{Executions, ExecutionsServer};

/// What the daemon knows, and was asked.
#[derive(Debug, Default)]
struct Told {
    /// Where subscriptions began.
    from: Vec<u64>,
    /// After how many events each of them breaks.
    breaks: VecDeque<usize>,
    /// No more subscriptions are taken.
    away: bool,
    decided: Vec<(String, bool, String)>,
    cancelled: Vec<String>,
}

#[derive(Clone, Debug)]
struct Fake {
    told: Arc<Mutex<Told>>,
    events: watch::Sender<Vec<Event>>,
}

impl Fake {
    fn new(events: Vec<What>, breaks: &[usize]) -> Self {
        let told = Told {
            breaks: breaks.iter().copied().collect(),
            ..Told::default()
        };
        let fake = Self {
            told: Arc::new(Mutex::new(told)),
            events: watch::Sender::new(Vec::new()),
        };
        for what in events {
            fake.happens(what);
        }
        fake
    }

    fn happens(&self, what: What) {
        self.events.send_modify(|events| {
            events.push(Event {
                seq: events.len() as u64 + 1,
                at_ms: 0,
                what: Some(what),
            });
        });
    }

    fn told<T>(&self, look: impl FnOnce(&mut Told) -> T) -> T {
        look(&mut self.told.lock().unwrap())
    }
}

#[tonic::async_trait]
impl Executions for Fake {
    async fn create(
        &self,
        _request: Request<agent::CreateExecutionRequest>,
    ) -> Result<Response<CreateExecutionResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn get(
        &self,
        _request: Request<agent::GetExecutionRequest>,
    ) -> Result<Response<GetExecutionResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn list(
        &self,
        _request: Request<agent::ListExecutionsRequest>,
    ) -> Result<Response<ListExecutionsResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn cancel(
        &self,
        request: Request<CancelExecutionRequest>,
    ) -> Result<Response<CancelExecutionResponse>, Status> {
        let reason = request.into_inner().reason;
        self.told(|told| told.cancelled.push(reason));
        self.happens(phase(Phase::Cancelled));
        Ok(Response::new(CancelExecutionResponse::default()))
    }

    async fn decide(
        &self,
        request: Request<DecideRequest>,
    ) -> Result<Response<DecideResponse>, Status> {
        let request = request.into_inner();
        self.told(|told| {
            let call = request.tool_call_id.clone();
            told.decided.push((call, request.allow, request.reason));
        });
        self.happens(approval(&request.tool_call_id, ApprovalState::Allowed));
        self.happens(phase(Phase::Completed));
        Ok(Response::new(DecideResponse {}))
    }

    type SubscribeStream = BoxStream<'static, Result<SubscribeResponse, Status>>;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let from = request.into_inner().from_seq;
        let (away, left) = self.told(|told| {
            told.from.push(from);
            (told.away, told.breaks.pop_front())
        });
        if away {
            return Err(Status::unavailable("away"));
        }
        let at = usize::try_from(from).unwrap() - 1;
        let events = self.events.subscribe();
        let stream = stream::unfold((events, at, left), |(mut events, at, left)| async move {
            if left == Some(0) {
                return Some((Err(Status::unavailable("cut")), (events, usize::MAX, None)));
            }
            if at == usize::MAX {
                return None;
            }
            let event = events
                .wait_for(|events| events.len() > at)
                .await
                .ok()?
                .get(at)
                .cloned()?;
            let next = if final_phase(&event).is_some() {
                usize::MAX
            } else {
                at + 1
            };
            let answer = SubscribeResponse { event: Some(event) };
            Some((Ok(answer), (events, next, left.map(|left| left - 1))))
        });
        Ok(Response::new(stream.boxed()))
    }
}

fn phase(phase: Phase) -> What {
    What::Phase(PhaseChange {
        phase: phase.into(),
        ..PhaseChange::default()
    })
}

fn text(text: &str) -> What {
    What::Text(TextDelta {
        message_id: "m".to_owned(),
        text: text.to_owned(),
    })
}

fn approval(call: &str, state: ApprovalState) -> What {
    What::Approval(Approval {
        tool_call_id: call.to_owned(),
        state: state.into(),
        summary: format!("rm {call}"),
        ..Approval::default()
    })
}

/// A daemon on a socket, until it is dropped.
struct Up {
    _dir: tempfile::TempDir,
    _server: JoinSet<()>,
    daemon: Daemon,
}

async fn up(fake: &Fake) -> Up {
    let dir = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(dir.path().join("stigmer.sock")).unwrap();
    let service = ExecutionsServer::new(fake.clone());
    let mut server = JoinSet::new();
    server.spawn(async move {
        let incoming = UnixListenerStream::new(listener);
        let served = Server::builder().serve_with_incoming(service, incoming);
        served.await.unwrap();
    });
    let flags = Flags {
        data_dir: Some(dir.path().to_owned()),
        ..Flags::default()
    };
    let config = config::load(Entry::Local, &flags, &BTreeMap::new()).unwrap();
    let daemon = Daemon::connect(&config).await.unwrap();
    Up {
        _dir: dir,
        _server: server,
        daemon,
    }
}

fn execution() -> Execution {
    Execution {
        execution_id: "exe-1".to_owned(),
        session_id: "ses-1".to_owned(),
        ..Execution::default()
    }
}

fn pipe() -> (std::fs::File, RawStream) {
    let (reader, writer): (OwnedFd, OwnedFd) = rustix::pipe::pipe().unwrap();
    (reader.into(), RawStream::of("a pipe", writer))
}

/// What was shown of it, and how it ended.
struct Shown {
    ended: Result<Outcome>,
    stdout: String,
    stderr: String,
}

/// Follows, with somebody who types these lines, each when asked for one.
async fn shown(
    up: &Up,
    execution: &Execution,
    json: bool,
    answers: &'static [&'static str],
    prepare: impl FnOnce(&mut Following<'_>, &mut Calls),
) -> Shown {
    let (mut out, stdout) = pipe();
    let (mut err, stderr) = pipe();
    let look = Look {
        asks: !answers.is_empty(),
        terminal: true,
        ..Look::default()
    };
    let watch = Watch {
        daemon: &up.daemon,
        execution,
        from: 1,
        json,
        owned: true,
    };
    let (typing, lines) = mpsc::channel(1);
    let person = std::thread::spawn(move || {
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        let mut answers = answers.iter();
        let mut asked = 0;
        while let Ok(length @ 1..) = err.read(&mut buffer) {
            seen.extend_from_slice(&buffer[..length]);
            let prompts = String::from_utf8_lossy(&seen)
                .matches("say why not: ")
                .count();
            while asked < prompts {
                asked += 1;
                if let Some(answer) = answers.next() {
                    typing.blocking_send((*answer).to_owned()).ok();
                }
            }
        }
        String::from_utf8(seen).unwrap()
    });
    let mut calls = FuturesUnordered::new();
    let mut following = Following::new(watch, look, Screen::new(stdout, stderr));
    following.typed = Typed::of(lines);
    prepare(&mut following, &mut calls);
    let mut signals = Signals::listen().unwrap();
    let ended = following.run(&mut signals, &mut calls).await;
    drop(following);
    let mut stdout = String::new();
    out.read_to_string(&mut stdout).unwrap();
    Shown {
        ended,
        stdout,
        stderr: person.join().unwrap(),
    }
}

fn nothing(_: &mut Following<'_>, _: &mut Calls) {}

#[tokio::test]
async fn a_stream_that_breaks_is_taken_up_where_it_broke() {
    let events = vec![
        phase(Phase::InProgress),
        text("one "),
        text("two "),
        text("three"),
        phase(Phase::Completed),
    ];
    let fake = Fake::new(events, &[2, 0, 1]);
    let up = up(&fake).await;
    let shown = shown(&up, &execution(), false, &[], nothing).await;
    assert_eq!(shown.ended, Ok(Outcome::Success));
    // What was said of the break stands between the words.
    assert_eq!(shown.stdout.replace('\n', ""), "one two three");
    assert_eq!(fake.told(|told| told.from.clone()), [1, 3, 3, 4]);
    assert!(
        shown.stderr.contains("lost the Stigmer daemon"),
        "{}",
        shown.stderr
    );
    assert!(
        shown.stderr.contains("✅ Execution completed"),
        "{}",
        shown.stderr
    );
}

#[tokio::test]
async fn json_is_every_event_and_what_it_is_of() {
    let fake = Fake::new(vec![text("a"), phase(Phase::Completed)], &[]);
    let up = up(&fake).await;
    let shown = shown(&up, &execution(), true, &[], nothing).await;
    assert_eq!(shown.ended, Ok(Outcome::Success));
    let lines: Vec<_> = shown.stdout.lines().collect();
    assert_eq!(
        lines[..2],
        [
            r#"{"execution_id":"exe-1","session_id":"ses-1","type":"execution"}"#,
            r#"{"at_ms":0,"message_id":"m","seq":1,"text":"a","type":"text"}"#,
        ]
    );
    assert!(lines[2].contains(r#""phase":"completed""#), "{lines:?}");
    assert_eq!(shown.stderr, "");
}

#[tokio::test]
async fn a_failure_is_one_of_ours() {
    let failed = What::Phase(PhaseChange {
        phase: Phase::Failed.into(),
        error: Some(stigmer_sdk::wire::sandbox::Error {
            message: "no model".to_owned(),
            ..Default::default()
        }),
        ..PhaseChange::default()
    });
    let fake = Fake::new(vec![failed], &[]);
    let up = up(&fake).await;
    let failure = shown(&up, &execution(), true, &[], nothing)
        .await
        .ended
        .unwrap_err();
    assert_eq!(failure.reason, Reason::Failed);
    assert_eq!(failure.problems, ["the execution failed"]);
    assert_eq!(failure.causes, ["no model"]);
}

#[tokio::test]
async fn ctrl_c_cancels_and_shows_the_end() {
    let fake = Fake::new(vec![phase(Phase::InProgress)], &[]);
    let up = up(&fake).await;
    let shown = shown(&up, &execution(), false, &[], |following, calls| {
        following.signal(Signal::Interrupt, calls).unwrap();
        let again = following.signal(Signal::Interrupt, calls).unwrap_err();
        assert_eq!(again.reason, Reason::Interrupted(2));
    })
    .await;
    assert_eq!(shown.ended.unwrap_err().reason, Reason::Interrupted(2));
    assert_eq!(
        fake.told(|told| told.cancelled.clone()),
        ["interrupted by the user"]
    );
    assert!(
        shown.stderr.contains("⚠️  Execution cancelled"),
        "{}",
        shown.stderr
    );
}

#[tokio::test]
async fn a_question_is_asked_and_the_answer_sent() {
    let events = vec![
        phase(Phase::InProgress),
        approval("a", ApprovalState::Pending),
    ];
    let fake = Fake::new(events, &[]);
    let up = up(&fake).await;
    let shown = shown(&up, &execution(), false, &["", "use rmdir"], nothing).await;
    assert_eq!(shown.ended, Ok(Outcome::Success));
    let decided = fake.told(|told| told.decided.clone());
    assert_eq!(decided, [("a".to_owned(), false, "use rmdir".to_owned())]);
    assert_eq!(shown.stderr.matches("rm a").count(), 1, "{}", shown.stderr);
    assert_eq!(
        shown.stderr.matches("Allow?").count(),
        2,
        "{}",
        shown.stderr
    );
}

#[tokio::test]
async fn what_was_answered_before_is_not_asked_again() {
    let events = vec![
        approval("a", ApprovalState::Pending),
        approval("a", ApprovalState::Allowed),
        approval("b", ApprovalState::Pending),
    ];
    let fake = Fake::new(events, &[]);
    let up = up(&fake).await;
    let execution = Execution {
        status: Some(ExecutionStatus {
            seq: 3,
            ..ExecutionStatus::default()
        }),
        ..execution()
    };
    let shown = shown(&up, &execution, false, &["y"], nothing).await;
    assert_eq!(shown.ended, Ok(Outcome::Success));
    let decided = fake.told(|told| told.decided.clone());
    assert_eq!(decided, [("b".to_owned(), true, String::new())]);
}

#[tokio::test]
async fn a_question_is_withdrawn_when_somebody_else_answers() {
    let fake = Fake::new(vec![approval("a", ApprovalState::Pending)], &[]);
    let up = up(&fake).await;
    let elsewhere = fake.clone();
    let execution = execution();
    let following = shown(&up, &execution, false, &["  "], nothing);
    let (shown, ()) = tokio::join!(following, async move {
        // After it was asked: a subscription is there by then.
        while elsewhere.told(|told| told.from.is_empty()) {
            tokio::task::yield_now().await;
        }
        elsewhere.happens(text("behind the question"));
        elsewhere.happens(approval("a", ApprovalState::Denied));
        elsewhere.happens(phase(Phase::Completed));
    });
    assert_eq!(shown.ended, Ok(Outcome::Success));
    assert_eq!(fake.told(|told| told.decided.len()), 0);
    assert_eq!(shown.stdout, "behind the question\n");
    assert!(shown.stderr.contains("✗ denied"), "{}", shown.stderr);
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_stays_away_is_given_up() {
    let fake = Fake::new(vec![phase(Phase::InProgress)], &[1]);
    let up = up(&fake).await;
    let mut events = Subscription::new(up.daemon.clone(), "exe-1".to_owned(), 1);
    assert!(matches!(events.next().await, Ok(Heard::Event(_))));
    assert!(matches!(events.next().await, Ok(Heard::Lost)));
    fake.told(|told| told.away = true);
    let begun = tokio::time::Instant::now();
    let attempts = fake.told(|told| told.from.len());
    let failure = loop {
        match events.next().await {
            Ok(Heard::Lost | Heard::Event(_)) => {}
            Err(failure) => break failure,
        }
    };
    assert_eq!(
        failure.problems,
        ["lost the Stigmer daemon, and it is not back after 10 seconds"]
    );
    assert!(failure.hints[1].ends_with("stigmer execution follow exe-1 --from 2"));
    assert_eq!(failure.causes, ["away"]);
    let (elapsed, tried) = (
        begun.elapsed(),
        fake.told(|told| told.from.len()) - attempts,
    );
    assert!((10..20).contains(&elapsed.as_secs()), "{elapsed:?}");
    assert!((5..20).contains(&tried), "{tried} attempts");
}
