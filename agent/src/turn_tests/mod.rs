//! The loop against a model that does as it is told, and a sandbox that cannot
//! be reached: what it says and asks for, in which order, and when it stops.

mod answers;
mod asked;
mod context;

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
