//! Which language model agents ask, where it is, and which key it takes.

use std::fmt;

use super::lookup::{Resolver, did_you_mean};
use super::settings::{self, Setting};
use super::{Secret, Source, values};

/// Who makes models. The agent runner has the same list, which a build without
/// it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Anthropic.
    Anthropic,
    /// OpenAI, or a server compatible with it.
    OpenAi,
    /// Ollama, on a machine of one's own.
    Ollama,
}

impl Provider {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Anthropic, Self::OpenAi, Self::Ollama];

    /// As `STIGMER_LLM_PROVIDER` spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAi => "openai",
            Self::Ollama => "ollama",
        }
    }

    /// As people write it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Anthropic => "Anthropic",
            Self::OpenAi => "OpenAI",
            Self::Ollama => "Ollama",
        }
    }

    const fn default_base_url(self) -> &'static str {
        match self {
            Self::Anthropic => "https://api.anthropic.com",
            Self::OpenAi => "https://api.openai.com/v1",
            Self::Ollama => "http://localhost:11434",
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

/// Where a provider's API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// Without a slash at its end.
    pub url: String,
    /// It is the provider's own.
    pub is_default: bool,
}

/// The model that agents ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Llm {
    /// `None`: Ollama if something answers at its address, else Anthropic. A
    /// key never chooses.
    pub provider: Option<Provider>,
    /// `None`: [`Provider::default_model`].
    pub model: Option<String>,
    /// `ANTHROPIC_BASE_URL`
    pub anthropic_base_url: BaseUrl,
    /// `OPENAI_BASE_URL`
    pub openai_base_url: BaseUrl,
    /// `OLLAMA_BASE_URL`
    pub ollama_base_url: BaseUrl,
    /// `ANTHROPIC_API_KEY`
    pub anthropic_api_key: Option<Secret>,
    /// `OPENAI_API_KEY`
    pub openai_api_key: Option<Secret>,
}

impl Llm {
    /// Where a provider's API is.
    #[must_use]
    pub fn base_url(&self, provider: Provider) -> &BaseUrl {
        match provider {
            Provider::Anthropic => &self.anthropic_base_url,
            Provider::OpenAi => &self.openai_base_url,
            Provider::Ollama => &self.ollama_base_url,
        }
    }

    /// The key to it, if somebody set one.
    #[must_use]
    pub fn key(&self, provider: Provider) -> Option<&Secret> {
        match provider {
            Provider::Anthropic => self.anthropic_api_key.as_ref(),
            Provider::OpenAi => self.openai_api_key.as_ref(),
            Provider::Ollama => None,
        }
    }

    /// The variable of the key that this provider cannot do without; `None` if
    /// it can.
    #[must_use]
    pub fn key_variable(&self, provider: Provider) -> Option<&'static str> {
        match provider {
            Provider::Anthropic => Some(settings::ANTHROPIC_API_KEY.variable),
            // A compatible server on one's own machine asks for none.
            Provider::OpenAi if !self.openai_base_url.is_default => None,
            Provider::OpenAi => Some(settings::OPENAI_API_KEY.variable),
            Provider::Ollama => None,
        }
    }

    /// The variable of a key that this provider needs and nobody set.
    #[must_use]
    pub fn missing_key(&self, provider: Provider) -> Option<&'static str> {
        self.key_variable(provider)
            .filter(|_| self.key(provider).is_none())
    }

    /// The model that is asked of this provider, if nobody says otherwise.
    #[must_use]
    pub fn model(&self, provider: Provider) -> &str {
        self.model
            .as_deref()
            .unwrap_or_else(|| provider.default_model())
    }
}

impl Resolver<'_> {
    pub(super) fn llm(&mut self) -> Llm {
        let provider = self.optional(&settings::LLM_PROVIDER, |value| {
            let names = Provider::ALL.map(Provider::as_str);
            if names.contains(&value) {
                return Ok(value.to_owned());
            }
            let meant = did_you_mean(value, &names);
            Err(format!("a provider is {}{meant}", names.join(", ")))
        });
        Llm {
            provider: Provider::ALL
                .into_iter()
                .find(|known| provider.as_deref() == Some(known.as_str())),
            model: self.optional(&settings::LLM_MODEL, values::model),
            anthropic_base_url: self.base_url(&settings::ANTHROPIC_BASE_URL, Provider::Anthropic),
            openai_base_url: self.base_url(&settings::OPENAI_BASE_URL, Provider::OpenAi),
            ollama_base_url: self.base_url(&settings::OLLAMA_BASE_URL, Provider::Ollama),
            anthropic_api_key: self.secret(&settings::ANTHROPIC_API_KEY),
            openai_api_key: self.secret(&settings::OPENAI_API_KEY),
        }
    }

    fn base_url(&mut self, setting: &'static Setting, provider: Provider) -> BaseUrl {
        let own = provider.default_base_url();
        let (url, source) = self
            .parsed(setting, values::base_url)
            .unwrap_or_else(|| (own.to_owned(), Source::Default));
        self.row(setting, url.clone(), source);
        BaseUrl {
            // Whoever writes the provider's own means just that.
            is_default: url == own,
            url,
        }
    }
}

#[cfg(all(test, feature = "agent"))]
mod tests {
    use super::*;

    #[test]
    fn the_runner_has_the_same_providers() {
        for (ours, theirs) in Provider::ALL
            .into_iter()
            .zip(stigmer_agent::model::Provider::ALL)
        {
            assert_eq!(ours.as_str(), theirs.as_str());
            assert_eq!(ours.default_base_url(), theirs.default_base_url());
            assert_eq!(ours.default_model(), theirs.default_model());
        }
        assert_eq!(
            Provider::ALL.len(),
            stigmer_agent::model::Provider::ALL.len()
        );
    }
}
