use std::fs::File;
use std::io::Read as _;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::*;

/// Both sides of a terminal: ours, and the person's.
fn terminal() -> (Tty, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let slave = rustix::fs::open(&name, flags, Mode::empty()).unwrap();
    (Tty::of(slave).unwrap(), File::from(master))
}

/// Everything in the settings that counts.
fn settings(tty: &Tty) -> String {
    format!("{:?}", tcgetattr(tty.fd()).unwrap())
}

/// Reads what is shown until it ends with this.
fn shows(master: &mut File, end: &str) -> String {
    let mut shown = Vec::new();
    let mut buffer = [0; 256];
    while !shown.ends_with(end.as_bytes()) {
        let length = master.read(&mut buffer).unwrap();
        shown.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8(shown).unwrap()
}

/// Waits for the question, and types these, one after the other.
async fn answered(tty: &Tty, master: &File, answers: &[&str]) -> (Result<Secret>, String) {
    let answers: Vec<String> = answers.iter().map(|&answer| answer.to_owned()).collect();
    let mut master = master.try_clone().unwrap();
    let person = std::thread::spawn(move || {
        let mut shown = String::new();
        for answer in answers {
            shown.push_str(&shows(&mut master, "Enter Anthropic API key: "));
            rustix::io::write(&master, answer.as_bytes()).unwrap();
        }
        shown.push_str(&shows(&mut master, "\r\n"));
        shown
    });
    let output = Output::new(true, true);
    let asking = tty.key("Anthropic API key", &output);
    let key = tokio::time::timeout(Duration::from_secs(20), asking).await;
    (key.expect("an answer in time"), person.join().unwrap())
}

#[test]
fn a_key_is_what_was_meant() {
    #[track_caller]
    fn check(typed: &str, expected: Result<&str, &str>) {
        let key = parse(typed.as_bytes());
        assert_eq!(
            key.as_ref().map(Secret::expose).map_err(|&why| why),
            expected
        );
    }
    check("sk-1", Ok("sk-1"));
    check("  sk-1\t", Ok("sk-1"));
    check("\x1b[200~sk-1\x1b[201~", Ok("sk-1"));
    check("\x1b[200~ sk-1 \n\x1b[201~", Ok("sk-1"));
    check("", Err("secret cannot be empty"));
    check(" \t ", Err("secret cannot be empty"));
    check("\x1b[200~\n\x1b[201~", Err("secret cannot be empty"));
    let unusable = Err("a key has printable ASCII characters only, and no space");
    check("sk 1", unusable);
    check("sk\x1b[A", unusable);
    check("sk-ż", unusable);
    check("\x1b[200~sk-1\nrm -rf x\n\x1b[201~", unusable);
}

#[tokio::test]
async fn an_answer_is_not_shown_and_the_terminal_is_given_back() {
    #[track_caller]
    fn check(key: &Result<Secret>, expected: &Result<&str, (Option<i32>, &str)>) {
        match (key, expected) {
            (Ok(key), Ok(expected)) => assert_eq!(key.expose(), *expected),
            (Err(failure), Err((signal, said))) => {
                let reason = signal.map(crate::cli::exit::Reason::Interrupted);
                assert_eq!(
                    failure.reason,
                    reason.unwrap_or(crate::cli::exit::Reason::Failed)
                );
                assert!(failure.problems.concat().contains(said), "{failure:?}");
            }
            (key, expected) => panic!("{key:?} instead of {expected:?}"),
        }
    }
    let gave_up = "none that can be used was given in 3 attempts";
    for (answers, expected) in [
        (&["sk-1\r"] as &[&str], Ok("sk-1")),
        (&["sk-1\n"], Ok("sk-1")),
        (&["sk-x\x7f1\r"], Ok("sk-1")),
        (&["wrong\x15sk-1\r"], Ok("sk-1")),
        (&["\x1b[200~sk-1\n\x1b[201~"], Ok("sk-1")),
        (&["\x1b[200~sk-1\x1b[201~\r"], Ok("sk-1")),
        // What follows in a paste is dropped, not run by the shell.
        (&["sk-1\necho ran\n"], Ok("sk-1")),
        (&["\r", "   \r", "sk-1\r"], Ok("sk-1")),
        (&["\r", "\r", "\r"], Err((None, gave_up))),
        (&["sk-1\x03"], Err((Some(2), ""))),
        (&["\x04"], Err((None, "no key was given"))),
        (&["sk-1\x04"], Err((None, "no key was given"))),
    ] {
        let (tty, master) = terminal();
        let before = settings(&tty);
        let (key, shown) = answered(&tty, &master, answers).await;
        check(&key, &expected);
        assert_eq!(settings(&tty), before, "{answers:?}");
        assert!(
            !shown.contains("sk-") && !shown.contains("wrong"),
            "{shown}"
        );
        let left = rustix::io::read(tty.fd(), &mut [0_u8; 16]);
        assert_eq!(left, Err(Errno::AGAIN), "{answers:?} left something");
    }
}

#[tokio::test]
async fn a_question_that_is_dropped_gives_the_terminal_back() {
    let (tty, master) = terminal();
    let before = settings(&tty);
    {
        let mut person = master.try_clone().unwrap();
        let mut asking = std::pin::pin!(tty.line("Enter a key: "));
        let shown = tokio::task::spawn_blocking(move || shows(&mut person, "Enter a key: "));
        tokio::select! {
            _ = &mut asking => panic!("nobody answered"),
            shown = shown => drop(shown.unwrap()),
        }
        assert_ne!(settings(&tty), before);
    }
    assert_eq!(settings(&tty), before);
}

#[tokio::test]
async fn a_terminal_that_goes_away_is_an_end() {
    let (tty, mut master) = terminal();
    let leaves = std::thread::spawn(move || {
        shows(&mut master, "Enter a key: ");
    });
    let answer = tokio::time::timeout(Duration::from_secs(20), tty.line("Enter a key: "));
    let answer = answer.await.expect("an answer in time").unwrap();
    assert_eq!(answer.err(), Some(Instead::End));
    leaves.join().unwrap();
}
