//! Which provider is asked when nobody says which.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::config::{Llm, Provider};

/// What a server on this machine, or near it, needs to answer, and no more
/// than somebody waits for who does not have one.
const PATIENCE: Duration = Duration::from_millis(300);

/// The configured provider; without one, Ollama if something answers at its
/// address, else Anthropic. A key never chooses.
pub async fn choose(llm: &Llm) -> Provider {
    match llm.provider {
        Some(provider) => provider,
        None if answers(&llm.ollama_base_url.url).await => Provider::Ollama,
        None => Provider::Anthropic,
    }
}

/// Whether something accepts connections where this URL says.
async fn answers(url: &str) -> bool {
    let Ok(url) = url.parse::<http::Uri>() else {
        return false;
    };
    let Some(host) = url.host() else {
        return false;
    };
    // An IPv6 address has brackets in a URL and none as a name.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_u16().unwrap_or(match url.scheme_str() {
        Some("https") => 443,
        _ => 80,
    });
    let connected = tokio::time::timeout(PATIENCE, TcpStream::connect((host, port))).await;
    matches!(connected, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Entry, Flags, Inputs, resolve};

    fn llm(env: &[(&str, &str)]) -> Llm {
        let env = env
            .iter()
            .chain(&[("HOME", "/h")])
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let inputs = Inputs {
            entry: Entry::Local,
            flags: &Flags::default(),
            env: &env,
            file: None,
            cwd: std::path::Path::new("/"),
            backends: &["filesystem"],
        };
        resolve(inputs).unwrap().llm
    }

    #[tokio::test]
    async fn a_server_that_answers_is_chosen_and_a_key_chooses_nothing() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", server.local_addr().unwrap());
        let keys = [("ANTHROPIC_API_KEY", "k"), ("OPENAI_API_KEY", "k")];
        let auto = llm(&[keys[0], keys[1], ("OLLAMA_BASE_URL", &url)]);
        assert_eq!(choose(&auto).await, Provider::Ollama);
        let said = llm(&[
            ("STIGMER_LLM_PROVIDER", "openai"),
            ("OLLAMA_BASE_URL", &url),
        ]);
        assert_eq!(choose(&said).await, Provider::OpenAi);
        drop(server);
        assert_eq!(choose(&auto).await, Provider::Anthropic);
    }

    #[test]
    fn keys_are_needed_by_those_who_ask_for_one() {
        #[track_caller]
        fn check(env: &[(&str, &str)], provider: Provider, missing: Option<&str>) {
            assert_eq!(llm(env).missing_key(provider), missing, "{env:?}");
        }
        check(&[], Provider::Anthropic, Some("ANTHROPIC_API_KEY"));
        check(&[("ANTHROPIC_API_KEY", "k")], Provider::Anthropic, None);
        check(&[], Provider::OpenAi, Some("OPENAI_API_KEY"));
        check(
            &[("OPENAI_BASE_URL", "http://h:1/v1")],
            Provider::OpenAi,
            None,
        );
        let own = [("OPENAI_BASE_URL", "https://api.openai.com/v1/")];
        check(&own, Provider::OpenAi, Some("OPENAI_API_KEY"));
        check(&[], Provider::Ollama, None);
    }
}
