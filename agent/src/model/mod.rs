//! Language models: what is said to them and what they answer, whoever makes
//! them.
//!
//! A provider's own wire format stays in its module. What crosses this border
//! is a [`Request`] one way and a stream of [`Event`]s the other.
//!
//! | module | owns |
//! | --- | --- |
//! | `anthropic` | Anthropic's Messages API |
//! | `openai` | OpenAI's Chat Completions API, and what is compatible with it, Ollama too |
//! | `http` | connections, deadlines, and keys, which are in headers and nowhere else |
//! | `sse`, `stream` | events out of bytes, an answer out of events |
//! | `failure` | what a refusal means, in whoever's words it comes |
//! | [`retry`] | asking again |
//! | `prices` | what models hold and cost |
//!
//! A library would be preferred to all this. `genai` 0.7.0-beta.20 (August 2026)
//! was read for it: it streams text and tool calls, gives errors in mid-stream
//! and keeps the headers of a refusal. But of several calls in one delta of a
//! compatible server it keeps the first, and none without an index; it ignores
//! the index of Anthropic's blocks; it cannot mark a tool's result as failed, nor
//! show Anthropic its signed thoughts again, save as raw JSON; an answer that is
//! cut just ends, without an error. Once one does these things, it should take
//! the place of these modules, not of their tests.

mod anthropic;
mod failure;
mod http;
mod openai;
mod prices;
mod provider;
pub mod retry;
mod sse;
mod stream;

pub use http::check_base_url;
pub use provider::{Endpoint, Key, Provider, Providers};

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use serde::{Deserialize, Serialize};

/// A client of a provider's API. It connects when it is first asked.
///
/// # Errors
/// If the provider cannot be asked at all as it is configured: it has no key,
/// or no address that can be spoken to.
pub fn connect(providers: &Providers, which: Provider) -> Result<Arc<dyn Model>, Failure> {
    Ok(match which {
        Provider::Anthropic => Arc::new(anthropic::Anthropic::new(&providers.anthropic)?),
        Provider::OpenAi => Arc::new(openai::OpenAi::new(which, &providers.openai)?),
        Provider::Ollama => Arc::new(openai::OpenAi::new(which, &providers.ollama)?),
    })
}

/// A model behind an API.
#[async_trait::async_trait]
pub trait Model: fmt::Debug + Send + Sync {
    /// Whose it is.
    fn provider(&self) -> Provider;

    /// Begins an answer. The stream brings pieces as they come, and last either
    /// one [`Event::Stop`] or one error; what ends without either was cut, and
    /// is [`FailureKind::Cut`]. Dropping the stream ends the call.
    ///
    /// # Errors
    /// Whatever kept the provider from beginning. Nothing is retried in here.
    async fn ask(&self, request: &Request) -> Result<Answer, Failure>;

    /// How many tokens a request to it may have, if that is known.
    fn context_tokens(&self, model: &str) -> Option<u64>;

    /// What a call cost, in millionths of a US dollar, if its price is known.
    fn cost_microusd(&self, model: &str, usage: &Usage) -> Option<u64>;
}

/// An answer as it comes.
pub type Answer = Pin<Box<dyn Stream<Item = Result<Event, Failure>> + Send>>;

/// What a model is asked.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// As the provider names it.
    pub model: String,
    /// What comes before the conversation.
    pub system: String,
    /// Oldest first. The last is from the user, or holds tool results.
    pub messages: Vec<Message>,
    /// What it may call.
    pub tools: Vec<Tool>,
    /// Of its answer.
    pub max_output_tokens: u32,
}

/// A tool as a model is told of it.
#[derive(Clone, Debug)]
pub struct Tool {
    /// Letters, digits, `_` and `-`.
    pub name: &'static str,
    /// When to use it, and how.
    pub description: String,
    /// A JSON Schema of an object.
    pub parameters: serde_json::Value,
}

/// One side's turn in a conversation. Recorded as JSON, so that a later runner
/// can show it to its model again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "role")]
pub enum Message {
    /// What a person said.
    User {
        /// Plain text.
        text: String,
    },
    /// What the model answered.
    Assistant {
        /// In the order in which it came; never empty.
        content: Vec<Content>,
    },
    /// What the tools that it called gave, all of one turn together.
    Tools {
        /// One for each call.
        results: Vec<ToolResult>,
    },
}

/// A piece of a model's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Content {
    /// Said to the person.
    Text {
        /// Plain text or Markdown.
        text: String,
    },
    /// A tool to run.
    Call(ToolCall),
    /// Thoughts, with whatever proves to the provider that they are its own.
    /// Only the provider that gave them is shown them again.
    Thinking {
        /// What it thought; empty if it does not tell.
        text: String,
        /// Opaque.
        signature: String,
    },
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The provider's, or made up for one that gives none.
    pub id: String,
    /// A tool's name, as the model wrote it: there may be none of that name.
    pub name: String,
    /// As the model wrote them: a JSON object if it made no mistake.
    pub arguments: String,
}

impl ToolCall {
    /// The arguments as an object, which is all that providers take back. Where
    /// the model wrote none, it is shown what it wrote, within one.
    #[must_use]
    pub fn object(&self) -> serde_json::Value {
        match serde_json::from_str(&self.arguments) {
            Ok(object @ serde_json::Value::Object(_)) => object,
            _ => serde_json::json!({"not_an_object": self.arguments}),
        }
    }
}

/// What a call gave.
///
/// Not every provider has a mark for a failure, so the content has to tell too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolResult {
    /// The call's id.
    pub id: String,
    /// For the model.
    pub content: String,
    /// Whether it failed.
    pub failed: bool,
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// More text.
    Text(String),
    /// More of its thoughts. One that ends in no signature is not shown to it
    /// again.
    Thinking(String),
    /// What proves the thoughts since the last signature, of which there may be
    /// none: it ends a [`Content::Thinking`].
    Signature(String),
    /// A call, complete. One that [`Stop::Length`] broke off is not told.
    Call(ToolCall),
    /// Tokens of this call so far, in place of what was said before.
    Usage(Usage),
    /// It is done. The last event.
    Stop(Stop),
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It has nothing more to say.
    Done,
    /// It waits for what its calls give.
    Calls,
    /// [`Request::max_output_tokens`] was reached.
    Length,
    /// The provider would not let it answer.
    Refused,
}

/// Tokens of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of what it was shown, cached ones included.
    pub input: u64,
    /// Of its answer, thoughts included.
    pub output: u64,
    /// Of `input`, those read from the provider's cache.
    pub cache_read: u64,
    /// Of `input`, those written to it.
    pub cache_write: u64,
}

/// Why there is no answer, or only part of one.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What to do about it.
    pub kind: FailureKind,
    /// For people: the provider's own words where it gave some. Never a key.
    pub message: String,
    /// How long the provider asks to wait.
    pub retry_after: Option<Duration>,
}

/// What to do about a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// 429: wait and ask again.
    RateLimited,
    /// 5xx, 408, 529, or nothing answered: ask again.
    Unavailable,
    /// The answer broke off: ask again.
    Cut,
    /// The conversation is longer than the context: shorten it.
    ContextOverflow,
    /// 401, 403: the key is missing or wrong.
    Unauthenticated,
    /// There is no such model.
    NoModel,
    /// Whatever else the provider would not do, or an answer that makes no sense.
    Refused,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
