//! Anthropic's Messages API.

mod events;
mod request;
mod wire;

use std::sync::Arc;

use http::header::HeaderName;

use super::failure::Asked;
use super::http::{Http, Trouble};
use super::{
    Answer, Endpoint, Failure, FailureKind, Key, Model, Provider, Request, Usage, prices, stream,
};

const VERSION: &str = "2023-06-01";

/// A client of it.
#[derive(Debug)]
pub(super) struct Anthropic {
    http: Arc<Http>,
}

impl Anthropic {
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, Failure> {
        let endpoint = Endpoint {
            base_url: without_version(&endpoint.base_url).to_owned(),
            key: endpoint.key.clone(),
        };
        let header = |key: &Key| {
            let name = HeaderName::from_static("x-api-key");
            (name, key.expose().to_owned())
        };
        let http =
            Http::new(Provider::Anthropic, &endpoint, header)?.header("anthropic-version", VERSION);
        if endpoint.key.is_none() {
            return Err(Failure::new(
                FailureKind::Unauthenticated,
                "anthropic needs a key: set ANTHROPIC_API_KEY",
            ));
        }
        Ok(Self {
            http: Arc::new(http),
        })
    }
}

#[async_trait::async_trait]
impl Model for Anthropic {
    fn provider(&self) -> Provider {
        Provider::Anthropic
    }

    async fn ask(&self, request: &Request) -> Result<Answer, Failure> {
        let asked = Asked {
            provider: Provider::Anthropic,
            model: request.model.clone(),
        };
        let body = request::body(request);
        match self.http.post("/v1/messages", &body).await {
            Ok(body) => {
                let decode = events::Decoder::new(asked.clone());
                Ok(stream::answer(Arc::clone(&self.http), asked, body, decode))
            }
            Err(Trouble::Failed(failure)) => Err(failure),
            Err(Trouble::Refused(refusal)) => Err(asked.refused(&refusal)),
        }
    }

    fn context_tokens(&self, model: &str) -> Option<u64> {
        prices::context_tokens(Provider::Anthropic, model)
    }

    fn cost_microusd(&self, model: &str, usage: &Usage) -> Option<u64> {
        prices::cost_microusd(Provider::Anthropic, model, usage)
    }
}

/// A base URL without the `/v1` that some give with it and others do not.
pub(super) fn without_version(base_url: &str) -> &str {
    let base_url = base_url.trim_end_matches('/');
    base_url.strip_suffix("/v1").unwrap_or(base_url)
}
