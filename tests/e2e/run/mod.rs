//! `stigmer run`, `execution` and `session`, and what a user reads who got them
//! wrong before any agent was asked.

use stigmer_tests::{Home, pty::Terminal};

use crate::wrong::{Wrong, check, wrong};

const WRONG: &[Wrong] = &[
    wrong("run ''", 2, "there is nothing to do: the message is empty"),
    wrong("run -", 2, "there is nothing to do: the message is empty"),
    wrong("run", 2, "there is nothing to do: the message is empty"),
    wrong("run two words", 2, "unexpected argument 'words' found"),
    wrong(
        "run x -e =1",
        2,
        "invalid value '=1' for '--env <[secret:]NAME[=VALUE]>': '' cannot name an environment variable",
    ),
    wrong(
        "run x -e secret:NOT_SET_HERE",
        2,
        "-e: the secret NOT_SET_HERE is not set in this environment",
    ),
    wrong(
        "run x --env-file missing",
        2,
        "cannot read --env-file 'missing'",
    ),
    wrong(
        "run x --env-file bad-env",
        2,
        "--env-file 'bad-env', line 3: the quote ' is not closed on this line",
    ),
    wrong(
        "run x --agent missing.toml",
        2,
        "cannot read --agent 'missing.toml'",
    ),
    wrong(
        "run x --agent bad.toml",
        2,
        "bad.toml:1: an agent has the unknown key 'nmae'; allowed are name, ",
    ),
    wrong(
        "run x --agent bad.toml",
        2,
        "bad.toml:2: the skill 'skills/none': there is no such folder",
    ),
    wrong(
        "run x --agent bad.toml --session s",
        2,
        "cannot be used with",
    ),
    wrong("run x --sandbox-id b --session s", 2, "cannot be used with"),
    wrong("run x --detach --json", 2, "cannot be used with"),
    wrong(
        "run x --approve perhaps",
        2,
        "invalid value 'perhaps' for '--approve <WHEN>'",
    ),
    wrong(
        "run x --max-cost free",
        2,
        "invalid value 'free' for '--max-cost <USD>': not dollars such as 2 or 0.50",
    ),
    wrong(
        "run x --timeout soon",
        2,
        "not a duration such as 30s, 5m or 1h30m",
    ),
    wrong(
        "run x --max-turns=-1",
        2,
        "invalid value '-1' for '--max-turns <COUNT>'",
    ),
    wrong("execution", 2, "Usage: stigmer execution"),
    wrong(
        "exe show",
        2,
        "the following required arguments were not provided",
    ),
    wrong(
        "execution list --limit 0",
        2,
        "invalid value '0' for '--limit <COUNT>'",
    ),
    wrong(
        "execution list --phase done",
        2,
        "[possible values: pending, in_progress, completed, failed, cancelled]",
    ),
    wrong(
        "execution follow x --from 0",
        2,
        "invalid value '0' for '--from <SEQ>'",
    ),
    wrong("execution list", 1, "cannot connect to the Stigmer daemon"),
    wrong("session", 2, "Usage: stigmer session"),
    wrong(
        "session destroy",
        2,
        "the following required arguments were not provided",
    ),
    wrong("session list", 1, "cannot connect to the Stigmer daemon"),
];

#[test]
fn what_is_wrong_is_said_before_anything_starts() {
    let home = Home::new();
    home.write("bad-env", "A=1\n# fine\nB='x\n");
    home.write("bad.toml", "nmae = 'x'\nskills = ['skills/none']\n");
    check(&home, WRONG);
    assert_eq!(home.data_entries(), [""; 0]);
    assert_eq!(home.processes(), []);
}

#[test]
fn a_message_that_is_no_text_is_refused() {
    let home = Home::new();
    home.stigmer(["run"])
        .stdin(b"\xff".as_slice())
        .run()
        .fails(2, "the message on stdin is not UTF-8");
    home.stigmer(["run", "-"])
        .stdin(" \n")
        .run()
        .fails(2, "the message is empty");
    home.stigmer(["run", "-"])
        .stdin(vec![b'x'; 1024 * 1024 + 1])
        .run()
        .fails(2, "the message on stdin is longer than 1 MiB");
}

#[test]
fn a_terminal_is_not_read_unasked() {
    let home = Home::new();
    let mut terminal = Terminal::start(&home, &["run"], 80, 24);
    assert_eq!(terminal.wait().code(), Some(2));
    terminal.shows("no MESSAGE, and stdin is a terminal");
}
