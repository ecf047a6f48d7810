//! What a refusal means, whoever it comes from.
//!
//! Gateways and compatible servers mix the providers' error bodies and wordings,
//! so all of them are understood in one place.

use http::StatusCode;
use serde_json::Value;

use super::http::Refusal;
use super::{Failure, FailureKind, Provider};

/// Of a provider's own words.
const MAX_MESSAGE_CHARS: usize = 1000;

impl Failure {
    /// One that asks for no wait.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            retry_after: None,
        }
    }
}

/// What an error body says. Empty where it says nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    kind: String,
    code: String,
    pub(super) message: String,
}

impl Said {
    /// Reads the body of a refusal, of whichever shape.
    pub(super) fn read(body: &str) -> Self {
        match serde_json::from_str(body) {
            Ok(body) => Self::of(&body),
            // A gateway's page in HTML says nothing that its status does not.
            Err(_) if body.trim_start().starts_with('<') => Self::default(),
            Err(_) => Self {
                message: shorten(body),
                ..Self::default()
            },
        }
    }

    /// Reads what is in an `error`, or around one.
    pub(super) fn of(body: &Value) -> Self {
        let error = body.get("error").unwrap_or(body);
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => String::new(),
        };
        let field = |name: &str| error.get(name).map(text).unwrap_or_default();
        let message = [error.get("message"), error.get("detail"), Some(error)]
            .into_iter()
            .flatten()
            .map(text)
            .find(|text| !text.is_empty());
        Self {
            kind: field("type"),
            code: field("code"),
            message: shorten(&message.unwrap_or_default()),
        }
    }

    /// What to do about it. `status` is that of the answer, if it had not begun.
    fn means(&self, status: Option<StatusCode>) -> FailureKind {
        use FailureKind::{
            ContextOverflow, NoModel, RateLimited, Refused, Unauthenticated, Unavailable,
        };
        // Some put a status where others have a name.
        let status = status.or_else(|| self.code.parse::<u16>().ok()?.try_into().ok());
        if self.tells_of_overflow() || status == Some(StatusCode::PAYLOAD_TOO_LARGE) {
            return ContextOverflow;
        }
        if self.tells_of_no_model() {
            return NoModel;
        }
        match (self.code.as_str(), self.kind.as_str()) {
            ("insufficient_quota", _) | (_, "insufficient_quota" | "billing_error") => {
                return Refused;
            }
            ("invalid_api_key", _) | (_, "authentication_error" | "permission_error") => {
                return Unauthenticated;
            }
            ("rate_limit_exceeded", _) | (_, "rate_limit_error") => return RateLimited,
            (_, "overloaded_error" | "api_error" | "timeout_error") => return Unavailable,
            _ => {}
        }
        match status.map(|status| status.as_u16()) {
            Some(401 | 403) => Unauthenticated,
            Some(429) => RateLimited,
            Some(408 | 409 | 425) => Unavailable,
            Some(501 | 505) => Refused,
            Some(500..) => Unavailable,
            Some(_) => Refused,
            // It had begun to answer, so the question was none to refuse.
            None if self.kind.starts_with("invalid_request") => Refused,
            None => Unavailable,
        }
    }

    fn tells_of_overflow(&self) -> bool {
        const WORDINGS: [&str; 9] = [
            "prompt is too long",
            "prompt too long",
            "exceed context limit",
            "maximum context length",
            "max context length",
            "exceeds the context window",
            "exceeds the available context size",
            "context length exceeded",
            "greater than the context length",
        ];
        let message = self.message.to_lowercase();
        self.code == "context_length_exceeded"
            || self.kind == "exceed_context_size_error"
            || WORDINGS.iter().any(|wording| message.contains(wording))
    }

    fn tells_of_no_model(&self) -> bool {
        let message = self.message.to_lowercase();
        self.code == "model_not_found"
            || (self.kind == "not_found_error" && message.starts_with("model:"))
            || (message.contains("model")
                && (message.contains("not found") || message.contains("does not exist")))
    }
}

/// Who was asked, and for what: to say so.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) provider: Provider,
    pub(super) model: String,
}

impl Asked {
    /// What an answer that did not begin means.
    pub(super) fn refused(&self, refusal: &Refusal) -> Failure {
        let said = Said::read(&refusal.body);
        let success = refusal.status.is_success();
        if success && said.message.is_empty() {
            return self.nonsense("it is JSON, and not a stream of events");
        }
        let mut kind = said.means((!success).then_some(refusal.status));
        let transient = matches!(kind, FailureKind::RateLimited | FailureKind::Unavailable);
        match refusal.should_retry {
            Some(false) if transient => kind = FailureKind::Refused,
            Some(true) if kind == FailureKind::Refused => kind = FailureKind::Unavailable,
            _ => {}
        }
        Failure {
            retry_after: refusal.retry_after,
            ..self.failure(kind, Some(refusal.status), &said)
        }
    }

    /// What an error in the middle of an answer means.
    pub(super) fn broken_off(&self, error: &Value) -> Failure {
        let said = Said::of(error);
        self.failure(said.means(None), None, &said)
    }

    /// The answer ended before its end.
    pub(super) fn cut(&self, why: &str) -> Failure {
        let provider = self.provider;
        let message = format!("the answer of {provider} broke off: {why}");
        Failure::new(FailureKind::Cut, message)
    }

    /// The answer cannot be understood.
    pub(super) fn nonsense(&self, why: &str) -> Failure {
        let provider = self.provider;
        let message = format!("the answer of {provider} makes no sense: {why}");
        Failure::new(FailureKind::Refused, message)
    }

    fn failure(&self, kind: FailureKind, status: Option<StatusCode>, said: &Said) -> Failure {
        let Self { provider, model } = self;
        let Said { message, .. } = said;
        let mut what = status.map(|status| status.as_str().to_owned());
        if !said.kind.is_empty() {
            what = Some(what.map_or(said.kind.clone(), |what| format!("{what} {}", said.kind)));
        }
        let what = what.unwrap_or_else(|| "an error".to_owned());
        let colon = if message.is_empty() { "" } else { ": " };
        let text = match (kind, provider) {
            (FailureKind::NoModel, Provider::Ollama) => {
                format!("ollama has no model '{model}': fetch it with `ollama pull {model}`")
            }
            (FailureKind::NoModel, _) => format!(
                "{provider} has no model '{model}'{colon}{message}; check STIGMER_LLM_MODEL or --model"
            ),
            (FailureKind::Unauthenticated, _) => {
                let variable = provider.key_variable().unwrap_or("the key of the server");
                format!("{provider} refuses the key ({what}){colon}{message}; check {variable}")
            }
            _ => format!("{provider} answered {what}{colon}{message}"),
        };
        Failure::new(kind, text)
    }
}

fn shorten(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(provider: Provider, status: u16, body: &str) -> Failure {
        let asked = Asked {
            provider,
            model: "m".to_owned(),
        };
        asked.refused(&Refusal {
            status: status.try_into().expect("a status"),
            body: body.to_owned(),
            retry_after: None,
            should_retry: None,
        })
    }

    #[track_caller]
    fn check(status: u16, body: &str, kind: FailureKind, says: &str) {
        let failure = refused(Provider::OpenAi, status, body);
        assert_eq!(failure.kind, kind, "{failure}");
        assert!(failure.message.contains(says), "{failure}");
    }

    #[test]
    fn statuses_and_the_names_of_errors() {
        use FailureKind::{NoModel, RateLimited, Refused, Unauthenticated, Unavailable};
        check(
            429,
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}"#,
            RateLimited,
            "429 rate_limit_error: slow down",
        );
        check(
            429,
            r#"{"error":{"message":"no money","type":"insufficient_quota","code":"insufficient_quota"}}"#,
            Refused,
            "no money",
        );
        check(
            529,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            Unavailable,
            "529 overloaded_error: Overloaded",
        );
        check(500, "", Unavailable, "500");
        check(502, "<html>Bad gateway</html>", Unavailable, "answered 502");
        check(503, "try later", Unavailable, "try later");
        check(408, "{}", Unavailable, "408");
        check(501, "{}", Refused, "501");
        check(
            401,
            r#"{"error":"no key"}"#,
            Unauthenticated,
            "check OPENAI_API_KEY",
        );
        check(403, r#"{"detail":"not you"}"#, Unauthenticated, "not you");
        check(
            402,
            r#"{"error":{"type":"billing_error"}}"#,
            Refused,
            "402 billing_error",
        );
        check(
            400,
            r#"{"error":{"message":"bad schema"}}"#,
            Refused,
            "bad schema",
        );
        check(302, "", Refused, "302");
        check(404, "404 page not found", Refused, "404 page not found");
        check(
            404,
            r#"{"type":"error","error":{"type":"not_found_error","message":"model: claude-9"}}"#,
            NoModel,
            "no model 'm': model: claude-9",
        );
        check(
            404,
            r#"{"error":{"message":"The model `x` does not exist","code":"model_not_found"}}"#,
            NoModel,
            "--model",
        );
        check(
            200,
            r#"{"id":"x","choices":[]}"#,
            Refused,
            "not a stream of events",
        );
        check(
            200,
            r#"{"error":{"message":"busy","code":503}}"#,
            Unavailable,
            "busy",
        );
    }

    #[test]
    fn what_to_do_about_a_model_that_ollama_has_not() {
        let body = r#"{"error":{"message":"model 'm' not found","type":"not_found_error"}}"#;
        let failure = refused(Provider::Ollama, 404, body);
        assert_eq!(failure.kind, FailureKind::NoModel);
        assert!(failure.message.contains("`ollama pull m`"), "{failure}");
    }

    #[test]
    fn a_context_that_is_too_small_has_many_names() {
        for message in [
            "prompt is too long: 210042 tokens > 200000 maximum",
            "input length and `max_tokens` exceed context limit: 199000 + 8000 > 200000",
            "This model's maximum context length is 128000 tokens. However, your messages …",
            "Your input exceeds the context window of this model.",
            "the request exceeds the available context size, try increasing it",
            "Prompt too long; exceeded max context length by 10 tokens",
            "The number of tokens … is greater than the context length",
        ] {
            let body = serde_json::json!({"error": {"message": message}}).to_string();
            check(400, &body, FailureKind::ContextOverflow, message);
        }
        let body = r#"{"error":{"message":"x","code":"context_length_exceeded"}}"#;
        check(400, body, FailureKind::ContextOverflow, "x");
        check(413, "", FailureKind::ContextOverflow, "413");
        // Tokens are limited in other ways too.
        let body = r#"{"error":{"message":"Request too large on tokens per min","code":"rate_limit_exceeded"}}"#;
        check(429, body, FailureKind::RateLimited, "per min");
    }

    #[test]
    fn an_error_in_mid_stream_has_no_status() {
        let asked = Asked {
            provider: Provider::Anthropic,
            model: "m".to_owned(),
        };
        let check = |error: &str, kind: FailureKind| {
            let failure = asked.broken_off(&serde_json::from_str(error).expect("JSON"));
            assert_eq!(failure.kind, kind, "{failure}");
        };
        check(
            r#"{"error":{"type":"overloaded_error","message":"x"}}"#,
            FailureKind::Unavailable,
        );
        check(
            r#"{"error":{"type":"rate_limit_error","message":"x"}}"#,
            FailureKind::RateLimited,
        );
        check(
            r#"{"error":{"type":"invalid_request_error","message":"x"}}"#,
            FailureKind::Refused,
        );
        check(
            r#"{"error":{"message":"x","code":429}}"#,
            FailureKind::RateLimited,
        );
        check(r#"{"error":"x"}"#, FailureKind::Unavailable);
    }

    #[test]
    fn a_server_may_know_whether_asking_again_helps() {
        let asked = Asked {
            provider: Provider::OpenAi,
            model: "m".to_owned(),
        };
        let check = |status: u16, should_retry: Option<bool>, kind: FailureKind| {
            let refusal = Refusal {
                status: status.try_into().expect("a status"),
                body: String::new(),
                retry_after: None,
                should_retry,
            };
            assert_eq!(asked.refused(&refusal).kind, kind);
        };
        check(429, Some(false), FailureKind::Refused);
        check(429, None, FailureKind::RateLimited);
        check(400, Some(true), FailureKind::Unavailable);
        check(401, Some(true), FailureKind::Unauthenticated);
    }
}
