//! Wrong invocations that need no daemon, each with what a user reads.

use super::*;

fn args(line: &[&str]) -> Vec<OsString> {
    std::iter::once("stigmer")
        .chain(line.iter().copied())
        .map(OsString::from)
        .collect()
}

#[track_caller]
fn parse(line: &[&str]) -> Cli {
    Cli::try_parse_from(args(line)).unwrap_or_else(|error| panic!("{error}"))
}

/// The first paragraph of what clap says, and the exit code.
fn refusal(line: &[&str]) -> (String, u8) {
    let error = Cli::try_parse_from(args(line)).expect_err("it was accepted");
    let text = error.to_string();
    let first = text
        .split("\n\n")
        .next()
        .unwrap_or_default()
        .replace("\n  ", " ");
    (first, habit_of(&args(line)).of_failure(Reason::Usage))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_an_example() {
    fn walk(command: &mut clap::Command, path: &str) {
        for below in command.get_subcommands_mut() {
            if below.get_name() == "help" {
                continue;
            }
            let path = format!("{path} {}", below.get_name());
            let help = below.render_long_help().to_string();
            assert!(help.contains("Example"), "{path} has no example");
            walk(below, &path);
        }
    }
    walk(&mut Cli::command(), "stigmer");
}

#[test]
fn wrong_invocations_are_told_what_is_wrong() {
    #[track_caller]
    fn check(line: &[&str], code: u8, message: &str) {
        let (said, exit) = refusal(line);
        assert!(said.contains(message), "{said}");
        assert_eq!(exit, code);
    }
    check(
        &["exec"],
        125,
        "the following required arguments were not provided: <COMMAND>...",
    );
    check(
        &["exec", "--"],
        125,
        "the following required arguments were not provided: <COMMAND>...",
    );
    check(
        &["exec", "--timeout", "soon", "--", "true"],
        125,
        "invalid value 'soon' for '--timeout <DURATION>': not a duration such as 30s, 5m or 1h30m",
    );
    check(
        &["exec", "--timeout=-1s", "--", "true"],
        125,
        "invalid value '-1s' for '--timeout <DURATION>': not a duration such as 30s, 5m or 1h30m",
    );
    check(
        &["exec", "-e", "=x", "--", "true"],
        125,
        "invalid value '=x' for '--env <NAME=VALUE>': '' cannot name an environment variable",
    );
    check(
        &["exec", "-e", "", "--", "true"],
        125,
        "'' cannot name an environment variable",
    );
    check(
        &["exec", "--cwd", "", "--", "true"],
        125,
        "invalid value '' for '--cwd <DIR>': a path may not be empty",
    );
    check(
        &["exec", "-t", "--json", "--", "true"],
        125,
        "'--tty' cannot be used with '--json'",
    );
    check(
        &["--quiet", "--mode", "local", "exec", "--no-such"],
        125,
        "unexpected argument '--no-such' found",
    );
    check(&["sandbox", "exec", "web"], 125, "<COMMAND>...");
    check(
        &["sandbox", "exec", "-d", "-i", "web", "true"],
        125,
        "'--detach' cannot be used with '--interactive'",
    );
    check(&["sandbox", "grep", "web"], 2, "<PATTERN>");
    check(
        &["sandbox", "grep", "web", "x", "--max-count", "0"],
        2,
        "0 is not in 1..",
    );
    check(
        &["sandbox", "grep", "web", "x", "-C", "some"],
        2,
        "invalid value 'some' for '--context <LINES>'",
    );
    check(
        &["sandbox", "create", "--memory", "lots"],
        2,
        "not a size such as 4096, 512M or 2G",
    );
    check(
        &["sandbox", "create", "--memory", "0"],
        2,
        "it must be more than nothing",
    );
    check(
        &["sandbox", "create", "--lifetime", "0s"],
        2,
        "it must be longer than nothing",
    );
    check(
        &["sandbox", "create", "--label", "task"],
        2,
        "invalid value 'task' for '--label <KEY=VALUE>': not KEY=VALUE",
    );
    check(&["sandbox", "list", "--label", "=x"], 2, "not KEY=VALUE");
    check(
        &["sandbox", "list", "--ids", "--json"],
        2,
        "'--ids' cannot be used with '--json'",
    );
    check(&["sandbox", "cat", "web", ""], 2, "a path may not be empty");
    check(
        &["sandbox", "cat", "web", "a", "--offset", "-1"],
        2,
        "unexpected argument '-1' found",
    );
    check(
        &["sandbox", "write", "web", "a", "--permissions", "0999"],
        2,
        "not permissions such as 644 or 0755",
    );
    check(
        &["sandbox", "write", "web", "a", "--permissions", "4755"],
        2,
        "not permissions such as 644 or 0755",
    );
    check(
        &["sandbox", "write", "web", "a", "--append", "--create-new"],
        2,
        "cannot be used with",
    );
    check(
        &["sandbox", "edit", "web", "a", "--old", "x"],
        2,
        "<--new <TEXT>|--new-file <FILE>>",
    );
    check(
        &[
            "sandbox",
            "edit",
            "web",
            "a",
            "--old",
            "x",
            "--old-file",
            "y",
            "--new",
            "z",
        ],
        2,
        "cannot be used with",
    );
    check(&["sandbox", "cp", "", "web:"], 2, "a path may not be empty");
    check(&["sandbox", "rm", "web"], 2, "<PATH>...");
    check(&["sandbox", "destroy"], 2, "<SANDBOX>...");
    check(
        &["sandbox", "ps", "web", "--follow", "p", "--stop", "p"],
        2,
        "cannot be used with",
    );
    check(
        &["sandbox", "prune", "--all", "--expired"],
        2,
        "cannot be used with",
    );
    check(
        &["completions", "cmd"],
        2,
        "invalid value 'cmd' for '<SHELL>'",
    );
    check(&["snadbox"], 2, "unrecognized subcommand 'snadbox'");
    check(&[], 2, "Runs an AI agent's commands");
}

#[test]
fn what_parses_may_still_make_no_sense() {
    #[track_caller]
    fn check(line: &[&str], problem: &str) {
        let Command::Sandbox(command) = parse(line).command else {
            panic!("not a sandbox command")
        };
        let failure = command.check().expect_err("it was accepted");
        assert_eq!(
            (failure.reason, failure.problems),
            (Reason::Usage, vec![problem.to_owned()])
        );
        assert!(!failure.hints.is_empty());
    }
    check(
        &["sandbox", "cp", "a", "b"],
        "one side must be in a sandbox: SANDBOX:PATH",
    );
    check(
        &["sandbox", "cp", "web:a", "api:b"],
        "one side must be on this machine",
    );
    check(
        &["sandbox", "prune", "--all"],
        "--all destroys every sandbox, with what runs in it",
    );
}

#[test]
fn the_command_is_taken_as_it_is() {
    #[track_caller]
    fn check(line: &[&str], expected: &[&str]) {
        let Command::Exec(args) = parse(line).command else {
            panic!("not exec")
        };
        assert_eq!(args.words(), expected);
    }
    check(&["exec", "--", "ls", "-la"], &["ls", "-la"]);
    check(&["exec", "ls", "-la", "--json"], &["ls", "-la", "--json"]);
    check(
        &["exec", "--json", "--", "sh", "-c", "a | b", "--", "-e"],
        &["sh", "-c", "a | b", "--", "-e"],
    );
    check(&["exec", "-e", "A=1", "--", "--help"], &["--help"]);
}

#[test]
fn values_that_are_not_text_are_problems_only_if_they_are_read() {
    use std::os::unix::ffi::OsStringExt;
    let bytes = || OsString::from_vec(vec![0xff]);
    let vars = [("MODE".into(), bytes()), ("LS_COLORS".into(), bytes())];
    let environment = Environment::new(vars.into_iter());
    assert_eq!(environment.unreadable, ["MODE", "LS_COLORS"]);
    assert_eq!(
        unreadable(&environment),
        [Problem("the value of MODE is not UTF-8".to_owned())]
    );
}
