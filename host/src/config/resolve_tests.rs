//! The table of what is written and what it means.

use std::time::Duration;

use super::*;
use crate::config::{AgentPolicy, Answer, ApprovalRule, Approve};

const CLOUD: &[(&str, &str)] = &[
    ("MODE", "cloud"),
    ("STIGMER_BACKEND_ENDPOINT", "https://api.example.org"),
    ("STIGMER_API_KEY", "sk-1"),
    ("DAYTONA_API_KEY", "dtn-1"),
];

/// What a case consists of; everything else is as on a fresh machine.
#[derive(Clone, Copy)]
struct Case<'a> {
    entry: Entry,
    env: &'a [(&'a str, &'a str)],
    flags: fn(&mut Flags),
    file: &'a str,
    backends: &'a [&'a str],
}

const FRESH: Case<'static> = Case {
    entry: Entry::Local,
    env: &[],
    flags: |_| {},
    file: "",
    backends: &["filesystem", "daytona", "my-plugin"],
};

impl Case<'_> {
    fn resolve(&self) -> Result<Config, Vec<Problem>> {
        let mut flags = Flags::default();
        (self.flags)(&mut flags);
        let home = [("HOME", "/home/u")];
        let env: Env = home
            .iter()
            .chain(self.env)
            .filter(|(_, value)| *value != "UNSET")
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let env = if self.env.contains(&("HOME", "UNSET")) {
            env.into_iter().filter(|(name, _)| name != "HOME").collect()
        } else {
            env
        };
        let file = ConfigFile::parse(Path::new("/c.toml"), self.file).unwrap();
        resolve(Inputs {
            entry: self.entry,
            flags: &flags,
            env: &env,
            file: Some(&file),
            cwd: Path::new("/srv"),
            backends: self.backends,
        })
    }
}

/// Every problem of the case, in order.
#[track_caller]
fn check_problems(case: Case<'_>, expected: &[&str]) {
    let problems = match case.resolve() {
        Ok(config) => panic!("{config:?}"),
        Err(problems) => problems,
    };
    let problems: Vec<_> = problems.iter().map(|problem| problem.0.as_str()).collect();
    assert_eq!(problems, expected);
}

/// The value and the source of one row.
#[track_caller]
fn check_row(case: Case<'_>, name: &str, value: &str, source: &str) {
    let config = case.resolve().unwrap();
    let row = config.sources.iter().find(|row| row.name == name).unwrap();
    assert_eq!(
        (row.value.as_str(), row.source.to_string().as_str()),
        (value, source)
    );
}

#[test]
fn a_fresh_machine_needs_nothing() {
    let config = FRESH.resolve().unwrap();
    assert_eq!(config.mode, Mode::Local);
    assert_eq!(config.sandbox, "filesystem");
    assert_eq!(config.root, Path::new("/srv/workspace"));
    assert_eq!(config.data_dir, Path::new("/home/u/.stigmer"));
    assert_eq!(
        config.socket_path(),
        Path::new("/home/u/.stigmer/stigmer.sock")
    );
    assert_eq!(
        (config.endpoint.as_str(), config.endpoint_is_default),
        ("localhost:50051", true)
    );
    assert_eq!((config.port, config.metrics), (50051, None));
    assert_eq!(config.api_key.expose(), "dummy-local-key");
    assert_eq!(config.limits, Limits::default());
    assert_eq!((config.redis, config.daytona), (None, Daytona::default()));
}

#[test]
fn every_setting_has_one_row_in_every_mode() {
    let names: Vec<_> = ALL.iter().map(|setting| setting.variable).collect();
    for env in [&[], CLOUD] {
        let config = Case { env, ..FRESH }.resolve().unwrap();
        let rows: Vec<_> = config.rows().iter().map(|row| row.name).collect();
        assert_eq!(rows, names);
    }
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let both = Case {
        env: &[("STIGMER_PORT", "2"), ("SANDBOX_ROOT_DIR", "/e")],
        file: "port = 1\nlog_level = 'debug'",
        ..FRESH
    };
    let typed = Case {
        flags: |flags| {
            flags.port = Some("3".to_owned());
            flags.root = Some("./f".into());
        },
        ..both
    };
    check_row(typed, "STIGMER_PORT", "3", "flag --port");
    check_row(typed, "SANDBOX_ROOT_DIR", "/srv/f", "flag --root");
    check_row(both, "STIGMER_PORT", "2", "environment STIGMER_PORT");
    check_row(both, "STIGMER_LOG_LEVEL", "debug", "config file /c.toml:2");
    check_row(
        Case { env: &[], ..both },
        "STIGMER_PORT",
        "1",
        "config file /c.toml:1",
    );
    check_row(FRESH, "STIGMER_PORT", "50051", "default");
}

#[test]
fn what_is_written_is_what_it_means() {
    let with = |env| Case { env, ..FRESH };
    check_row(
        with(&[("STIGMER_PORT", "")]),
        "STIGMER_PORT",
        "50051",
        "default",
    );
    check_row(
        with(&[("STIGMER_PORT", "tcp://10.0.0.1:50051")]),
        "STIGMER_PORT",
        "50051",
        "default",
    );
    check_row(
        with(&[("STIGMER_PORT", "7")]),
        "STIGMER_BACKEND_ENDPOINT",
        "localhost:7",
        "default",
    );
    check_row(
        with(&[("STIGMER_MAX_TIMEOUT", "10m")]),
        "STIGMER_DEFAULT_TIMEOUT",
        "10m",
        "default",
    );
    check_row(
        with(&[("STIGMER_METRICS", "127.0.0.1:9")]),
        "STIGMER_METRICS",
        "127.0.0.1:9",
        "environment STIGMER_METRICS",
    );
    check_row(
        with(&[("STIGMER_METRICS", "off")]),
        "STIGMER_METRICS",
        "off",
        "environment STIGMER_METRICS",
    );
    check_row(
        with(&[("SANDBOX_TYPE", "my-plugin")]),
        "SANDBOX_TYPE",
        "my-plugin",
        "environment SANDBOX_TYPE",
    );
    check_row(
        with(&[("SANDBOX_TYPE", "daytona")]),
        "SANDBOX_TYPE",
        "daytona",
        "environment SANDBOX_TYPE",
    );
    check_row(
        with(&[("STIGMER_DATA_DIR", "d"), ("HOME", "UNSET")]),
        "STIGMER_DATA_DIR",
        "/srv/d",
        "environment STIGMER_DATA_DIR",
    );
    check_row(
        with(&[("STIGMER_AGENT_RUNNER_SCRIPT", "./run.py")]),
        "STIGMER_AGENT_RUNNER_SCRIPT",
        "/srv/run.py",
        "environment STIGMER_AGENT_RUNNER_SCRIPT",
    );
    check_row(
        with(&[
            ("STIGMER_SANDBOX_ID", "x"),
            ("STIGMER_SERVICE_HOST", "10.0.0.1"),
            ("STIGMER_PORT_50051_TCP", "tcp://"),
        ]),
        "MODE",
        "local",
        "default",
    );
    check_row(with(CLOUD), "SANDBOX_TYPE", "daytona", "default");
    check_row(
        with(CLOUD),
        "SANDBOX_ROOT_DIR",
        "",
        "not read in cloud mode",
    );
    check_row(with(CLOUD), "REDIS_PORT", "6379", "default");
    check_row(
        Case {
            env: CLOUD,
            entry: Entry::Daemon,
            ..FRESH
        },
        "REDIS_HOST",
        "localhost",
        "default",
    );
}

#[test]
fn local_mode_never_reads_redis() {
    let case = Case {
        env: &[
            ("REDIS_PORT", "nonsense"),
            ("REDIS_HOST", "a b"),
            ("REDIS_PASSWORD", "pass word"),
        ],
        ..FRESH
    };
    check_row(case, "REDIS_PORT", "", "not read in local mode");
    assert_eq!(case.resolve().unwrap().redis, None);
}

#[test]
fn a_credential_never_selects() {
    let case = Case {
        env: &[
            ("DAYTONA_API_KEY", "dtn-1"),
            ("STIGMER_API_KEY", "sk-1"),
            ("ANTHROPIC_API_KEY", "ak"),
        ],
        ..FRESH
    };
    let config = case.resolve().unwrap();
    assert_eq!(
        (config.mode, config.sandbox.as_str()),
        (Mode::Local, "filesystem")
    );
}

#[test]
fn secrets_are_shown_nowhere() {
    let env: Vec<_> = CLOUD
        .iter()
        .copied()
        .chain([
            ("REDIS_PASSWORD", "hunter2-redis"),
            ("ANTHROPIC_API_KEY", "hunter2-anthropic"),
            ("OPENAI_API_KEY", "hunter2-openai"),
            ("STIGMER_API_KEY", "hunter2-stigmer"),
            ("DAYTONA_API_KEY", "hunter2-daytona"),
        ])
        .collect();
    let case = Case { env: &env, ..FRESH };
    let shown = format!("{:?}", case.resolve().unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
    check_row(case, "REDIS_PASSWORD", "***", "environment REDIS_PASSWORD");
    check_row(FRESH, "STIGMER_API_KEY", "***", "default");
    check_row(FRESH, "OPENAI_API_KEY", "", "not set");
    check_problems(
        Case {
            env: &[("STIGMER_API_KEY", "hunter 2")],
            ..FRESH
        },
        &["STIGMER_API_KEY is '***': a key has printable ASCII characters only, and no space"],
    );
}

#[test]
fn cloud_names_everything_it_misses_at_once() {
    const MISSING: [&str; 3] = [
        "STIGMER_BACKEND_ENDPOINT is not set, and cloud mode needs it",
        "STIGMER_API_KEY is not set, and cloud mode needs it",
        "DAYTONA_API_KEY is not set, and cloud mode needs it",
    ];
    check_problems(
        Case {
            env: &[("MODE", "cloud")],
            ..FRESH
        },
        &MISSING,
    );
    check_problems(
        Case {
            env: &[("MODE", "cloud"), ("SANDBOX_TYPE", "my-plugin")],
            ..FRESH
        },
        &MISSING[..2],
    );
    check_problems(
        Case {
            entry: Entry::Daemon,
            ..FRESH
        },
        &[
            MISSING[0],
            MISSING[1],
            MISSING[2],
            "MODE is not set, which means cloud for this command: set MODE=local or --mode local to serve this machine",
        ],
    );
    let known_key: Vec<_> = CLOUD
        .iter()
        .copied()
        .chain([("STIGMER_API_KEY", "dummy-local-key")])
        .collect();
    check_problems(
        Case {
            env: &known_key,
            ..FRESH
        },
        &[
            "STIGMER_API_KEY is the key of local mode, which everybody knows: cloud mode needs one of your own",
        ],
    );
}

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

#[test]
fn agents_have_bounds_unless_somebody_says_otherwise() {
    let agents = |env| Case { env, ..FRESH }.resolve().unwrap().agents;
    assert_eq!(agents(&[]), AgentPolicy::default());
    let env = [
        ("STIGMER_APPROVE", "always"),
        ("STIGMER_MAX_TURNS", "none"),
        ("STIGMER_MAX_TOKENS", "500000"),
        ("STIGMER_EXECUTION_TIMEOUT", "10m"),
        ("STIGMER_MAX_COST", "2.5"),
    ];
    let expected = AgentPolicy {
        approve: Approve::Always,
        approvals: Vec::new(),
        max_turns: None,
        max_tokens: Some(500_000),
        execution_timeout: Some(Duration::from_secs(600)),
        max_cost_microusd: Some(2_500_000),
    };
    assert_eq!(agents(&env), expected);
    let case = Case { env: &env, ..FRESH };
    check_row(
        case,
        "STIGMER_MAX_COST",
        "2.50",
        "environment STIGMER_MAX_COST",
    );
    check_row(FRESH, "STIGMER_MAX_TURNS", "100", "default");
    check_row(FRESH, "STIGMER_MAX_TOKENS", "none", "default");
}

#[test]
fn rules_of_approval_are_read_in_their_order() {
    let case = Case {
        file: "\
port = 1

[[approvals]]
tool = 'execute'
pattern = 'git push*'
answer = 'ask'

[[approvals]]
answer = 'deny'
",
        ..FRESH
    };
    let config = case.resolve().unwrap();
    let expected = [
        ApprovalRule {
            tool: Some("execute".to_owned()),
            pattern: Some("git push*".to_owned()),
            answer: Answer::Ask,
        },
        ApprovalRule {
            tool: None,
            pattern: None,
            answer: Answer::Deny,
        },
    ];
    assert_eq!(config.agents.approvals, expected);
    check_row(
        case,
        "approvals",
        "ask execute 'git push*', deny any tool",
        "config file /c.toml:3",
    );
}

#[test]
fn a_rule_of_approval_that_is_wrong_says_where() {
    #[track_caller]
    fn check(file: &str, problems: &[&str]) {
        check_problems(Case { file, ..FRESH }, problems);
    }
    check(
        "port = 1\n[[approvals]]\nanswer = 'alow'\n",
        &["/c.toml:3: answer is 'alow': an answer is allow, ask, deny (did you mean 'allow'?)"],
    );
    check(
        "[[approvals]]\ntool = 'execute'\n\n[[approvals]]\ntool = 'exec'\npatern = 'x'\n",
        &[
            "/c.toml:1: a rule of [[approvals]] has no answer: allow, ask or deny",
            "/c.toml:4: a rule of [[approvals]] has no answer: allow, ask or deny",
            "/c.toml:5: tool is 'exec': there is no such tool; there are execute, process, read_file, write_file, edit_file, ls, glob, grep, delete, write_todos",
            "/c.toml:6: a rule of [[approvals]] has the unknown key 'patern' (did you mean 'pattern'?); allowed are tool, pattern, answer",
        ],
    );
    check(
        "[[approvals]]\nanswer = 'ask'\npattern = ''\ntool = 3\n",
        &[
            "/c.toml:3: pattern is empty: it is a string, and left out for any",
            "/c.toml:4: tool is integer: it is a string, and left out for any",
        ],
    );
}

#[test]
fn a_runner_judges_no_backend() {
    let env = [
        ("STIGMER_BACKEND_ENDPOINT", "api:443"),
        ("STIGMER_API_KEY", "sk-1"),
    ];
    let case = Case {
        entry: Entry::Runner,
        env: &env,
        backends: &[],
        ..FRESH
    };
    let config = case.resolve().unwrap();
    assert_eq!(
        (config.mode, config.sandbox.as_str()),
        (Mode::Cloud, "daytona")
    );
    check_problems(
        Case {
            env: &env[..1],
            ..case
        },
        &[
            "STIGMER_API_KEY is not set, and cloud mode needs it",
            "MODE is not set, which means cloud for this command: set MODE=local or --mode local to serve this machine",
        ],
    );
}
