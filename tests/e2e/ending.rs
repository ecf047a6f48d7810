//! `stigmer exec`: every way in which a command ends, and that nothing of it
//! is left. [`Home`] makes the last check of each test.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use stigmer_tests::{Home, eventually};

/// Starts processes in every way in which one can get away from its parent,
/// each of which says so in a file of its own, and waits until all have.
const ESCAPE: &str = r#"
    setsid sh -c 'echo >escaped1; exec sleep 1000' &
    (setsid sh -c 'echo >escaped2; exec sleep 1000' &)
    ( (exec env -i sh -c 'echo >escaped3; exec sleep 1000') & )
    sh -c 'setsid -f sh -c "echo >escaped4; exec sleep 1000"'
    nohup sh -c 'trap "" HUP INT; echo >escaped5; sleep 1000 & wait' >/dev/null 2>&1 &
    while ! test -e escaped1 -a -e escaped2 -a -e escaped3 -a -e escaped4 -a -e escaped5; do sleep 0.01; done
    echo escaped
"#;

#[test]
fn a_timeout_ends_the_whole_tree_and_keeps_the_output() {
    let home = Home::new();
    let script = format!("{ESCAPE}sleep 1000");
    let output = home
        .stigmer(["exec", "--timeout", "2s", "--", &script])
        .run();
    assert_eq!(
        (output.code(), output.text()),
        (124, "escaped\n"),
        "{output}"
    );
    assert_eq!(home.processes(), [], "right after the answer");
}

#[test]
fn what_ignores_sigterm_is_killed_after_a_grace() {
    let home = Home::new();
    let script = "trap '' TERM; echo deaf; while :; do sleep 1000; done";
    let start = Instant::now();
    let output = home
        .stigmer(["exec", "--timeout", "100ms", "--", script])
        .run();
    assert_eq!((output.code(), output.text()), (124, "deaf\n"));
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(home.processes(), [], "right after the answer");
}

#[test]
fn the_end_of_a_command_ends_what_it_left_running() {
    let home = Home::new();
    let output = home.stigmer(["exec", "--", ESCAPE]).run();
    assert_eq!((output.code(), output.text()), (0, "escaped\n"), "{output}");
    assert_eq!(home.processes(), [], "right after the answer");
}

#[test]
fn the_first_interrupt_is_the_command_s_to_handle() {
    let home = Home::new();
    let script = "trap 'echo handled; exit 7' INT; echo ready; while :; do sleep 0.05; done";
    let running = home.stigmer(["exec", "--", script]).start();
    running.prints("ready");
    running.signal(Signal::INT);
    let output = running.wait();
    assert_eq!((output.code(), output.text()), (7, "ready\nhandled\n"));
}

/// A terminal sends its Ctrl-C to everything of the job. It must not end the
/// processes that answer for the command, which would then outlive them all.
#[test]
fn a_terminals_interrupt_is_the_commands_to_handle_as_well() {
    let home = Home::new();
    let script = "trap 'echo handled; exit 7' INT; echo ready; while :; do sleep 0.05; done";
    let running = home
        .stigmer(["exec", "--", "sh", "-c", script])
        .as_job()
        .start();
    running.prints("ready");
    running.signal_job(Signal::INT);
    let output = running.wait();
    assert_eq!(
        (output.code(), output.text()),
        (7, "ready\nhandled\n"),
        "{output}"
    );
    assert_eq!(home.processes(), [], "right after the answer");
}

#[test]
fn an_interrupt_that_is_not_handled_is_130() {
    let home = Home::new();
    let running = home
        .stigmer(["exec", "--", "echo ready; sleep 1000"])
        .start();
    running.prints("ready");
    running.signal(Signal::INT);
    assert_eq!(running.wait().code(), 130);
}

#[test]
fn the_second_interrupt_kills_everything() {
    let home = Home::new();
    let script = format!("trap 'echo no' INT; {ESCAPE}while :; do sleep 0.05; done");
    let running = home.stigmer(["exec", "--", &script]).start();
    running.prints("escaped");
    running.signal(Signal::INT);
    running.prints("no");
    running.signal(Signal::INT);
    let output = running.wait();
    assert_eq!(output.code(), 137, "{output}");
    assert_eq!(home.processes(), [], "right after the answer");
}

#[test]
fn a_terminated_client_ends_the_command() {
    let home = Home::new();
    let script = "trap 'echo ending; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let running = home.stigmer(["exec", "--", script]).start();
    running.prints("ready");
    running.signal(Signal::TERM);
    let output = running.wait();
    assert_eq!((output.code(), output.text()), (3, "ready\nending\n"));
}

#[test]
fn a_killed_client_leaves_no_process_and_no_litter() {
    let home = Home::new();
    let script = format!("{ESCAPE}sleep 1000");
    let running = home.stigmer(["exec", "--", &script]).start();
    running.prints("escaped");
    assert!(home.processes().len() > 5);
    running.signal(Signal::KILL);
    let output = running.wait();
    assert_eq!(output.status().code(), None, "{output}");
    eventually("nothing survives", Duration::from_secs(10), || {
        home.processes().is_empty()
    });
    assert_eq!(home.data_entries(), [""; 0]);
}

#[test]
fn stdin_that_ends_does_not_take_the_signals_with_it() {
    let home = Home::new();
    let running = home
        .stigmer(["exec", "-i", "--", "cat; echo read; sleep 1000"])
        .stdin("x")
        .start();
    running.prints("read");
    running.signal(Signal::INT);
    let output = running.wait();
    assert_eq!(output.code(), 130, "{output}");
}
