//! OpenAI's Chat Completions API, and the many servers that speak it, Ollama
//! among them.
//!
//! They do not speak it quite alike, and OpenAI's own models do not either. What
//! a server refuses while it says what to send instead is learned, for each
//! model: see [`request::Dialect`].

mod calls;
mod events;
mod request;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::AUTHORIZATION;

use super::anthropic::without_version;
use super::failure::Asked;
use super::http::{Http, Trouble};
use super::{
    Answer, Endpoint, Failure, FailureKind, Key, Model, Provider, Request, Usage, prices, stream,
};
use request::Dialect;

/// A client of it.
#[derive(Debug)]
pub(super) struct OpenAi {
    provider: Provider,
    http: Arc<Http>,
    path: &'static str,
    /// What was learned, by model.
    dialects: Mutex<HashMap<String, Dialect>>,
}

impl OpenAi {
    pub(super) fn new(provider: Provider, endpoint: &Endpoint) -> Result<Self, Failure> {
        // Ollama's address is that of the server, OpenAI's that of the API.
        let (base_url, path) = match provider {
            Provider::Ollama => (without_version(&endpoint.base_url), "/v1/chat/completions"),
            Provider::OpenAi | Provider::Anthropic => {
                (endpoint.base_url.as_str(), "/chat/completions")
            }
        };
        let endpoint = Endpoint {
            base_url: base_url.to_owned(),
            key: endpoint.key.clone(),
        };
        let header = |key: &Key| (AUTHORIZATION, format!("Bearer {}", key.expose()));
        let http = Http::new(provider, &endpoint, header)?;
        if endpoint.key.is_none() && http.base_url() == Provider::OpenAi.default_base_url() {
            return Err(Failure::new(
                FailureKind::Unauthenticated,
                "openai needs a key: set OPENAI_API_KEY",
            ));
        }
        Ok(Self {
            provider,
            http: Arc::new(http),
            path,
            dialects: Mutex::default(),
        })
    }

    fn dialect(&self, model: &str) -> Dialect {
        let dialects = self.dialects.lock().unwrap_or_else(PoisonError::into_inner);
        dialects.get(model).copied().unwrap_or_else(|| {
            let official = Provider::OpenAi.default_base_url();
            Dialect::new(self.http.base_url() == official)
        })
    }
}

#[async_trait::async_trait]
impl Model for OpenAi {
    fn provider(&self) -> Provider {
        self.provider
    }

    async fn ask(&self, request: &Request) -> Result<Answer, Failure> {
        let asked = Asked {
            provider: self.provider,
            model: request.model.clone(),
        };
        let mut dialect = self.dialect(&request.model);
        loop {
            let body = request::body(request, dialect);
            match self.http.post(self.path, &body).await {
                Ok(body) => {
                    let decode = events::Decoder::new(asked.clone());
                    return Ok(stream::answer(Arc::clone(&self.http), asked, body, decode));
                }
                Err(Trouble::Failed(failure)) => return Err(failure),
                // It learns each thing once, so this ends.
                Err(Trouble::Refused(refusal)) if dialect.learn(&refusal) => {
                    let mut dialects = self.dialects.lock().unwrap_or_else(PoisonError::into_inner);
                    dialects.insert(request.model.clone(), dialect);
                }
                Err(Trouble::Refused(refusal)) => return Err(asked.refused(&refusal)),
            }
        }
    }

    fn context_tokens(&self, model: &str) -> Option<u64> {
        prices::context_tokens(self.provider, model)
    }

    fn cost_microusd(&self, model: &str, usage: &Usage) -> Option<u64> {
        prices::cost_microusd(self.provider, model, usage)
    }
}
