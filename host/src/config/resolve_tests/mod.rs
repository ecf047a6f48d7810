//! The table of what is written and what it means.

mod agents;
mod problems;

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
