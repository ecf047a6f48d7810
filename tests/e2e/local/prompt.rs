//! The key that is asked for on a terminal. The port is taken in most of
//! these, which is only found once there is a key: so they need no runner.

use std::net::TcpListener;
use std::time::Duration;

use rustix::process::Signal;
use stigmer_tests::pty::Terminal;
use stigmer_tests::{Home, binary, eventually, process};

use super::{local, nothing_runs, traces};

const ASKED: &str = "Enter Anthropic API key: ";

/// A start that asks, under a shell that outlives it.
struct Asked {
    terminal: Terminal,
    before: String,
    _port: TcpListener,
}

impl Asked {
    #[track_caller]
    fn new(home: &Home) -> Self {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut shell = home.command("setsid");
        // The shell is what has the terminal before and after.
        shell
            .args(["--ctty", "sh", "-c"])
            .arg("echo shell ready; read go; \"$0\" \"$@\"; echo \"ended with $?\"; read line; echo \"<$line>\"")
            .arg(binary::path())
            .args(["local", "start", "--port", &port.to_string()]);
        let mut terminal = Terminal::run(shell, 100, 40);
        terminal.shows("shell ready");
        let before = terminal.settings();
        terminal.types("\n");
        terminal.shows(ASKED);
        Self {
            terminal,
            before,
            _port: taken,
        }
    }

    /// The process that asks.
    fn pid(&self) -> i32 {
        let below = process::descendants(self.terminal.pid());
        let asking = below
            .iter()
            .find(|process| process.command.contains("local start"));
        asking.expect("it asks").pid
    }

    /// It ends with this code, this on the screen and the terminal as it was.
    #[track_caller]
    fn ends(mut self, home: &Home, code: i32, said: &str) {
        self.terminal.shows(&format!("ended with {code}"));
        let screen = self.terminal.screen();
        assert!(screen.contains(said), "no {said:?} in {screen:?}");
        assert!(!screen.contains("sk-secret"), "{screen:?}");
        assert_eq!(self.terminal.settings(), self.before, "{screen:?}");
        // Nothing that was typed or pasted is left for the shell.
        self.terminal.types("after\n");
        self.terminal.shows("<after>");
        assert!(self.terminal.wait().success());
        assert_eq!(traces(home), [""; 0]);
        nothing_runs(home);
    }
}

#[test]
fn a_key_is_taken_however_it_is_typed_and_not_shown() {
    let home = Home::new();
    for typed in [
        "sk-secret\n",
        "  sk-secret \r",
        "sk-secretx\x7f\n",
        "\x1b[200~sk-secret\x1b[201~\n",
        "\x1b[200~sk-secret\n\x1b[201~",
        "sk-secret\nrm -rf nothing\n",
    ] {
        let mut asked = Asked::new(&home);
        asked.terminal.types(typed);
        asked.terminal.shows("✓ Anthropic API key configured");
        asked.ends(&home, 1, "is in use by process");
    }
}

#[test]
fn what_is_no_key_is_refused_and_asked_for_again() {
    let home = Home::new();
    let mut asked = Asked::new(&home);
    asked.terminal.types("\n");
    asked.terminal.shows("secret cannot be empty");
    eventually("it asks again", Duration::from_secs(10), || {
        asked.terminal.screen().matches(ASKED).count() == 2
    });
    asked.terminal.types("   \n");
    eventually("it asks again", Duration::from_secs(10), || {
        asked.terminal.screen().matches(ASKED).count() == 3
    });
    asked.terminal.types("sk-secret with space\n");
    asked.ends(&home, 1, "failed to get Anthropic API key");
}

#[test]
fn keys_that_end_the_question_end_the_start() {
    let home = Home::new();
    for (typed, code, said) in [
        ("\x03", 130, ""),
        ("sk-secret\x03", 130, ""),
        ("\x04", 1, "no key was given"),
        ("sk-secret\x04", 1, "no key was given"),
    ] {
        let mut asked = Asked::new(&home);
        asked.terminal.types(typed);
        asked.ends(&home, code, said);
    }
}

#[test]
fn signals_that_end_the_question_give_the_terminal_back() {
    let home = Home::new();
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)] {
        let mut asked = Asked::new(&home);
        asked.terminal.types("sk-secret");
        assert!(!asked.terminal.echoes());
        process::signal(asked.pid(), signal);
        asked.ends(&home, code, "");
    }
}

#[test]
fn without_a_terminal_the_variable_is_named() {
    let home = Home::new();
    // A session of its own has no terminal to open.
    let mut alone = home.command("setsid");
    alone.arg("--wait").arg(binary::path());
    let output = stigmer_tests::Cli::new(alone)
        .args(["local", "start"])
        .run();
    output.fails(
        1,
        "failed to gather required secrets: ANTHROPIC_API_KEY is not set",
    );
    output.fails(1, "no terminal");
    let output = local(&home, ["start", "--no-input"]).run();
    output.fails(1, "ANTHROPIC_API_KEY is not set, and --no-input");
    output.fails(1, "set ANTHROPIC_API_KEY in the environment");
    let output = local(&home, ["start", "--no-input", "--provider", "openai"]).run();
    // No key is of use where nothing can be said.
    output.fails(2, "cannot talk to openai at https://api.openai.com/v1: TLS");
    assert_eq!(home.processes(), []);
}

#[test]
fn a_restart_asks_before_it_stops_anything() {
    let home = Home::new();
    let up = super::Up::alone(&home);
    let output = local(&home, ["restart", "--agent-runner", "--no-input"]).run();
    output.fails(1, "ANTHROPIC_API_KEY is not set");
    let now = super::status(&home);
    assert_eq!(super::number(&now["pid"]), up.pid());
}
