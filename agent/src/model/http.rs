//! The HTTP client, which knows no provider.
//!
//! The connector is made in one place, [`Http::new`], and speaks plain HTTP
//! only: there is no TLS in here yet, so an `https://` address is refused when
//! it is configured, and not when it is first used. Proxies that the environment
//! names are not honoured.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Endpoint, Failure, FailureKind, Key, Provider};

/// For a connection to be there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For an answer to begin, which may take a model that thinks, or a server that
/// loads one first, a while.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two pieces of an answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// For a connection that nobody uses.
const POOL_TIMEOUT: Duration = Duration::from_secs(60);
/// Of a body that explains a refusal, and of one that is JSON instead of events.
const MAX_BODY_BYTES: usize = 1 << 20;

/// A provider's API over HTTP.
#[derive(Debug)]
pub(super) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    provider: Provider,
    base_url: String,
    headers: HeaderMap,
    key: Option<Key>,
}

/// Why there is no answer, before it is known what that means.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing came that could be read.
    Failed(Failure),
    /// The server refused.
    Refused(Refusal),
}

/// A server's answer that is no stream of events.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// As much as is of use, without the key.
    pub(super) body: String,
    pub(super) retry_after: Option<Duration>,
    /// What the server says of asking again, if it says so.
    pub(super) should_retry: Option<bool>,
}

impl Http {
    /// A client of this API. `header` says how it wants its key.
    pub(super) fn new(
        provider: Provider,
        endpoint: &Endpoint,
        header: impl Fn(&Key) -> (HeaderName, String),
    ) -> Result<Self, Failure> {
        let base_url = endpoint.base_url.trim_end_matches('/').to_owned();
        check_base_url(provider, &base_url)?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let agent = concat!("stigmer/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        if let Some(key) = &endpoint.key {
            let (name, value) = header(key);
            let mut value = HeaderValue::from_str(&value).map_err(|_| {
                let variable = provider.key_variable().unwrap_or("the key");
                Failure::new(
                    FailureKind::Unauthenticated,
                    format!(
                        "the key for {provider} has characters that no key has; check {variable}"
                    ),
                )
            })?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        connector.set_keepalive(Some(Duration::from_secs(30)));
        let client = Client::builder(Connections::default())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_TIMEOUT)
            .build(connector);
        Ok(Self {
            client,
            provider,
            base_url,
            headers,
            key: endpoint.key.clone(),
        })
    }

    /// Adds a header to every request.
    pub(super) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
        self
    }

    pub(super) fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Posts JSON below the base URL, and gives the body of an answer that
    /// begins as a stream of events.
    pub(super) async fn post(&self, path: &str, body: &serde_json::Value) -> Result<Body, Trouble> {
        let mut request = Request::new(Full::new(Bytes::from(body.to_string())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = format!("{}{path}", self.base_url)
            .parse()
            .map_err(|_| self.failed(FailureKind::Refused, "has a base URL that is none"))?;
        *request.headers_mut() = self.headers.clone();
        let response = match timeout(BEGIN_TIMEOUT, self.client.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.unreachable(&error)),
            Err(_) => {
                let text = format!("did not begin to answer within {BEGIN_TIMEOUT:?}");
                return Err(self.failed(FailureKind::Unavailable, &text));
            }
        };
        let (head, body) = response.into_parts();
        let body = Body(body);
        if head.status.is_success() && !is_json(&head.headers) {
            return Ok(body);
        }
        Err(Trouble::Refused(Refusal {
            status: head.status,
            body: self.redact(&body.text().await),
            retry_after: retry_after(&head.headers, SystemTime::now()),
            should_retry: should_retry(&head.headers),
        }))
    }

    /// What somebody else wrote, without the key.
    ///
    /// A provider that refuses a key may repeat it, whole or with asterisks in
    /// its middle.
    pub(super) fn redact(&self, text: &str) -> String {
        let Some(key) = self
            .key
            .as_ref()
            .map(Key::expose)
            .filter(|key| !key.is_empty())
        else {
            return text.to_owned();
        };
        let text = text.replace(key, "***");
        let start: String = key.chars().take(2).collect();
        let masked = |word: &str| word.contains("**") && word.contains(&start);
        if !text.split_whitespace().any(masked) {
            return text;
        }
        text.split(' ')
            .map(|word| if masked(word) { "***" } else { word })
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn failed(&self, kind: FailureKind, text: &str) -> Trouble {
        Trouble::Failed(Failure::new(
            kind,
            format!("{} at {} {text}", self.provider, self.base_url),
        ))
    }

    fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> Trouble {
        self.failed(
            FailureKind::Unavailable,
            &match self.provider {
                Provider::Ollama => {
                    let causes = causes(error);
                    format!("cannot be reached: {causes}; `ollama serve` starts it")
                }
                Provider::Anthropic | Provider::OpenAi => {
                    format!("cannot be reached: {}", causes(error))
                }
            },
        )
    }
}

/// An answer's bytes. Dropped, it ends the request and its connection.
#[derive(Debug)]
pub(super) struct Body(Incoming);

impl Body {
    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, String>> {
        loop {
            let frame = match timeout(IDLE_TIMEOUT, self.0.frame()).await {
                Ok(frame) => frame?,
                Err(_) => return Some(Err(format!("nothing came for {IDLE_TIMEOUT:?}"))),
            };
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => return Some(Ok(data)),
                Ok(Err(_)) => {} // trailers
                Err(error) => return Some(Err(causes(&error))),
            }
        }
    }

    /// As much of it as comes, up to a bound.
    async fn text(mut self) -> String {
        let mut text = Vec::new();
        while let Some(Ok(data)) = self.next().await {
            text.extend_from_slice(&data);
            if text.len() > MAX_BODY_BYTES {
                break;
            }
        }
        text.truncate(MAX_BODY_BYTES);
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// The tasks that carry connections. They end when the last client is dropped.
#[derive(Clone, Debug, Default)]
struct Connections(Arc<Mutex<JoinSet<()>>>);

impl<F> hyper::rt::Executor<F> for Connections
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, connection: F) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(connection);
    }
}

/// Whether an API at this address can be spoken to at all.
///
/// # Errors
/// `Refused`, with what is wrong with the address.
pub fn check_base_url(provider: Provider, base_url: &str) -> Result<(), Failure> {
    let variable = provider.base_url_variable();
    let refuse = |text: String| Err(Failure::new(FailureKind::Refused, text));
    let Ok(uri) = base_url.parse::<Uri>() else {
        return refuse(format!(
            "the base URL of {provider} is no URL; check {variable}"
        ));
    };
    let Some(authority) = uri.authority() else {
        return refuse(format!(
            "the base URL of {provider}, '{base_url}', lacks its http://; check {variable}"
        ));
    };
    if authority.as_str().contains('@') {
        return refuse(format!(
            "the base URL of {provider} holds a name or password, which would be shown; take them out of {variable}"
        ));
    }
    match uri.scheme_str() {
        Some("http") => Ok(()),
        Some("https") => refuse(format!(
            "cannot talk to {provider} at {base_url}: TLS is not built in yet; \
             set {variable} to the http:// address of a gateway or of a local server"
        )),
        _ => refuse(format!(
            "the base URL of {provider}, '{base_url}', is no http:// URL; check {variable}"
        )),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"))
}

fn should_retry(headers: &HeaderMap) -> Option<bool> {
    match headers.get("x-should-retry")?.as_bytes() {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

/// How long a server asks to wait: in milliseconds, in seconds, or until a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &HeaderName| headers.get(name)?.to_str().ok();
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let milliseconds = HeaderName::from_static("retry-after-ms");
    if let Some(number) = text(&milliseconds).and_then(number) {
        return Duration::try_from_secs_f64(number / 1000.0).ok();
    }
    let value = text(&RETRY_AFTER)?;
    if let Some(seconds) = number(value) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// An error and what is under it, each once.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(base_url: &str, key: Option<&str>) -> Result<Http, Failure> {
        let endpoint = Endpoint {
            base_url: base_url.to_owned(),
            key: key.map(Key::new),
        };
        Http::new(Provider::OpenAi, &endpoint, |key| {
            (
                http::header::AUTHORIZATION,
                format!("Bearer {}", key.expose()),
            )
        })
    }

    #[test]
    fn only_plain_http_is_spoken() {
        let check = |url: &str, expected: Option<&str>| match (http(url, None), expected) {
            (Ok(_), None) => {}
            (Err(failure), Some(expected)) => {
                assert_eq!(failure.kind, FailureKind::Refused);
                assert!(failure.message.contains(expected), "{failure}");
                assert!(failure.message.contains("OPENAI_BASE_URL"), "{failure}");
                assert!(!failure.message.contains("secret"), "{failure}");
            }
            (other, _) => panic!("{url}: {other:?}"),
        };
        check("http://127.0.0.1:1/v1", None);
        check("http://[::1]:1/v1/", None);
        check("https://api.openai.com/v1", Some("TLS is not built in yet"));
        check("localhost:11434", Some("no http:// URL"));
        check("/v1", Some("lacks its http://"));
        check("ftp://host", Some("no http:// URL"));
        check("http://me:secret@host", Some("password"));
        check("", Some("no URL"));
    }

    #[test]
    fn a_key_is_nowhere_to_be_seen() {
        let http = http("http://localhost:1", Some("sk-secret-0123")).expect("fine");
        assert!(!format!("{http:?}").contains("secret"));
        let check = |text: &str, expected: &str| assert_eq!(http.redact(text), expected);
        check("no key sk-secret-0123 here", "no key *** here");
        check(
            "Incorrect key: sk-se*****0123. Look",
            "Incorrect key: *** Look",
        );
        check("nothing **of** the sort", "nothing **of** the sort");
        let broken = super::tests::http("http://localhost:1", Some("sk-secret\n"));
        let failure = broken.expect_err("no header holds it");
        assert_eq!(failure.kind, FailureKind::Unauthenticated);
        assert!(!failure.message.contains("secret"), "{failure}");
    }

    #[test]
    fn how_long_a_server_asks_to_wait() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2026 07:28:00 GMT").expect("a date");
        let check = |headers: &[(&'static str, &'static str)], expected: Option<u64>| {
            let headers: HeaderMap = headers
                .iter()
                .map(|(name, value)| {
                    (
                        HeaderName::from_static(name),
                        HeaderValue::from_static(value),
                    )
                })
                .collect();
            let expected = expected.map(Duration::from_millis);
            assert_eq!(retry_after(&headers, now), expected, "{headers:?}");
        };
        check(&[], None);
        check(&[("retry-after", "7")], Some(7000));
        check(&[("retry-after", "0.5")], Some(500));
        check(
            &[("retry-after-ms", "1500"), ("retry-after", "9")],
            Some(1500),
        );
        check(
            &[("retry-after", "Wed, 21 Oct 2026 07:28:30 GMT")],
            Some(30_000),
        );
        check(&[("retry-after", "Wed, 21 Oct 2026 07:00:00 GMT")], Some(0));
        check(&[("retry-after", "soon")], None);
        check(&[("retry-after", "-1")], None);
        check(&[("retry-after", "NaN")], None);
    }
}
