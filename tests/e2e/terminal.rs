//! Commands under a terminal, and the person in front of it.

use std::time::Duration;

use rustix::process::Signal;
use stigmer_tests::pty::Terminal;
use stigmer_tests::{Home, eventually, process};

#[test]
fn a_command_has_a_terminal_of_our_size() {
    let home = Home::new();
    let mut terminal = Terminal::start(
        &home,
        &[
            "exec",
            "-t",
            "--",
            "tty; stty size; echo $TERM; test -t 2 && echo all",
        ],
        100,
        41,
    );
    let status = terminal.wait();
    terminal.shows("all");
    assert!(status.success(), "{}", terminal.screen());
    let screen = terminal.screen();
    assert!(screen.contains("/dev/pts/"), "{screen}");
    assert!(screen.contains("41 100\r\n"), "{screen}");
    assert!(terminal.echoes(), "the terminal is as it was before");
}

#[test]
fn a_new_size_is_passed_on() {
    let home = Home::new();
    let script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done";
    let mut terminal = Terminal::start(&home, &["exec", "-t", "--", script], 80, 24);
    terminal.shows("ready");
    terminal.resize(132, 50);
    terminal.shows("50 132");
    terminal.types("\x03");
    assert_eq!(terminal.wait().code(), Some(130));
}

#[test]
fn keys_go_to_the_command_and_the_terminal_is_given_back() {
    let home = Home::new();
    let script = "trap 'echo caught' INT; echo ready; read line; echo \"<$line>\"; exit 5";
    let mut terminal = Terminal::start(&home, &["exec", "-t", "--", script], 80, 24);
    terminal.shows("ready");
    eventually("the terminal is raw", Duration::from_secs(10), || {
        !terminal.echoes()
    });
    terminal.types("żółw\r");
    terminal.shows("<żółw>");
    assert_eq!(terminal.wait().code(), Some(5));
    assert!(terminal.echoes(), "the terminal is as it was before");
}

#[test]
fn a_window_that_is_closed_ends_the_command() {
    let home = Home::new();
    let args = ["exec", "-t", "--", "echo ready; sleep 1000"];
    let mut terminal = Terminal::start(&home, &args, 80, 24);
    terminal.shows("ready");
    process::signal(terminal.pid(), Signal::HUP);
    assert_eq!(terminal.wait().code(), Some(129));
    assert_eq!(home.processes(), [], "right after the answer");
}

#[test]
fn a_shell_in_a_sandbox_is_a_shell() {
    let home = Home::new();
    let daemon = home.daemon();
    home.stigmer(["sandbox", "create", "box"]).ok();
    let mut terminal = Terminal::start(&home, &["sandbox", "shell", "box"], 80, 24);
    terminal.types("echo $((6 * 7)) >answer; exit 9\r");
    assert_eq!(terminal.wait().code(), Some(9), "{}", terminal.screen());
    assert_eq!(
        home.stigmer(["sandbox", "cat", "box", "answer"]).ok(),
        "42\n"
    );
    daemon.stop();
}
