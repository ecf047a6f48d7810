//! The loop: ask the model, run what it calls, tell it what that gave, until it
//! calls nothing more.
//!
//! ```text
//!          ┌──────────────── results ────────────────┐
//!          ▼                                         │
//! room? ─▶ ask ─── calls ─▶ approve ─▶ run in parallel
//!   ▲      │ ├─ cut at its length ─▶ "go on" ─▶ ask
//!   │      │ └─ nothing ─▶ "go on" ─▶ ask, a few times
//!   │      └─ too long for its context ─┐
//!   └────────── compact ◀───────────────┘
//!          │
//!          └─ done ─▶ COMPLETED
//! ```
//!
//! A [`Job`] owns everything that this takes. It reports, and knows nothing of
//! leases or phases: `execution` does.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use stigmer_sdk::wire::agent::{self, DecideRequest, MessageType, Todos, event::What};
use stigmer_sdk::{Error, ErrorCode};
use tokio::sync::oneshot;

use crate::approve::Policy;
use crate::ask::{Answer, Halt, failed};
use crate::compact;
use crate::ending::Ending;
use crate::history::{self, Conversation, Entry};
use crate::limits::{Limits, Repeats, Spent};
use crate::mask::Mask;
use crate::model::{self, Content, FailureKind, Message, Model, Stop, ToolCall};
use crate::report::{Reporter, now_ms};
use crate::tools::Toolbox;

/// Tokens of one answer, where the context has room for them.
const OUTPUT_TOKENS: u64 = 16_384;
/// The same if it is not known how large the context is.
const OUTPUT_TOKENS_UNKNOWN: u64 = 8192;
/// Tokens of a summary.
const SUMMARY_TOKENS: u32 = 4096;
/// What is summarised at a time, if the context is not known.
const TRANSCRIPT_BYTES: usize = 200_000;
/// Answers without a word or a call, in a row, before the execution fails.
const EMPTY_ANSWERS: u32 = 3;
/// Entries that must have come since the last compaction before there is another
/// on account of a context that is nearly full: otherwise a conversation that
/// cannot be made shorter would be summarised at every turn.
const ENTRIES_BETWEEN: usize = 4;

/// What is asked of an execution while it runs. The worker holds the other end.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) ending: Arc<Ending>,
    /// By tool call. A std mutex, because nothing awaits while it is held.
    decisions: Mutex<HashMap<String, oneshot::Sender<DecideRequest>>>,
}

impl Held {
    /// Waits for somebody's word on a call. To be called before anybody is
    /// asked.
    pub(crate) fn expect(&self, call: &str) -> oneshot::Receiver<DecideRequest> {
        let (sender, receiver) = oneshot::channel();
        let mut decisions = self
            .decisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        decisions.insert(call.to_owned(), sender);
        receiver
    }

    /// Passes somebody's word on, if it is waited for.
    pub(crate) fn decide(&self, decision: DecideRequest) {
        let waits = {
            let mut decisions = self
                .decisions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            decisions.remove(&decision.tool_call_id)
        };
        if let Some(waits) = waits {
            // Whoever waited may have been stopped meanwhile.
            waits.send(decision).ok();
        }
    }
}

/// Everything that an execution works with.
#[derive(Debug)]
pub(crate) struct Job {
    /// Unique in the session; message ids begin with it.
    pub(crate) name: String,
    pub(crate) model: Arc<dyn Model>,
    pub(crate) model_name: String,
    pub(crate) system: String,
    /// What the person asked for.
    pub(crate) request: String,
    pub(crate) tools: Toolbox,
    pub(crate) policy: Policy,
    pub(crate) limits: Limits,
    pub(crate) mask: Arc<Mask>,
    pub(crate) reporter: Reporter,
    pub(crate) held: Arc<Held>,
    pub(crate) conversation: Conversation,
    pub(crate) spent: Spent,
    pub(crate) todos: Option<Todos>,
    pub(crate) progress: Progress,
}

/// Where the loop is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    messages: u32,
    /// Ids of calls in this session, to tell a new one from an old one.
    call_ids: HashSet<String>,
    /// A std mutex, because nothing awaits while it is held.
    pub(crate) repeats: Mutex<Repeats>,
    /// Answers without a word or a call, in a row.
    empty: u32,
    /// How often the conversation was too long since the last answer.
    overflows: u32,
    /// Tokens of the context that the last call used.
    used: u64,
    /// Entries that the last compaction left.
    left: usize,
}

impl Job {
    /// Works until there is nothing more to do.
    ///
    /// # Errors
    /// Why it stopped before that.
    pub(crate) async fn run(&mut self) -> Result<(), Halt> {
        self.progress.call_ids = self.conversation.call_ids();
        loop {
            self.limits.allow(&self.spent)?;
            if self.is_full() {
                self.compact().await?;
                self.limits.allow(&self.spent)?;
            }
            let id = self.next_id();
            let answer = match self.ask(self.turn_request(), Some(&id)).await {
                Ok(answer) => answer,
                Err(Halt::Model(failure)) if failure.kind == FailureKind::ContextOverflow => {
                    self.make_room().await?;
                    continue;
                }
                Err(Halt::Model(failure)) => return Err(failed(&failure).into()),
                Err(halt) => return Err(halt),
            };
            self.progress.overflows = 0;
            self.progress.used = answer.usage.input + answer.usage.output;
            if self.turn(id, answer).await? {
                return Ok(());
            }
        }
    }

    /// Deals with an answer. True if it was the last.
    async fn turn(&mut self, id: String, answer: Answer) -> Result<bool, Halt> {
        self.reporter.begin();
        let stop = answer.stop;
        let said = !answer.text().trim().is_empty();
        let content: Vec<_> = answer
            .content
            .into_iter()
            .map(|content| self.own(content))
            .collect();
        let calls: Vec<ToolCall> = content.iter().filter_map(called).cloned().collect();
        if said || !calls.is_empty() {
            self.record_answer(&id, content);
            self.progress.empty = 0;
        }
        if stop == Stop::Refused {
            return Err(Error::new(
                ErrorCode::PermissionDenied,
                "the model's provider would not let it answer",
            )
            .into());
        }
        if !calls.is_empty() {
            self.calls(&id, calls).await?;
            return Ok(false);
        }
        match stop {
            Stop::Length => {
                self.nudge(
                    "the answer was cut at its length; asked to go on",
                    "Your answer was cut because it was too long. Go on where it ended. If you were \
                     writing a file, write it in smaller parts.",
                );
            }
            Stop::Done | Stop::Calls if said => return Ok(true),
            Stop::Done | Stop::Calls | Stop::Refused => {
                self.nudge(
                    "the model said nothing; asked to go on",
                    "You said nothing. Go on with the work, or say what came of it if it is done.",
                );
            }
        }
        if !said {
            self.progress.empty += 1;
            if self.progress.empty >= EMPTY_ANSWERS {
                return Err(Error::new(
                    ErrorCode::Internal,
                    format!("the model answered nothing {EMPTY_ANSWERS} times in a row"),
                )
                .into());
            }
        }
        Ok(false)
    }

    /// What the model is asked in a turn.
    fn turn_request(&self) -> model::Request {
        let tokens = match self.context() {
            Some(context) => (context / 4).clamp(1024, OUTPUT_TOKENS),
            None => OUTPUT_TOKENS_UNKNOWN,
        };
        model::Request {
            model: self.model_name.clone(),
            system: self.system.clone(),
            messages: self.conversation.messages(self.model.provider()),
            tools: self.tools.definitions(),
            max_output_tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
        }
    }

    fn context(&self) -> Option<u64> {
        self.model.context_tokens(&self.model_name)
    }

    /// Calls have ids of their own: some providers number them in each answer
    /// anew.
    fn own(&mut self, content: Content) -> Content {
        let Content::Call(mut call) = content else {
            return content;
        };
        if call.id.is_empty() || self.progress.call_ids.contains(&call.id) {
            call.id = self.unused_call_id(&call.id);
        }
        self.progress.call_ids.insert(call.id.clone());
        Content::Call(call)
    }

    fn unused_call_id(&self, id: &str) -> String {
        let id = if id.is_empty() { "call" } else { id };
        (2_u64..)
            .map(|number| format!("{id}_{number}"))
            .find(|id| !self.progress.call_ids.contains(id))
            .expect("there are more numbers than calls")
    }

    pub(crate) fn next_id(&mut self) -> String {
        self.progress.messages += 1;
        format!("{}-{}", self.name, self.progress.messages)
    }

    /// Records what a person said, which needs no state: its text is all of it.
    pub(crate) fn record_request(&mut self) {
        let id = self.next_id();
        let text = self.mask.text(&self.request);
        self.report(id.clone(), MessageType::Human, text, Bytes::new());
        self.conversation.entries.push(Entry {
            id,
            by: None,
            message: Message::User {
                text: self.request.clone(),
            },
        });
    }

    /// Records an answer under the id that it was shown with.
    pub(crate) fn record_answer(&mut self, id: &str, content: Vec<Content>) {
        let text: String = content
            .iter()
            .filter_map(|content| match content {
                Content::Text { text } => Some(text.as_str()),
                Content::Call(_) | Content::Thinking { .. } => None,
            })
            .collect();
        let text = self.mask.text(&text);
        let message = Message::Assistant { content };
        self.record(id.to_owned(), MessageType::Ai, text, message);
    }

    /// Tells the model something that no person said, and people that it was
    /// told.
    pub(crate) fn nudge(&mut self, shown: &str, text: &str) {
        let message = Message::User {
            text: text.to_owned(),
        };
        self.say(MessageType::System, shown.to_owned(), message);
    }

    fn say(&mut self, kind: MessageType, shown: String, message: Message) {
        let id = self.next_id();
        self.record(id, kind, shown, message);
    }

    /// Adds to the conversation, here and at the daemon.
    fn record(&mut self, id: String, kind: MessageType, shown: String, message: Message) {
        let by = Some(self.model.provider());
        let state = history::said(by, &message, &self.mask);
        self.report(id.clone(), kind, shown, state);
        self.conversation.entries.push(Entry { id, by, message });
    }

    /// Tells people something that is no part of the conversation.
    pub(crate) fn note(&mut self, text: String) {
        self.reporter.begin();
        let id = self.next_id();
        let text = self.mask.text(&text);
        self.report(id, MessageType::System, text, Bytes::new());
    }

    fn report(&self, message_id: String, kind: MessageType, content: String, state: Bytes) {
        self.reporter.push(What::Message(agent::Message {
            message_id,
            r#type: kind.into(),
            content,
            created_ms: now_ms(),
            tool_call_id: None,
            state,
        }));
    }

    fn is_full(&self) -> bool {
        compact::is_full(self.progress.used, self.context())
            && self.conversation.entries.len() >= self.progress.left + ENTRIES_BETWEEN
    }

    /// The model found the conversation too long: first the older part becomes
    /// a summary, and then the oldest outputs of tools go.
    async fn make_room(&mut self) -> Result<(), Halt> {
        self.limits.allow(&self.spent)?;
        self.progress.overflows += 1;
        if self.progress.overflows == 1 && self.compact().await? {
            return Ok(());
        }
        if compact::drop_outputs(&mut self.conversation.entries) {
            self.note("the conversation is too long: old outputs of tools were dropped".to_owned());
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::TooLarge,
            format!(
                "the conversation does not fit into the context of {}, even after it was shortened",
                self.model_name
            ),
        )
        .into())
    }

    /// Puts a summary in the place of the older part. False if there is nothing
    /// that it could stand for.
    async fn compact(&mut self) -> Result<bool, Halt> {
        let Some(cut) = compact::cut(&self.conversation.entries) else {
            return Ok(false);
        };
        let Some(summary) = self.summarise(cut).await? else {
            return Ok(false);
        };
        let summary = compact::opening(&summary, &self.request, self.todos.as_ref());
        let kept_from = self.conversation.entries[cut].id.clone();
        let state = history::compacted(&summary, Some(&kept_from), &self.mask);
        self.conversation.compact(summary, Some(&kept_from));
        self.progress.left = self.conversation.entries.len();
        self.progress.used = 0;
        let id = self.next_id();
        let text = "the conversation was long: its older part was summarised".to_owned();
        self.report(id, MessageType::System, text, state);
        Ok(true)
    }

    async fn summarise(&mut self, cut: usize) -> Result<Option<String>, Halt> {
        // Two bytes for each token of the context are about half of it.
        let mut most = match self.context() {
            Some(context) => usize::try_from(context.saturating_mul(2)).unwrap_or(usize::MAX),
            None => TRANSCRIPT_BYTES,
        };
        for _ in 0..3 {
            let request = model::Request {
                model: self.model_name.clone(),
                system: compact::SUMMARY_PROMPT.to_owned(),
                messages: vec![Message::User {
                    text: compact::transcript(&self.conversation, cut, most),
                }],
                tools: Vec::new(),
                max_output_tokens: SUMMARY_TOKENS,
            };
            match self.ask(request, None).await {
                Ok(answer) => {
                    let text = answer.text();
                    return Ok((!text.trim().is_empty()).then_some(text));
                }
                Err(Halt::Model(failure)) if failure.kind == FailureKind::ContextOverflow => {
                    most /= 4;
                }
                Err(Halt::Model(failure)) => return Err(failed(&failure).into()),
                Err(halt) => return Err(halt),
            }
        }
        Ok(None)
    }
}

fn called(content: &Content) -> Option<&ToolCall> {
    match content {
        Content::Call(call) => Some(call),
        Content::Text { .. } | Content::Thinking { .. } => None,
    }
}

#[cfg(test)]
#[path = "turn_tests/mod.rs"]
mod tests;
