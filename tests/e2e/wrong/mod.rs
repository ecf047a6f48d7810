//! What a user reads who got it wrong: invocations that need no daemon.

mod configuration;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use stigmer_tests::{Home, Output};

use configuration::{CONFIGURATION, SERVER};

/// An invocation, and what is read.
pub(crate) struct Wrong {
    /// The arguments, between spaces; `''` is an empty one.
    pub(crate) args: &'static str,
    /// Variables to add; `-` takes one away.
    pub(crate) env: &'static [(&'static str, &'static str)],
    pub(crate) code: i32,
    /// The sentence that says it.
    pub(crate) message: &'static str,
}

pub(crate) const fn wrong(args: &'static str, code: i32, message: &'static str) -> Wrong {
    Wrong {
        args,
        env: &[],
        code,
        message,
    }
}

/// Runs one, and gives what is wrong with the answer, so that a table shows
/// all of its failures at once.
fn problem(home: &Home, wrong: &Wrong) -> Option<String> {
    let args = wrong
        .args
        .split_whitespace()
        .map(|arg| if arg == "''" { "" } else { arg });
    let mut cli = home.stigmer(args);
    for &(name, value) in wrong.env {
        cli = if value == "-" {
            cli.without_env(name)
        } else {
            cli.env(name, value)
        };
    }
    let output: Output = cli.run();
    let complaint = output.complaint();
    let sound = output.status().code() == Some(wrong.code)
        && complaint.contains(wrong.message)
        && output.stdout.is_empty()
        && (complaint.starts_with("error: ") || complaint.contains("Usage: "))
        && !complaint.contains("panicked");
    (!sound).then(|| {
        format!(
            "expected {} and {:?} of\n{output}",
            wrong.code, wrong.message
        )
    })
}

#[track_caller]
pub(crate) fn check(home: &Home, table: &[Wrong]) {
    let problems: Vec<_> = table
        .iter()
        .filter_map(|wrong| problem(home, wrong))
        .collect();
    assert!(
        problems.is_empty(),
        "{} of {}:\n{}",
        problems.len(),
        table.len(),
        problems.join("\n")
    );
}

const COMMANDS: &[Wrong] = &[
    wrong("", 2, "Usage: stigmer"),
    wrong("nonsense", 2, "unrecognized subcommand 'nonsense'"),
    wrong("--nope", 2, "unexpected argument '--nope' found"),
    wrong("config", 2, "Usage: stigmer config"),
    wrong(
        "completions nosuch",
        2,
        "invalid value 'nosuch' for '<SHELL>'",
    ),
    wrong("sandbox", 2, "Usage: stigmer sandbox"),
    wrong("sandbox nonsense", 2, "unrecognized subcommand 'nonsense'"),
];

const EXEC: &[Wrong] = &[
    wrong(
        "exec",
        125,
        "the following required arguments were not provided",
    ),
    wrong(
        "exec --",
        125,
        "the following required arguments were not provided",
    ),
    wrong(
        "exec --nope -- true",
        125,
        "unexpected argument '--nope' found",
    ),
    wrong(
        "exec --timeout soon -- true",
        125,
        "invalid value 'soon' for '--timeout <DURATION>': not a duration such as 30s, 5m or 1h30m",
    ),
    wrong(
        "exec --timeout=-1 -- true",
        125,
        "invalid value '-1' for '--timeout <DURATION>'",
    ),
    wrong(
        "exec -e =x -- true",
        125,
        "'' cannot name an environment variable",
    ),
    wrong(
        "exec --env-file missing -- true",
        125,
        "cannot read --env-file 'missing'",
    ),
    wrong(
        "exec --env-file home -- true",
        125,
        "cannot read --env-file 'home'",
    ),
    wrong(
        "exec --env-file bad-name -- true",
        125,
        "--env-file 'bad-name', line 2: 'B C' has a space in the name; write NAME=VALUE",
    ),
    wrong(
        "exec --env-file latin -- true",
        125,
        "--env-file 'latin', line 1: this is not UTF-8",
    ),
    wrong(
        "exec --env-file nameless -- true",
        125,
        "'' cannot name an environment variable",
    ),
    wrong("exec --cwd '' -- true", 125, "a path may not be empty"),
    wrong(
        "exec --cwd missing -- true",
        125,
        "'missing': no such file or directory",
    ),
    wrong("exec --cwd file -- true", 125, "'file': not a directory"),
    wrong(
        "exec --cwd ../.. -- true",
        125,
        "'../..': leads out of the sandbox",
    ),
    wrong(
        "exec --cwd /etc -- true",
        125,
        "'/etc': leads out of the sandbox",
    ),
    wrong(
        "exec -t -- true",
        125,
        "-t needs a terminal, and stdin is not one",
    ),
    wrong("exec -t --json -- true", 125, "cannot be used with"),
    wrong(
        "exec --sandbox nope -- true",
        125,
        "--sandbox is 'nope': there is no such backend: this build has filesystem",
    ),
    wrong(
        "exec --sandbox filesytem -- true",
        125,
        "did you mean 'filesystem'?",
    ),
    wrong(
        "exec --sandbox wasi -- true",
        125,
        "--sandbox is 'wasi': this backend is not in this build",
    ),
    wrong("exec --root plain -- true", 125, "is not a directory"),
    wrong("exec --root plain/below -- true", 125, "is not a directory"),
    wrong(
        "exec --mode production -- true",
        125,
        "--mode is 'production': a mode is local or cloud",
    ),
];

const CLIENTS: &[Wrong] = &[
    wrong("sandbox list", 1, "stigmer.sock; is it running?"),
    wrong(
        "sandbox list",
        1,
        "hint: start it with: stigmer local start",
    ),
    wrong(
        "sandbox exec box -- true",
        125,
        "cannot connect to the Stigmer daemon",
    ),
    wrong(
        "sandbox grep box x",
        2,
        "cannot connect to the Stigmer daemon",
    ),
    wrong(
        "--endpoint https://example.org sandbox list",
        2,
        "TLS is not built in",
    ),
    wrong(
        "--endpoint unix:/nowhere/s.sock sandbox list",
        1,
        "cannot connect to the Stigmer daemon at /nowhere/s.sock",
    ),
    wrong(
        "sandbox prune --all",
        2,
        "--all destroys every sandbox, with what runs in it",
    ),
    wrong("sandbox prune --all --expired", 2, "cannot be used with"),
    wrong(
        "sandbox create --memory 0",
        2,
        "invalid value '0' for '--memory <SIZE>': it must be more than nothing",
    ),
    wrong(
        "sandbox create --memory lots",
        2,
        "not a size such as 4096, 512M or 2G",
    ),
    wrong(
        "sandbox create --lifetime 0",
        2,
        "it must be longer than nothing",
    ),
    wrong(
        "sandbox create --idle never",
        2,
        "not a duration such as 30s, 5m or 1h30m",
    ),
    wrong(
        "sandbox create --label a",
        2,
        "invalid value 'a' for '--label <KEY=VALUE>': not KEY=VALUE",
    ),
    wrong("sandbox list --ids --json", 2, "cannot be used with"),
    wrong(
        "sandbox destroy",
        2,
        "the following required arguments were not provided",
    ),
    wrong(
        "sandbox write box f --permissions 888",
        2,
        "invalid value '888' for '--permissions <OCTAL>': not permissions such as 644 or 0755",
    ),
    wrong(
        "sandbox write box f --append --create-new",
        2,
        "cannot be used with",
    ),
    wrong("sandbox cat box ''", 2, "a path may not be empty"),
    wrong(
        "sandbox edit box f --new x",
        2,
        "the following required arguments were not provided",
    ),
    wrong(
        "sandbox grep box x --max-count 0",
        2,
        "invalid value '0' for '--max-count <COUNT>'",
    ),
    wrong("sandbox exec -d -i box -- true", 125, "cannot be used with"),
    wrong(
        "sandbox exec box",
        125,
        "the following required arguments were not provided",
    ),
    wrong(
        "sandbox exec -t box -- true",
        125,
        "-t needs a terminal, and stdin is not one",
    ),
    wrong(
        "sandbox shell box",
        125,
        "a shell needs a terminal, and stdin is not one",
    ),
    wrong("sandbox ps box --follow x --all", 2, "cannot be used with"),
    wrong(
        "sandbox cp a b",
        2,
        "one side must be in a sandbox: SANDBOX:PATH",
    ),
    wrong("sandbox cp a:x b:y", 2, "one side must be on this machine"),
    wrong("sandbox cp '' box:", 2, "a path may not be empty"),
];

#[test]
fn invocations() {
    let home = Home::new();
    home.write("plain", "a file");
    home.write("work/file", "a file");
    home.write("bad-name", "A=1\nB C=1\n");
    home.write("latin", b"A=\xff\n");
    home.write("nameless", "=1\n");
    home.write("broken/config.toml", "mode = 'local'\nport = \n");
    home.write("unknown/config.toml", "prot = 1\n");
    home.write("typed/config.toml", "metrics = true\n");
    let exposed = home.write("exposed/config.toml", "api_key = 'k'\n");
    fs::set_permissions(exposed, fs::Permissions::from_mode(0o644)).unwrap();
    fs::create_dir_all(home.path("directory/config.toml")).unwrap();
    for table in [COMMANDS, EXEC, CONFIGURATION, SERVER, CLIENTS] {
        check(&home, table);
    }
    let all = [COMMANDS, EXEC, CONFIGURATION, SERVER, CLIENTS].map(<[_]>::len);
    assert!(all.iter().sum::<usize>() >= 60);
    // Nothing of all that was started, or written down.
    assert_eq!(home.data_entries(), [""; 0]);
    assert_eq!(home.processes(), []);
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let home = Home::new();
    let output = home
        .stigmer(["config", "show"])
        .env("MODE", "LOCAL")
        .env("STIGMER_PORT", "-1")
        .env("STIGMER_LOG_LEVEL", "loud")
        .env("STIGMER_UNKNOWN", "1")
        .run();
    assert_eq!(output.complaint().matches("error: ").count(), 4, "{output}");
}

#[test]
fn a_variable_that_is_no_text_is_named() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let home = Home::new();
    let bytes = OsStr::from_bytes(b"\xff");
    let run = |name: &str, args: &[&str]| home.stigmer(args).env(name, bytes).run();
    run("STIGMER_PORT", &["config", "show"]).fails(2, "the value of STIGMER_PORT is not UTF-8");
    run("LATIN", &["exec", "-e", "LATIN", "--", "true"])
        .fails(125, "the value of LATIN in this environment is not UTF-8");
    // One that nobody reads is nobody's problem.
    assert_eq!(run("LATIN", &["exec", "--", "echo fine"]).ok(), "fine\n");
}
