//! Who makes models, where their APIs are, and the keys to them.

use std::fmt;

/// A maker of models, and so a wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Anthropic's Messages API.
    Anthropic,
    /// OpenAI's Chat Completions API, and whatever is compatible with it.
    OpenAi,
    /// Ollama, by its compatible API. Needs no key.
    Ollama,
}

impl Provider {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Anthropic, Self::OpenAi, Self::Ollama];

    /// As `STIGMER_LLM_PROVIDER` and `provider/model` spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAi => "openai",
            Self::Ollama => "ollama",
        }
    }

    /// The provider of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|provider| provider.as_str() == name)
    }

    /// Where its API is, if nobody says otherwise.
    #[must_use]
    pub const fn default_base_url(self) -> &'static str {
        match self {
            Self::Anthropic => "https://api.anthropic.com",
            Self::OpenAi => "https://api.openai.com/v1",
            Self::Ollama => "http://localhost:11434",
        }
    }

    /// The variable that says where its API is.
    #[must_use]
    pub const fn base_url_variable(self) -> &'static str {
        match self {
            Self::Anthropic => "ANTHROPIC_BASE_URL",
            Self::OpenAi => "OPENAI_BASE_URL",
            Self::Ollama => "OLLAMA_BASE_URL",
        }
    }

    /// The variable that holds the key to it, if it has one.
    #[must_use]
    pub const fn key_variable(self) -> Option<&'static str> {
        match self {
            Self::Anthropic => Some("ANTHROPIC_API_KEY"),
            Self::OpenAi => Some("OPENAI_API_KEY"),
            Self::Ollama => None,
        }
    }

    /// The model that is asked, if nobody says otherwise.
    #[must_use]
    pub const fn default_model(self) -> &'static str {
        match self {
            Self::Anthropic => "claude-sonnet-5-5",
            Self::OpenAi => "gpt-5.1",
            Self::Ollama => "qwen2.5-coder:7b",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Wraps it.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    /// The key, for whoever has to send it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a provider's API is, and the key to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Without a trailing `/`.
    pub base_url: String,
    /// `None` for a server that asks for none.
    pub key: Option<Key>,
}

/// The models that a runner can ask.
#[derive(Clone, Debug)]
pub struct Providers {
    /// Who is asked when nobody says otherwise.
    pub default: Provider,
    /// And which model; `None`: [`Provider::default_model`].
    pub model: Option<String>,
    /// Anthropic's.
    pub anthropic: Endpoint,
    /// OpenAI's, or that of a compatible server.
    pub openai: Endpoint,
    /// Ollama's.
    pub ollama: Endpoint,
}
