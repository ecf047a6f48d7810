//! What is wrong, and how it is called.

use super::*;

#[test]
fn everything_wrong_is_named_with_its_value() {
    #[track_caller]
    fn check(env: &[(&str, &str)], problem: &str) {
        check_problems(Case { env, ..FRESH }, &[problem]);
    }
    check(
        &[("MODE", "LOCAL")],
        "MODE is 'LOCAL': a mode is local or cloud (did you mean 'local'?)",
    );
    check(
        &[("MODE", "prod")],
        "MODE is 'prod': a mode is local or cloud",
    );
    check(
        &[("SANDBOX_TYPE", "filesytem")],
        "SANDBOX_TYPE is 'filesytem': there is no such backend: this build has filesystem, daytona, my-plugin (did you mean 'filesystem'?)",
    );
    check(
        &[("SANDBOX_TYPE", "wasi")],
        "SANDBOX_TYPE is 'wasi': this backend is not in this build: this build has filesystem, daytona, my-plugin",
    );
    check(
        &[("SANDBOX_ROOT_DIR", "")],
        "SANDBOX_ROOT_DIR is empty: name a directory, or unset it for ./workspace",
    );
    check(
        &[("STIGMER_PORT", "99999")],
        "STIGMER_PORT is '99999': a port is a number from 0 to 65535",
    );
    check(
        &[("STIGMER_PORT", "http")],
        "STIGMER_PORT is 'http': a port is a number from 0 to 65535",
    );
    check(
        &[("STIGMER_BACKEND_ENDPOINT", "localhost")],
        "STIGMER_BACKEND_ENDPOINT is 'localhost': an endpoint is host:port, unix:/path, http://host[:port] or https://host[:port]",
    );
    check(
        &[("STIGMER_LOG_LEVEL", "loud")],
        "STIGMER_LOG_LEVEL is 'loud': a level is one of off, error, warn, info, debug, trace, alone or for a module, as in 'warn,stigmer=debug'",
    );
    check(
        &[("STIGMER_LOG_FORMAT", "xml")],
        "STIGMER_LOG_FORMAT is 'xml': a log format is 'text' or 'json'",
    );
    check(
        &[("STIGMER_METRICS", "9464")],
        "STIGMER_METRICS is '9464': metrics are 'off' or an address and a port, such as 127.0.0.1:9464",
    );
    check(
        &[("STIGMER_DEFAULT_TIMEOUT", "30")],
        "STIGMER_DEFAULT_TIMEOUT is '30': a duration is a number above 0 with a unit, such as 90s, 30m or '1h 30m'",
    );
    check(
        &[
            ("STIGMER_DEFAULT_TIMEOUT", "2h"),
            ("STIGMER_MAX_TIMEOUT", "1h"),
        ],
        "STIGMER_DEFAULT_TIMEOUT is 2h, which is more than STIGMER_MAX_TIMEOUT, 1h",
    );
    check(
        &[("HOME", "UNSET")],
        "HOME is not set, so there is no default data directory: set STIGMER_DATA_DIR or --data-dir",
    );
    check(
        &[("DAYTONA_API_URL", "app.daytona.io")],
        "DAYTONA_API_URL is 'app.daytona.io': an address of an API begins with http:// or https:// and a host",
    );
    check(
        &[("STIGMER_LLM_PROVIDER", "antropic")],
        "STIGMER_LLM_PROVIDER is 'antropic': a provider is anthropic, openai, ollama (did you mean 'anthropic'?)",
    );
    check(
        &[("STIGMER_LLM_MODEL", "two words")],
        "STIGMER_LLM_MODEL is 'two words': the name of a model has no space",
    );
    check(
        &[("OLLAMA_BASE_URL", "localhost:11434")],
        "OLLAMA_BASE_URL is 'localhost:11434': an address of an API begins with http:// or https:// and a host",
    );
    check(
        &[("STIGMER_APPROVE", "asks")],
        "STIGMER_APPROVE is 'asks': approval is asked for never, ask, always (did you mean 'ask'?)",
    );
    check(
        &[("STIGMER_MAX_TURNS", "0")],
        "STIGMER_MAX_TURNS is '0': this is a whole number above 0, or 'none'",
    );
    check(
        &[("STIGMER_EXECUTION_TIMEOUT", "60")],
        "STIGMER_EXECUTION_TIMEOUT is '60': a duration is a number above 0 with a unit, such as 90s, 30m or '1h 30m', or 'none'",
    );
    check(
        &[("STIGMER_MAX_COST", "free")],
        "STIGMER_MAX_COST is 'free': a cost is dollars above 0, such as 5 or 0.50, or 'none'",
    );
    check(
        &[("STIGMER_SERVER_BIN", "/usr/bin/stigmer-server")],
        "STIGMER_SERVER_BIN is not used any more: the daemon is this program itself",
    );
    let cloud = |name, value| {
        CLOUD
            .iter()
            .copied()
            .chain([(name, value)])
            .collect::<Vec<_>>()
    };
    check(
        &cloud("REDIS_PORT", "6379x"),
        "REDIS_PORT is '6379x': a port is a number from 1 to 65535",
    );
    check(
        &cloud("REDIS_HOST", "redis://host"),
        "REDIS_HOST is 'redis://host': a host is a name or an address, without a scheme or a path",
    );
    for name in ["filesystem", "wasi"] {
        check(
            &cloud("SANDBOX_TYPE", name),
            &format!(
                "SANDBOX_TYPE is '{name}': this backend belongs to MODE=local, and the mode is cloud: use daytona or an installed plugin, or set MODE=local"
            ),
        );
    }
}

#[test]
fn an_unknown_variable_is_no_silent_mistake() {
    let problems = Case {
        env: &[("STIGMER_PROT", "1")],
        ..FRESH
    }
    .resolve()
    .unwrap_err();
    let [problem] = &problems[..] else {
        panic!("{problems:?}")
    };
    assert!(
        problem.0.starts_with("STIGMER_PROT is not a variable of Stigmer's (did you mean 'STIGMER_PORT'?); those are STIGMER_"),
        "{problem}"
    );
}

#[test]
fn flags_and_keys_are_called_by_their_own_names() {
    check_problems(
        Case {
            flags: |flags| flags.port = Some("x".to_owned()),
            ..FRESH
        },
        &["--port is 'x': a port is a number from 0 to 65535"],
    );
    check_problems(
        Case {
            flags: |flags| flags.root = Some("".into()),
            ..FRESH
        },
        &["--root is empty: leave it out for the default"],
    );
    check_problems(
        Case {
            flags: |flags| flags.mode = Some(String::new()),
            ..FRESH
        },
        &["--mode is empty: leave it out for the default"],
    );
    check_problems(
        Case {
            file: "port = 70000\nlog_level = ''\nmetrics = true\nsandbox_type = 'nope'",
            ..FRESH
        },
        &[
            "/c.toml:1: port is '70000': a port is a number from 0 to 65535",
            "/c.toml:4: sandbox_type is 'nope': there is no such backend: this build has filesystem, daytona, my-plugin",
            "/c.toml:2: log_level is empty: a value is a string or a whole number, and a key without one is left out",
            "/c.toml:3: metrics is boolean: a value is a string or a whole number, and a key without one is left out",
        ],
    );
}

#[test]
fn all_problems_come_at_once() {
    let problems = Case {
        env: &[
            ("MODE", "LOCAL"),
            ("STIGMER_PORT", "-1"),
            ("STIGMER_MAX_TIMEOUT", "x"),
            ("STIGMER_UNKNOWN", "1"),
            ("HOME", "UNSET"),
        ],
        file: "nonsense = 1",
        ..FRESH
    }
    .resolve()
    .unwrap_err();
    assert_eq!(problems.len(), 6, "{problems:?}");
}

#[test]
fn a_build_without_the_default_says_so() {
    check_problems(
        Case {
            backends: &[],
            ..FRESH
        },
        &[
            "SANDBOX_TYPE defaults to 'filesystem' in local mode, which is not in this build: this build has no backend at all",
        ],
    );
}
