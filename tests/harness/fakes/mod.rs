//! Model providers that say what a test tells them to.
//!
//! They speak the real wire, and refuse what the real ones refuse, in their
//! words: a fake that takes anything hides mistakes. The vendors' own SDKs are
//! run against them, in `tests/e2e/vendor_sdks.rs`.
//!
//! ```no_run
//! use serde_json::json;
//! use stigmer_tests::fakes::{FakeProvider, Reply};
//!
//! let provider = FakeProvider::anthropic();
//! provider.reply(Reply::calls([("execute", json!({"command": "ls"}))]).with_text("Let me see."));
//! provider.reply(Reply::text("There is nothing."));
//! // … `provider.base_url()` and `provider.key()` go to whoever asks …
//! assert_eq!(provider.requests()[0].tools(), ["execute"]);
//! ```

mod anthropic;
mod openai;
mod reply;
mod server;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

pub use reply::{Gate, Reply, Usage};
use server::{Incoming, Response, Server};

/// What a fake accepts, unless it is told otherwise.
pub const KEY: &str = "sk-fake-0123456789abcdef";

/// Whose API a fake speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Anthropic,
    OpenAi,
    Ollama,
}

/// A provider on a port of its own. It ends when it is dropped, and so does
/// every answer that it is giving.
#[derive(Debug)]
pub struct FakeProvider {
    wire: Wire,
    shared: Arc<Shared>,
    server: Server,
}

impl FakeProvider {
    /// Anthropic's Messages API.
    #[must_use]
    pub fn anthropic() -> Self {
        Self::start(Wire::Anthropic)
    }

    /// OpenAI's Chat Completions API.
    #[must_use]
    pub fn openai() -> Self {
        Self::start(Wire::OpenAi)
    }

    /// Ollama: the same API, without a key and with Ollama's own addresses.
    #[must_use]
    pub fn ollama() -> Self {
        Self::start(Wire::Ollama)
    }

    fn start(wire: Wire) -> Self {
        let shared = Arc::new(Shared(Mutex::new(State {
            key: KEY.to_owned(),
            ..State::default()
        })));
        let server = Server::start({
            let shared = Arc::clone(&shared);
            move |incoming| shared.answer(wire, incoming)
        });
        Self {
            wire,
            shared,
            server,
        }
    }

    /// What the variable that names its address has to hold.
    #[must_use]
    pub fn base_url(&self) -> String {
        let version = if self.wire == Wire::OpenAi { "/v1" } else { "" };
        format!("http://{}{version}", self.server.address())
    }

    /// The key that it accepts. Ollama needs none, and takes any.
    #[must_use]
    pub fn key(&self) -> String {
        self.shared.lock().key.clone()
    }

    /// Accepts this key, and no other.
    #[must_use]
    pub fn accepting(self, key: &str) -> Self {
        key.clone_into(&mut self.shared.lock().key);
        self
    }

    /// Has these models, and no others. Without this it has any.
    #[must_use]
    pub fn with_models(self, models: &[&str]) -> Self {
        let models = models.iter().map(|model| (*model).to_owned()).collect();
        self.shared.lock().models = Some(models);
        self
    }

    /// Refuses `max_tokens`, as OpenAI does for its newer models.
    #[must_use]
    pub fn refusing_max_tokens(self) -> Self {
        self.shared.lock().refuses_max_tokens = true;
        self
    }

    /// Answers with this, after what it was told before. One request uses up one
    /// reply, unless it is refused.
    pub fn reply(&self, reply: Reply) {
        self.shared.lock().script.push_back(reply);
    }

    /// Answers so once the script is at its end. Without this it then refuses.
    pub fn on_request(&self, respond: impl Fn(&Received) -> Reply + Send + Sync + 'static) {
        self.shared.lock().responder = Some(Responder(Arc::new(respond)));
    }

    /// Breaks off every connection, as a server does that is killed. The next
    /// one is served.
    pub fn hang_up(&self) {
        self.server.hang_up();
    }

    /// What was asked so far, refused requests too, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        self.shared.lock().requests.clone()
    }

    /// How many replies are still to be asked for.
    #[must_use]
    pub fn left(&self) -> usize {
        self.shared.lock().script.len()
    }

    /// How many answers were given up by whoever asked, before their end.
    #[must_use]
    pub fn abandoned(&self) -> usize {
        self.server.abandoned()
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// With the method before it: `POST /v1/messages`.
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Null if it was no JSON.
    pub body: Value,
    /// How it was answered.
    pub status: u16,
}

impl Received {
    /// A header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let header = headers.find(|(header, _)| header == name)?;
        Some(&header.1)
    }

    /// The names of the tools that the model was offered.
    #[must_use]
    pub fn tools(&self) -> Vec<String> {
        let tools = self.body["tools"].as_array().into_iter().flatten();
        tools
            .filter_map(|tool| tool["name"].as_str().or(tool["function"]["name"].as_str()))
            .map(str::to_owned)
            .collect()
    }

    /// What comes before the conversation.
    #[must_use]
    pub fn system(&self) -> String {
        let first = &self.body["messages"][0];
        match &self.body["system"] {
            Value::Null if first["role"] == "system" => text_of(&first["content"]),
            system => text_of(system),
        }
    }

    /// What a person said last.
    #[must_use]
    pub fn said(&self) -> String {
        let messages = self.body["messages"].as_array().into_iter().flatten();
        messages
            .filter(|message| message["role"] == "user")
            .map(|message| text_of(&message["content"]))
            .rfind(|text| !text.is_empty())
            .unwrap_or_default()
    }

    /// How often the model has answered since a person said something.
    #[must_use]
    pub fn turn(&self) -> usize {
        let messages = self.body["messages"].as_array().into_iter().flatten();
        let since = messages.rev().take_while(|message| {
            message["role"] != "user" || text_of(&message["content"]).is_empty()
        });
        since
            .filter(|message| message["role"] == "assistant")
            .count()
    }

    /// What the tools gave that the model called last, in their order.
    #[must_use]
    pub fn results(&self) -> Vec<String> {
        let messages = self.body["messages"].as_array();
        let messages = messages.map(Vec::as_slice).unwrap_or_default();
        let last = messages
            .iter()
            .rposition(|message| message["role"] == "assistant");
        let after = &messages[last.map_or(0, |at| at + 1)..];
        let results = after.iter().flat_map(|message| match &message["content"] {
            Value::Array(blocks) => blocks
                .iter()
                .filter(|block| block["type"] == "tool_result")
                .map(|block| text_of(&block["content"]))
                .collect(),
            content if message["role"] == "tool" => vec![text_of(content)],
            _ => Vec::new(),
        });
        results.collect()
    }
}

/// The text in a content of any shape.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => blocks
            .iter()
            .filter_map(|block| block["text"].as_str())
            .collect::<Vec<_>>()
            .join("\n"),
        _ => String::new(),
    }
}

/// What the server's threads and the test share.
#[derive(Debug)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    key: String,
    models: Option<Vec<String>>,
    refuses_max_tokens: bool,
    script: VecDeque<Reply>,
    responder: Option<Responder>,
    requests: Vec<Received>,
    /// Numbers answers and calls.
    next_id: u64,
    /// Signatures that were given with thoughts: no other is taken back.
    signatures: Vec<String>,
}

#[derive(Clone)]
struct Responder(Arc<dyn Fn(&Received) -> Reply + Send + Sync>);

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Responder")
    }
}

/// A request that is refused, as the API says it.
#[derive(Debug)]
struct Refusal {
    status: u16,
    kind: &'static str,
    message: String,
}

impl Refusal {
    fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, wire: Wire, incoming: Incoming) -> Response {
        let mut received = Received {
            line: incoming.line,
            headers: incoming.headers,
            body: serde_json::from_slice(&incoming.body).unwrap_or_default(),
            status: 200,
        };
        if wire != Wire::Anthropic
            && let Some(response) = openai::other(wire, &received, self.lock().models.as_deref())
        {
            return response;
        }
        let mut state = self.lock();
        let checked = match wire {
            Wire::Anthropic => anthropic::check(&state, &received),
            Wire::OpenAi | Wire::Ollama => openai::check(&state, wire, &received),
        };
        let reply = match checked {
            Err(refusal) => Reply::error(refusal.status, refusal.kind, &refusal.message),
            Ok(()) => match (state.script.pop_front(), state.responder.clone()) {
                (Some(reply), _) => reply,
                (None, Some(responder)) => {
                    // It may look at what was asked before.
                    drop(state);
                    let reply = responder.0(&received);
                    state = self.lock();
                    reply
                }
                (None, None) => {
                    let text = "this fake has nothing more to say";
                    Reply::error(400, "invalid_request_error", text)
                }
            },
        };
        received.status = reply.status();
        let response = match wire {
            Wire::Anthropic => anthropic::respond(&mut state, &received, reply),
            Wire::OpenAi | Wire::Ollama => openai::respond(&mut state, &received, reply),
        };
        state.requests.push(received);
        response
    }
}

impl State {
    fn id(&mut self, prefix: &str) -> String {
        self.next_id += 1;
        format!("{prefix}{:08}", self.next_id)
    }
}
