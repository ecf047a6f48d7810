//! The environment that a runner is given, which is made from nothing.

use std::path::Path;

use crate::config::{Config, Env, Mode, Provider};

/// Variables of whoever starts a daemon that its processes need too, and
/// nothing else of that environment: where programs are, who the user is, and
/// how text is written.
pub const INHERITED_VARIABLES: [&str; 11] = [
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LOGNAME",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
    "USER",
];

/// What every runner is given:
///
/// - [`INHERITED_VARIABLES`] as they are around this process;
/// - as the configuration has them: `MODE`, `SANDBOX_TYPE`, `SANDBOX_ROOT_DIR`,
///   `STIGMER_DATA_DIR`, `STIGMER_LLM_PROVIDER`, `STIGMER_LLM_MODEL`,
///   `ANTHROPIC_BASE_URL`, `OPENAI_BASE_URL`, `OLLAMA_BASE_URL`;
/// - `STIGMER_BACKEND_ENDPOINT`, where it finds the daemon.
pub(super) fn of_runner(config: &Config, endpoint: String) -> Env {
    let mut env = inherited();
    let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
    set("MODE", config.mode.to_string());
    set("SANDBOX_TYPE", config.sandbox.clone());
    if config.mode == Mode::Local {
        set("SANDBOX_ROOT_DIR", text(&config.root));
    }
    set("STIGMER_DATA_DIR", text(&config.data_dir));
    set("STIGMER_BACKEND_ENDPOINT", endpoint);
    let llm = &config.llm;
    if let Some(provider) = llm.provider {
        set("STIGMER_LLM_PROVIDER", provider.to_string());
    }
    if let Some(model) = &llm.model {
        set("STIGMER_LLM_MODEL", model.clone());
    }
    for (name, provider) in [
        ("ANTHROPIC_BASE_URL", Provider::Anthropic),
        ("OPENAI_BASE_URL", Provider::OpenAi),
        ("OLLAMA_BASE_URL", Provider::Ollama),
    ] {
        set(name, llm.base_url(provider).url.clone());
    }
    env
}

/// What a runner that somebody else wrote is given: the same, `LOG_LEVEL`, and
/// the keys, which it expects there.
pub fn of_script(config: &Config) -> Env {
    let mut env = of_runner(config, config.endpoint.clone());
    let mut set = |name: &str, value: &str| env.insert(name.to_owned(), value.to_owned());
    set("LOG_LEVEL", log_level(&config.log_level));
    set("STIGMER_API_KEY", config.api_key.expose());
    for (name, key) in [
        ("ANTHROPIC_API_KEY", &config.llm.anthropic_api_key),
        ("OPENAI_API_KEY", &config.llm.openai_api_key),
    ] {
        if let Some(key) = key {
            set(name, key.expose());
        }
    }
    env
}

/// The level that holds for everything, in the words of other languages' logs.
fn log_level(directives: &str) -> &'static str {
    let level = directives.split(',').find(|part| !part.contains('='));
    match level.unwrap_or_default() {
        "off" => "CRITICAL",
        "error" => "ERROR",
        "warn" => "WARNING",
        "debug" | "trace" => "DEBUG",
        _ => "INFO",
    }
}

/// Those of [`INHERITED_VARIABLES`] that are set. They are no configuration,
/// which is why they are not read with it.
#[must_use]
pub fn inherited() -> Env {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| INHERITED_VARIABLES.contains(&name.as_str()))
        .collect()
}

/// A path as a variable has it. Those of the configuration came from text.
pub(super) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_translated() {
        #[track_caller]
        fn check(directives: &str, level: &str) {
            assert_eq!(log_level(directives), level, "{directives}");
        }
        check("info", "INFO");
        check("stigmer=trace,warn", "WARNING");
        check("trace", "DEBUG");
        check("off", "CRITICAL");
        check("stigmer=debug", "INFO");
    }
}
