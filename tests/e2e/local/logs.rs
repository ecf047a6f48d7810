//! Logs, merged by time and followed over rotation.

use std::fs;
use std::io::Write as _;

use stigmer_tests::Home;
use stigmer_tests::pty::Terminal;

use super::{Up, local};

fn record(second: u32, message: &str) -> String {
    format!(
        "{{\"timestamp\":\"2026-01-31T12:00:{second:02}Z\",\"level\":\"INFO\",\"message\":\"{message}\",\"target\":\"t\"}}\n"
    )
}

fn append(home: &Home, file: &str, text: &str) {
    let path = home.data().join("logs").join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut options = fs::OpenOptions::new();
    let mut file = options.append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Moves a log on, as its writer does.
fn rotate(home: &Home, file: &str) {
    let logs = home.data().join("logs");
    let name = |number: u32| match number {
        0 => logs.join(file),
        number => logs.join(format!("{file}.{number}")),
    };
    for number in (0..5).rev() {
        if name(number).exists() {
            fs::rename(name(number), name(number + 1)).unwrap();
        }
    }
}

/// The messages of lines for people.
fn messages(text: &str) -> Vec<&str> {
    text.lines()
        .map(|line| line.rsplit(' ').next().unwrap_or_default())
        .collect()
}

#[test]
fn logs_are_merged_cut_and_chosen() {
    let home = Home::new();
    assert_eq!(local(&home, ["logs"]).ok(), "", "there is none yet");
    append(&home, "daemon.log", &record(1, "one"));
    rotate(&home, "daemon.log");
    append(&home, "agent-runner.log", &record(2, "two"));
    append(&home, "daemon.log", &(record(3, "three") + "panicked\n"));
    append(&home, "agent-runner.log", &(record(4, "four") + "unended"));
    let shown = |args: &[&str]| {
        let text = local(&home, ["logs"]).args(args).ok();
        messages(&text).join(" ")
    };
    assert_eq!(shown(&[]), "one two three panicked four unended");
    assert_eq!(shown(&["--tail", "2"]), "panicked four unended");
    assert_eq!(shown(&["--component", "server"]), "one three panicked");
    assert_eq!(shown(&["--component", "agent-runner"]), "two four unended");
    assert_eq!(
        shown(&["--since", "2026-01-31T12:00:03Z"]),
        "three panicked four unended"
    );
    assert_eq!(shown(&["--since", "1s"]), "");
    let first = local(&home, ["logs"]).ok();
    let first = first.lines().next().unwrap();
    assert_eq!(first, "2026-01-31T12:00:01.000Z server       INFO  one");
    let json = local(&home, ["logs", "--json", "--component", "server"]).ok();
    assert_eq!(json, record(1, "one") + &record(3, "three") + "panicked\n");
    let bad = local(&home, ["logs", "--since", "yesterday"]).run();
    bad.fails(2, "not a duration");
}

#[test]
fn following_goes_on_over_rotation() {
    let home = Home::new();
    append(&home, "daemon.log", &record(1, "before"));
    let following = local(&home, ["logs", "-f", "--tail", "1"]).start();
    following.prints("before");
    append(&home, "agent-runner.log", &record(2, "began"));
    following.prints("began");
    let mut expected = vec!["before".to_owned(), "began".to_owned()];
    for number in 0..20 {
        let message = format!("n{number}");
        append(&home, "daemon.log", &record(3, &message));
        if number % 3 == 0 {
            rotate(&home, "daemon.log");
        }
        if number % 5 == 0 {
            following.prints(&format!("{message}\n"));
        }
        expected.push(message);
    }
    following.prints("n19\n");
    assert_eq!(
        messages(&following.stdout()),
        expected,
        "nothing lost, nothing twice"
    );
    // Not an interrupt: whoever runs the tests may ignore those.
    following.signal(rustix::process::Signal::TERM);
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&following.wait().status()),
        Some(15)
    );
}

#[test]
fn a_reader_that_leaves_ends_it() {
    let home = Home::new();
    append(&home, "daemon.log", &record(1, "only"));
    let mut shell = home.command("sh");
    shell
        .args(["-c", "{ \"$0\" local logs -f; echo $? >code; } | head -n 1"])
        .arg(stigmer_tests::binary::path());
    let shown = stigmer_tests::Cli::new(shell).ok();
    assert!(shown.contains("only"), "{shown}");
    assert_eq!(fs::read_to_string(home.path("code")).unwrap(), "141\n");
}

#[test]
fn a_terminal_gets_colours_and_no_orders() {
    let home = Home::new();
    append(&home, "daemon.log", &record(1, "\\u001b[2Jcleared"));
    let mut terminal = Terminal::start(&home, &["local", "logs"], 200, 40);
    assert!(terminal.wait().success());
    terminal.shows("cleared");
    let screen = terminal.screen();
    assert!(screen.contains("\x1b[36mserver"), "{screen:?}");
    assert!(screen.contains("\\u{1b}[2Jcleared"), "{screen:?}");
    assert!(!screen.contains("\x1b[2J"), "{screen:?}");
}

#[test]
fn what_a_daemon_does_is_in_its_log() {
    let home = Home::new();
    let up = Up::alone(&home);
    home.stigmer(["sandbox", "create", "box"]).ok();
    let shown = local(&home, ["logs", "--component", "server"]).ok();
    assert!(shown.contains("INFO  serving"), "{shown}");
    assert!(shown.contains("operation=create sandbox=box"), "{shown}");
    let json = local(&home, ["logs", "--json"]).ok();
    for line in json.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        for key in ["timestamp", "level", "target"] {
            assert!(line[key].is_string(), "{key} in {line}");
        }
    }
    drop(up);
    let shown = local(&home, ["logs", "--tail", "20"]).ok();
    assert!(shown.contains("shutting down"), "{shown}");
}
