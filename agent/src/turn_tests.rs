//! The loop against a model that does as it is told, and a sandbox that cannot
//! be reached: what it says and asks for, in which order, and when it stops.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use stigmer_sdk::wire::agent::approval_rule::Answer as Ruled;
use stigmer_sdk::wire::agent::approvals::Mode;
use stigmer_sdk::wire::agent::{
    ApprovalRule, ApprovalState, Approvals, ExecutionLimits, ToolCallStatus,
};
use tokio::task::JoinSet;

use super::*;
use crate::ending::Why;
use crate::model::{Event, Failure, Provider, Request, ToolResult, Usage};
use crate::report::Pump;
use crate::report::tests::Record;
use crate::sandbox::Sandbox;

type Reply = Result<Vec<Result<Event, Failure>>, Failure>;

/// Answers as it was told to, and then hangs.
#[derive(Debug, Default)]
struct Scripted {
    replies: Mutex<VecDeque<Reply>>,
    asked: Mutex<Vec<Request>>,
    context: Option<u64>,
    price: Option<u64>,
}

#[async_trait::async_trait]
impl Model for Scripted {
    fn provider(&self) -> Provider {
        Provider::Ollama
    }

    async fn ask(&self, request: &Request) -> Result<model::Answer, Failure> {
        self.asked.lock().unwrap().push(request.clone());
        let reply = self.replies.lock().unwrap().pop_front();
        match reply {
            Some(reply) => Ok(stream::iter(reply?).boxed()),
            None => Ok(stream::pending().boxed()),
        }
    }

    fn context_tokens(&self, _model: &str) -> Option<u64> {
        self.context
    }

    fn cost_microusd(&self, _model: &str, _usage: &Usage) -> Option<u64> {
        self.price
    }
}

fn text(text: &str) -> Result<Event, Failure> {
    Ok(Event::Text(text.to_owned()))
}

fn call(id: &str, name: &str, arguments: &str) -> Result<Event, Failure> {
    Ok(Event::Call(ToolCall {
        id: id.to_owned(),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
    }))
}

fn used(input: u64, output: u64) -> Result<Event, Failure> {
    Ok(Event::Usage(Usage {
        input,
        output,
        ..Usage::default()
    }))
}

const DONE: Result<Event, Failure> = Ok(Event::Stop(Stop::Done));
const CALLS: Result<Event, Failure> = Ok(Event::Stop(Stop::Calls));
const LENGTH: Result<Event, Failure> = Ok(Event::Stop(Stop::Length));
const TODO: &str = r#"{"todos":[{"content":"x","status":"pending"}]}"#;

fn failure(kind: FailureKind) -> Failure {
    Failure {
        kind,
        message: "no".to_owned(),
        retry_after: None,
    }
}

/// A job, and what it reports.
struct Bench {
    job: Job,
    model: Arc<Scripted>,
    record: Record,
    tasks: JoinSet<()>,
}

impl Bench {
    fn new(replies: Vec<Reply>) -> Self {
        Self::with(Scripted {
            replies: Mutex::new(replies.into()),
            ..Scripted::default()
        })
    }

    fn with(model: Scripted) -> Self {
        let model = Arc::new(model);
        let record = Record::default();
        let held = Arc::<Held>::default();
        let reporter = Reporter::default();
        let mask = Arc::new(Mask::new(["hunter2"]));
        let ttl = Duration::from_secs(10);
        let ending = Arc::clone(&held.ending);
        let mut tasks = JoinSet::new();
        tasks.spawn(Pump::new(reporter.clone(), record.clone(), ending, ttl).run());
        let tools = Toolbox::new(Sandbox::nowhere(), &[], HashMap::new(), Arc::clone(&mask));
        let mut job = Job {
            name: "exe-1-1".to_owned(),
            model: Arc::clone(&model) as Arc<dyn Model>,
            model_name: "m".to_owned(),
            system: "s".to_owned(),
            request: "do it".to_owned(),
            tools: tools.unwrap(),
            policy: Policy::of([None; 3]),
            limits: Limits::default(),
            mask,
            reporter,
            held,
            conversation: Conversation::default(),
            spent: Spent::from(None),
            todos: None,
            progress: Progress::default(),
        };
        job.record_request();
        Self {
            job,
            model,
            record,
            tasks,
        }
    }

    async fn run(&mut self) -> Result<(), Halt> {
        let result = self.job.run().await;
        if self.job.reporter.has_begun() {
            self.job.reporter.flush().await;
        }
        result
    }

    /// Runs to a failure, and gives what it says.
    async fn fails(&mut self) -> Error {
        match self.run().await {
            Err(Halt::Failed(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    fn asked(&self) -> Vec<Request> {
        self.model.asked.lock().unwrap().clone()
    }

    /// What happened, a line each.
    fn story(&self) -> Vec<String> {
        let told = |what: &What| match what {
            What::Message(message) => {
                let kind = match message.r#type() {
                    MessageType::Human => "human",
                    MessageType::Ai => "ai",
                    MessageType::Tool => "tool",
                    MessageType::System => "system",
                    MessageType::Unspecified => "?",
                };
                let number = message.message_id.rsplit('-').next().unwrap();
                format!("{kind} {number}: {}", message.content)
            }
            What::Text(text) => format!("+{}", text.text),
            What::ToolCall(call) => format!(
                "{} {} {}",
                call.name,
                call.tool_call_id,
                call.status()
                    .as_str_name()
                    .trim_start_matches("TOOL_CALL_STATUS_")
            ),
            What::Usage(usage) => format!("usage {}+{}", usage.input_tokens, usage.output_tokens),
            What::Todos(todos) => format!("todos {}", todos.items.len()),
            What::Approval(approval) => format!(
                "approval of {}: {} ({})",
                approval.tool_call_id, approval.summary, approval.why
            ),
            other => format!("{other:?}"),
        };
        self.record.events().iter().map(told).collect()
    }

    fn calls(&self) -> Vec<agent::ToolCall> {
        let call = |what| match what {
            What::ToolCall(call) => Some(call),
            _ => None,
        };
        self.record.events().into_iter().filter_map(call).collect()
    }
}

fn last_result(request: &Request) -> &ToolResult {
    match request.messages.last() {
        Some(Message::Tools { results }) => results.last().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_run_and_its_result_told() {
    let mut bench = Bench::new(vec![
        Ok(vec![
            text("Let me "),
            text("see."),
            call("c1", "write_todos", TODO),
            used(10, 5),
            CALLS,
        ]),
        Ok(vec![text("Done: hunt"), text("er2."), used(20, 5), DONE]),
    ]);
    bench.run().await.unwrap();
    let joined = |story: Vec<String>| story.join("\n").replace("\n+", "+");
    assert_eq!(
        joined(bench.story()),
        "human 1: do it\n\
         ai 2: +Let me see.\n\
         usage 10+5\n\
         ai 2: Let me see.\n\
         write_todos c1 PENDING\n\
         write_todos c1 RUNNING\n\
         todos 1\n\
         write_todos c1 COMPLETED\n\
         tool 3: the list has 1 items, 1 of them open\n\
         ai 4: +Done: ***.\n\
         usage 30+10\n\
         ai 4: Done: ***."
    );
    let call = bench.calls().pop().unwrap();
    assert_eq!(call.message_id, "exe-1-1-2");
    assert!(call.started_ms.is_some() && call.completed_ms >= call.started_ms);
    let asked = bench.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].tools.len(), 10);
    assert_eq!(
        last_result(&asked[1]).content,
        "the list has 1 items, 1 of them open"
    );
    // What was recorded is what the next execution begins with.
    let messages = bench
        .record
        .events()
        .into_iter()
        .filter_map(|what| match what {
            What::Message(message) => Some(message),
            _ => None,
        });
    let mut last: Vec<agent::Message> = Vec::new();
    for message in messages {
        match last
            .iter_mut()
            .find(|held| held.message_id == message.message_id)
        {
            Some(held) => *held = message,
            None => last.push(message),
        }
    }
    let recorded = Conversation::recorded(&last, &[]).messages(Provider::Ollama);
    let mut expected = bench.job.conversation.messages(Provider::Ollama);
    if let Some(Message::Assistant { content }) = expected.last_mut() {
        *content = vec![Content::Text {
            text: "Done: ***.".to_owned(),
        }];
    }
    assert_eq!(recorded, expected);
}

#[tokio::test(start_paused = true)]
async fn mistakes_of_the_model_are_results() {
    let mut bench = Bench::new(vec![
        Ok(vec![
            call("1", "bash", "{}"),
            call("2", "execute", "{\"command\":"),
            call("3", "read_file", r#"{"path":"a"}"#),
            CALLS,
        ]),
        Ok(vec![text("sorry"), DONE]),
    ]);
    bench.run().await.unwrap();
    let failed: Vec<_> = bench
        .calls()
        .into_iter()
        .filter(|call| call.status() == ToolCallStatus::Failed)
        .collect();
    assert_eq!(failed.len(), 3);
    for call in &failed {
        let args: serde_json::Value = serde_json::from_str(&call.args).unwrap();
        assert!(args.is_object(), "{args}");
        assert!(call.result.starts_with("error: ") && call.error.is_some());
    }
    let problem = |index: usize, text: &str| {
        assert!(
            failed[index].result.contains(text),
            "{}",
            failed[index].result
        );
    };
    problem(0, "there is no tool 'bash'");
    problem(1, "invalid arguments for `execute`: EOF");
    problem(2, "connection to the daemon broke");
    match &bench.asked()[1].messages[2] {
        Message::Tools { results } => {
            let ids: Vec<_> = results.iter().map(|result| result.id.as_str()).collect();
            assert_eq!(ids, ["1", "2", "3"]);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn call_ids_are_made_unique() {
    let turn = || {
        Ok(vec![
            call("call_0", "write_todos", TODO),
            call("", "write_todos", r#"{"todos":[]}"#),
            CALLS,
        ])
    };
    let mut bench = Bench::new(vec![turn(), turn(), Ok(vec![text("ok"), DONE])]);
    bench.run().await.unwrap();
    let done = bench
        .calls()
        .into_iter()
        .filter(|call| call.completed_ms.is_some());
    let ids: HashSet<_> = done.map(|call| call.tool_call_id).collect();
    assert_eq!(
        ids,
        HashSet::from(["call_0", "call_2", "call_0_2", "call_3"].map(str::to_owned))
    );
}

#[tokio::test(start_paused = true)]
async fn a_broken_answer_begins_again() {
    let limited = Failure {
        retry_after: Some(Duration::from_secs(2)),
        ..failure(FailureKind::RateLimited)
    };
    let mut bench = Bench::new(vec![
        Err(limited),
        Ok(vec![
            text("half an ans"),
            used(7, 3),
            Err(failure(FailureKind::Cut)),
        ]),
        Ok(vec![text("whole"), used(8, 4), DONE]),
    ]);
    bench.run().await.unwrap();
    let story = bench.story();
    assert!(
        story[1].starts_with("system 3: rate limited, waiting 2"),
        "{story:?}"
    );
    let rest: Vec<_> = story[2..].iter().map(String::as_str).collect();
    assert_eq!(
        rest[..4],
        ["ai 2: ", "+half an ans", "usage 7+3", "ai 2: "],
        "{story:?}"
    );
    assert!(
        rest[4].starts_with("system 4: the answer broke off"),
        "{story:?}"
    );
    assert_eq!(
        rest[5..],
        ["+whole", "usage 15+7", "ai 2: whole"],
        "{story:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_model_that_cannot_be_asked_fails_the_execution() {
    for (kind, code, message) in [
        (
            FailureKind::Unauthenticated,
            ErrorCode::Unauthenticated,
            "the model's provider does not accept the key: no",
        ),
        (
            FailureKind::NoModel,
            ErrorCode::NotFound,
            "there is no such model: no",
        ),
        (
            FailureKind::Refused,
            ErrorCode::PermissionDenied,
            "the model's provider refused: no",
        ),
    ] {
        let mut bench = Bench::new(vec![Err(failure(kind))]);
        let error = bench.fails().await;
        assert_eq!((error.code(), error.message()), (code, message));
    }
    let mut bench = Bench::new(vec![Ok(vec![text("I c"), Ok(Event::Stop(Stop::Refused))])]);
    assert!(
        bench
            .fails()
            .await
            .message()
            .contains("would not let it answer")
    );
    let mut bench = Bench::new(vec![Err(failure(FailureKind::Unavailable)); 9]);
    assert_eq!(bench.fails().await.code(), ErrorCode::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn an_answer_cut_at_its_length_goes_on() {
    let mut bench = Bench::new(vec![
        Ok(vec![text("one, "), LENGTH]),
        Ok(vec![text("two"), DONE]),
    ]);
    bench.run().await.unwrap();
    let asked = bench.asked();
    match &asked[1].messages[..] {
        [
            Message::User { .. },
            Message::Assistant { .. },
            Message::User { text },
        ] => {
            assert!(text.contains("Go on where it ended"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn empty_answers_are_bounded() {
    let empty = || Ok(vec![text(" "), DONE]);
    let mut bench = Bench::new(vec![empty(), empty(), Ok(vec![text("here"), DONE])]);
    bench.run().await.unwrap();
    let mut bench = Bench::new(vec![empty(), empty(), empty()]);
    assert_eq!(
        bench.fails().await.message(),
        "the model answered nothing 3 times in a row"
    );
}

#[tokio::test(start_paused = true)]
async fn limits_end_the_execution() {
    let turn = |number: usize| {
        Ok(vec![
            call(
                &number.to_string(),
                "write_todos",
                &format!(r#"{{"todos":[{{"content":"{number}","status":"pending"}}]}}"#),
            ),
            used(10, 10),
            CALLS,
        ])
    };
    let bench = |limits: ExecutionLimits| {
        let mut bench = Bench::with(Scripted {
            replies: Mutex::new((0..9).map(turn).collect()),
            price: Some(1000),
            ..Scripted::default()
        });
        bench.job.limits = Limits::first_of([Some(&limits), None, None]);
        bench
    };
    let mut turns = bench(ExecutionLimits {
        max_turns: Some(2),
        ..ExecutionLimits::default()
    });
    let error = turns.fails().await;
    assert_eq!(error.code(), ErrorCode::Exhausted);
    assert!(error.message().contains("limit of turns"), "{error}");
    assert_eq!(turns.asked().len(), 2);
    let mut tokens = bench(ExecutionLimits {
        max_tokens: Some(50),
        ..ExecutionLimits::default()
    });
    assert!(tokens.fails().await.message().contains("60 tokens"));
    let mut cost = bench(ExecutionLimits {
        max_cost_microusd: Some(4000),
        ..ExecutionLimits::default()
    });
    assert!(cost.fails().await.message().contains("it cost $0.0040"));
    assert_eq!(cost.asked().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_model_in_circles_is_told_and_then_stopped() {
    let turn = |id: &str| Ok(vec![call(id, "write_todos", TODO), CALLS]);
    let mut bench = Bench::new(vec![turn("1"), turn("2"), turn("3"), turn("4"), turn("5")]);
    let error = bench.fails().await;
    assert!(error.message().contains("goes round in circles"), "{error}");
    assert!(
        error.message().contains("(write_todos: 1 items)"),
        "{error}"
    );
    let asked = bench.asked();
    assert_eq!(asked.len(), 4);
    assert!(!last_result(&asked[2]).content.contains("several times"));
    assert!(last_result(&asked[3]).content.contains("several times"));
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_somebodys_word() {
    let rule = |pattern: &str, answer: Ruled| ApprovalRule {
        tool: "execute".to_owned(),
        pattern: pattern.to_owned(),
        answer: answer.into(),
    };
    let approvals = Approvals {
        mode: Mode::Ask.into(),
        rules: vec![rule("rm *", Ruled::Deny), rule("ls*", Ruled::Allow)],
    };
    let execute =
        |id: &str, command: &str| call(id, "execute", &format!(r#"{{"command":"{command}"}}"#));
    let mut bench = Bench::new(vec![
        Ok(vec![
            execute("1", "rm -rf /"),
            execute("2", "ls"),
            execute("3", "make hunter2"),
            execute("4", "make install"),
            CALLS,
        ]),
        Ok(vec![text("ok"), DONE]),
    ]);
    bench.job.policy = Policy::of([Some(&approvals), None, None]);
    let held = Arc::clone(&bench.job.held);
    let record = bench.record.clone();
    let decide = async {
        let waiting = || {
            record
                .events()
                .iter()
                .filter(|what| matches!(what, What::Approval(_)))
                .count()
        };
        while waiting() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for (call, allow) in [("3", true), ("4", false), ("9", true)] {
            held.decide(DecideRequest {
                execution_id: "exe-1".to_owned(),
                tool_call_id: call.to_owned(),
                allow,
                reason: "not on a Friday".to_owned(),
            });
        }
    };
    let (result, ()) = tokio::join!(bench.run(), decide);
    result.unwrap();
    let approvals: Vec<_> = bench
        .record
        .events()
        .into_iter()
        .filter_map(|what| match what {
            What::Approval(approval) => Some(approval),
            _ => None,
        })
        .collect();
    assert_eq!(approvals.len(), 2);
    assert_eq!(approvals[0].summary, "make ***");
    assert_eq!(approvals[0].why, "it changes something (approve: ask)");
    assert!(
        approvals
            .iter()
            .all(|approval| approval.state() == ApprovalState::Pending)
    );
    let result = |id: &str| {
        let call = bench
            .calls()
            .into_iter()
            .rfind(|call| call.tool_call_id == id)
            .unwrap();
        (call.result, call.started_ms.is_some())
    };
    assert_eq!(
        result("1"),
        (
            "error: denied by the rule for execute with 'rm *'; it was not run".to_owned(),
            false
        )
    );
    assert!(
        result("2").1 && result("3").1,
        "they ran, as far as they could"
    );
    assert_eq!(
        result("4"),
        (
            "error: denied by the person, who says: not on a Friday; it was not run".to_owned(),
            false
        )
    );
}

#[tokio::test(start_paused = true)]
async fn cancelling_ends_whatever_goes_on() {
    // While the model answers.
    let mut bench = Bench::new(vec![Ok(vec![text("so f")])]);
    bench.model.replies.lock().unwrap().clear();
    let held = Arc::clone(&bench.job.held);
    let later = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        held.ending.end(Why::Cancelled("enough".to_owned()));
    };
    let (result, ()) = tokio::join!(bench.run(), later);
    assert!(matches!(result, Err(Halt::Ended)), "{result:?}");
    assert!(!bench.job.reporter.has_begun());

    // While a call waits for approval: it is over, and says so.
    let mut bench = Bench::new(vec![Ok(vec![
        text("now"),
        call("1", "execute", r#"{"command":"ls"}"#),
        CALLS,
    ])]);
    let always = Approvals {
        mode: Mode::Always.into(),
        rules: Vec::new(),
    };
    bench.job.policy = Policy::of([Some(&always), None, None]);
    let held = Arc::clone(&bench.job.held);
    let later = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        held.ending.end(Why::Stopped);
    };
    let (result, ()) = tokio::join!(bench.run(), later);
    assert!(matches!(result, Err(Halt::Ended)), "{result:?}");
    assert!(bench.job.reporter.has_begun());
    let call = bench.calls().pop().unwrap();
    assert_eq!(call.status(), ToolCallStatus::Failed);
    assert_eq!(call.error.as_deref(), Some("the agent runner was stopped"));
}

#[tokio::test(start_paused = true)]
async fn what_was_said_before_a_cancel_stays() {
    #[derive(Debug)]
    struct Slow;
    #[async_trait::async_trait]
    impl Model for Slow {
        fn provider(&self) -> Provider {
            Provider::Ollama
        }
        async fn ask(&self, _request: &Request) -> Result<model::Answer, Failure> {
            Ok(stream::iter([text("so far")])
                .chain(stream::pending())
                .boxed())
        }
        fn context_tokens(&self, _model: &str) -> Option<u64> {
            None
        }
        fn cost_microusd(&self, _model: &str, _usage: &Usage) -> Option<u64> {
            None
        }
    }
    let mut bench = Bench::new(Vec::new());
    bench.job.model = Arc::new(Slow);
    let held = Arc::clone(&bench.job.held);
    let later = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        held.ending.end(Why::Cancelled(String::new()));
    };
    let (result, ()) = tokio::join!(bench.run(), later);
    assert!(matches!(result, Err(Halt::Ended)));
    assert_eq!(bench.story().last().unwrap(), "ai 2: so far");
    assert!(bench.job.reporter.has_begun());
    bench.tasks.abort_all();
}

/// A conversation of so many turns before the request.
fn talked(bench: &mut Bench, turns: usize) {
    let entry = |id: String, message| Entry {
        id,
        by: None,
        message,
    };
    let mut entries = vec![entry(
        "u".to_owned(),
        Message::User {
            text: "first".to_owned(),
        },
    )];
    for turn in 0..turns {
        let call = ToolCall {
            id: format!("old{turn}"),
            name: "ls".to_owned(),
            arguments: "{}".to_owned(),
        };
        let result = ToolResult {
            id: call.id.clone(),
            content: "x".repeat(1000),
            failed: false,
        };
        entries.push(entry(
            format!("a{turn}"),
            Message::Assistant {
                content: vec![Content::Call(call)],
            },
        ));
        entries.push(entry(
            format!("t{turn}"),
            Message::Tools {
                results: vec![result],
            },
        ));
    }
    entries.append(&mut bench.job.conversation.entries);
    bench.job.conversation.entries = entries;
}

#[tokio::test(start_paused = true)]
async fn a_conversation_that_overflows_is_summarised() {
    let overflow = || Err(failure(FailureKind::ContextOverflow));
    let mut bench = Bench::new(vec![
        overflow(),
        Ok(vec![text("they listed files"), used(5, 5), DONE]),
        Ok(vec![text("done"), DONE]),
    ]);
    talked(&mut bench, 10);
    bench.run().await.unwrap();
    let asked = bench.asked();
    assert_eq!(asked[1].system, compact::SUMMARY_PROMPT);
    assert!(asked[1].tools.is_empty());
    let Message::User { text: opening } = &asked[2].messages[0] else {
        panic!("{:?}", asked[2].messages[0]);
    };
    assert!(
        opening.contains("they listed files") && opening.contains("do it"),
        "{opening}"
    );
    assert!(asked[2].messages.len() < asked[0].messages.len() / 2);
    let story = bench.story();
    assert!(
        story
            .iter()
            .any(|line| line.contains("its older part was summarised")),
        "{story:?}"
    );
    // Nobody is shown the summary as an answer.
    assert!(
        !story.iter().any(|line| line.contains("they listed files")),
        "{story:?}"
    );
    // The next execution begins where this one is.
    let state = bench
        .record
        .events()
        .into_iter()
        .find_map(|what| match what {
            What::Message(message) if message.content.contains("summarised") => Some(message),
            _ => None,
        });
    let again = Conversation::recorded(&[state.unwrap()], &[]);
    assert_eq!(again.summary, bench.job.conversation.summary);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_made_shorter_fails() {
    let overflow = || Err(failure(FailureKind::ContextOverflow));
    let mut replies: Vec<Reply> = vec![overflow(), Ok(vec![text("summary"), DONE])];
    replies.extend((0..9).map(|_| overflow()));
    let mut bench = Bench::new(replies);
    talked(&mut bench, 10);
    let error = bench.fails().await;
    assert_eq!(error.code(), ErrorCode::TooLarge);
    assert!(
        error.message().contains("even after it was shortened"),
        "{error}"
    );
    let story = bench.story();
    assert!(
        story
            .iter()
            .any(|line| line.contains("old outputs of tools were dropped")),
        "{story:?}"
    );

    // There is nothing but the request.
    let mut bench = Bench::new(vec![overflow()]);
    assert_eq!(bench.fails().await.code(), ErrorCode::TooLarge);
}

#[tokio::test(start_paused = true)]
async fn a_context_that_is_nearly_full_is_made_room_in() {
    let turn = |id: &str, input| {
        Ok(vec![
            call(
                id,
                "write_todos",
                &format!(r#"{{"todos":[{{"content":"{id}","status":"pending"}}]}}"#),
            ),
            used(input, 0),
            CALLS,
        ])
    };
    let mut bench = Bench::with(Scripted {
        replies: Mutex::new(
            [
                turn("1", 100),
                turn("2", 100),
                turn("3", 900),
                Ok(vec![text("summary"), used(10, 10), DONE]),
                // Still nearly full: not again at once.
                turn("4", 900),
                Ok(vec![text("done"), DONE]),
            ]
            .into(),
        ),
        context: Some(1000),
        ..Scripted::default()
    });
    bench.run().await.unwrap();
    let asked = bench.asked();
    let summaries: Vec<_> = asked
        .iter()
        .map(|request| request.system == compact::SUMMARY_PROMPT)
        .collect();
    assert_eq!(summaries, [false, false, false, true, false, false]);
    assert_eq!(asked[0].max_output_tokens, 1024);
}
