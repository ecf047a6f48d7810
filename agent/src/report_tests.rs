//! Events on their way, and a sink that keeps them.

use super::*;
use stigmer_sdk::wire::agent;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Records in memory; each batch needs a permit.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Recording>);

struct Recording {
    batches: Mutex<Vec<(u64, Vec<What>)>>,
    permits: Semaphore,
    failures: Mutex<VecDeque<Error>>,
}

impl Default for Recording {
    fn default() -> Self {
        Self {
            batches: Mutex::default(),
            permits: Semaphore::new(Semaphore::MAX_PERMITS),
            failures: Mutex::default(),
        }
    }
}

impl Record {
    pub(crate) fn events(&self) -> Vec<What> {
        let batches = self.0.batches.lock().unwrap();
        batches
            .iter()
            .flat_map(|(_, events)| events.clone())
            .collect()
    }

    fn one_at_a_time() -> Self {
        Self(Arc::new(Recording {
            permits: Semaphore::new(0),
            ..Recording::default()
        }))
    }
}

#[async_trait::async_trait]
impl Sink for Record {
    async fn record(&self, batch: u64, events: Vec<Event>) -> Result<Recorded, Error> {
        self.0.permits.acquire().await.unwrap().forget();
        if let Some(error) = self.0.failures.lock().unwrap().pop_front() {
            return Err(error);
        }
        let events = events.into_iter().filter_map(|event| event.what).collect();
        self.0.batches.lock().unwrap().push((batch, events));
        Ok(Recorded {
            ttl: Duration::from_secs(10),
            cancel_requested: false,
        })
    }
}

struct Running {
    reporter: Reporter,
    ending: Arc<Ending>,
    _tasks: JoinSet<()>,
}

fn run(sink: Record) -> Running {
    let reporter = Reporter::default();
    reporter.begin();
    let ending = Arc::<Ending>::default();
    let ttl = Duration::from_secs(10);
    let pump = Pump::new(reporter.clone(), sink, Arc::clone(&ending), ttl);
    let mut tasks = JoinSet::new();
    tasks.spawn(pump.run());
    Running {
        reporter,
        ending,
        _tasks: tasks,
    }
}

fn text(text: &str) -> What {
    What::Text(TextDelta {
        message_id: "m".to_owned(),
        text: text.to_owned(),
    })
}

#[tokio::test(start_paused = true)]
async fn the_first_piece_leaves_at_once_and_the_rest_is_joined() {
    let sink = Record::one_at_a_time();
    let running = run(sink.clone());
    running.reporter.push(text("a"));
    tokio::task::yield_now().await;
    for piece in ["b", "c", "d"] {
        running.reporter.push(text(piece));
    }
    sink.0.permits.add_permits(9);
    assert!(running.reporter.flush().await);
    let batches = sink.0.batches.lock().unwrap().clone();
    assert_eq!(batches, [(1, vec![text("a")]), (2, vec![text("bcd")])]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_may_not_have_arrived_keeps_its_number() {
    let sink = Record::default();
    let unavailable = || Error::new(ErrorCode::Unavailable, "gone");
    *sink.0.failures.lock().unwrap() = [unavailable(), unavailable()].into();
    let running = run(sink.clone());
    running.reporter.push(text("a"));
    assert!(running.reporter.flush().await);
    running.reporter.push(text("b"));
    assert!(running.reporter.flush().await);
    let batches = sink.0.batches.lock().unwrap().clone();
    assert_eq!(batches, [(1, vec![text("a")]), (2, vec![text("b")])]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_ends_the_execution_and_nobody_waits() {
    for code in [ErrorCode::Conflict, ErrorCode::Unavailable] {
        let sink = Record::default();
        // Longer out of reach than the lease lasts.
        *sink.0.failures.lock().unwrap() = (0..100).map(|_| Error::new(code, "no")).collect();
        let running = run(sink.clone());
        running.reporter.push(text("a"));
        assert!(!running.reporter.flush().await);
        running.reporter.room().await;
        assert!(matches!(running.ending.why(), Some(Why::Lost)));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_makes_too_much_waits() {
    let sink = Record::one_at_a_time();
    let running = run(sink.clone());
    for _ in 0..2 * ROOM_BYTES / JOINED_BYTES {
        running.reporter.push(text(&"x".repeat(JOINED_BYTES)));
    }
    let waits = tokio::time::timeout(Duration::from_secs(1), running.reporter.room());
    assert!(waits.await.is_err());
    sink.0.permits.add_permits(100);
    running.reporter.room().await;
    assert!(running.reporter.flush().await);
    let sent: usize = sink.events().iter().map(|what| size(what) - 64).sum();
    assert_eq!(sent, 2 * ROOM_BYTES);
}

#[tokio::test(start_paused = true)]
async fn nothing_leaves_before_the_beginning() {
    let sink = Record::default();
    let running = run(sink.clone());
    running.reporter.0.lock().begun = false;
    running.reporter.push(text("a"));
    let waits = running.reporter.flush_within(Duration::from_secs(1));
    assert!(!waits.await && sink.events().is_empty());
    running.reporter.begin();
    assert!(running.reporter.flush().await);
    assert_eq!(sink.events(), [text("a")]);
}

#[test]
fn an_event_is_cut_to_what_a_daemon_takes() {
    let long = || "ż".repeat(EVENT_BYTES);
    let message = agent::Message {
        content: long(),
        state: Bytes::from(long()),
        ..agent::Message::default()
    };
    let call = agent::ToolCall {
        args: format!("{{\"content\":\"{}\"}}", long()),
        result: long(),
        ..agent::ToolCall::default()
    };
    for what in [What::Message(message), What::ToolCall(call), text(&long())] {
        let cut = fitting(what);
        assert!(size(&cut) <= EVENT_BYTES);
        if let What::ToolCall(call) = cut {
            serde_json::from_str::<serde_json::Value>(&call.args).unwrap();
        }
    }
    let short = text("short");
    assert_eq!(fitting(short.clone()), short);
}

#[test]
fn only_pieces_of_the_same_are_joined() {
    let output = |id: &str, stderr, data: &'static [u8]| {
        What::Output(ToolOutput {
            tool_call_id: id.to_owned(),
            data: Bytes::from_static(data),
            stderr,
        })
    };
    #[track_caller]
    fn check(last: What, what: What, joined: bool) {
        let mut last = Event {
            what: Some(last),
            ..Event::default()
        };
        assert_eq!(join(Some(&mut last), what).is_none(), joined);
    }
    check(text("a"), text("b"), true);
    check(output("1", false, b"a"), output("1", false, b"b"), true);
    check(output("1", false, b"a"), output("1", true, b"b"), false);
    check(output("1", false, b"a"), output("2", false, b"b"), false);
    check(text("a"), output("1", false, b"b"), false);
    assert!(join(None, text("a")).is_some());
}
