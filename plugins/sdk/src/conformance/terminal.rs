//! Commands under a terminal.

use super::Case;
use super::check::{Verdict, ensure, equal, ok, refused};
use super::run::Context;
use super::running::Running;
use super::subject::Subject;
use crate::{Command, ErrorCode, ExitStatus, Feature, Input, Signal, Terminal};

pub(super) const CASES: &[Case] = cases! { terminal, Terminal;
    /// A terminal that is not declared is refused.
    undeclared_is_refused [Unsupported];
    /// All three streams are a terminal, and it is the one that controls the command.
    streams_are_a_terminal;
    /// The terminal has the size it was given.
    has_its_size;
    /// A new size reaches the terminal, and the command is told.
    resize_reaches_the_command;
    /// Stdout and stderr come as one stream, in order.
    output_is_merged;
    /// What is typed reaches the command, and Ctrl-D ends it.
    typing_and_ctrl_d;
    /// Ctrl-C interrupts what runs in the foreground.
    ctrl_c_interrupts;
    /// The signal `Interrupt` reaches what runs in the foreground.
    interrupt_reaches_the_foreground;
    /// The exit code of a command under a terminal is its own.
    exit_codes;
    /// Dropping the events kills what runs under the terminal.
    drop_kills;
};

fn size(columns: u32, rows: u32) -> Verdict<Terminal> {
    ok("a size", Terminal::new(columns, rows))
}

async fn with_terminal(cx: &Context) -> Verdict<Subject> {
    cx.needs(Feature::Terminal)?;
    cx.sandbox().await
}

fn under_terminal(sandbox: &Subject, script: &str) -> Verdict<Command> {
    Ok(sandbox.shell(script)?.terminal(size(80, 24)?))
}

/// Starts it and waits until it says that it is ready.
async fn ready(sandbox: &Subject, script: &str) -> Verdict<Running> {
    let mut command = sandbox.start(under_terminal(sandbox, script)?).await?;
    command.until_stdout("ready\r\n").await?;
    Ok(command)
}

async fn undeclared_is_refused(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let command = under_terminal(&sandbox, ":")?;
    if cx.has(Feature::Terminal) {
        let command = sandbox.start(command).await?;
        return command.succeed().await.map(drop);
    }
    refused(
        "run under a terminal",
        sandbox.try_run(command).await,
        ErrorCode::Unsupported,
    )
}

async fn streams_are_a_terminal(cx: &Context) -> Verdict {
    let sandbox = with_terminal(cx).await?;
    let script = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo controlled > /dev/tty";
    let output = sandbox.start(under_terminal(&sandbox, script)?).await?;
    let output = output.succeed().await?;
    equal("its output", output.stdout, b"controlled\r\n".to_vec())?;
    // And without one, none of them is.
    let output = sandbox
        .sh("[ -t 0 ] || [ -t 1 ] || [ -t 2 ] || echo none")
        .await?;
    equal("without a terminal", output.text(), "none".to_owned())
}

async fn has_its_size(cx: &Context) -> Verdict {
    let sandbox = with_terminal(cx).await?;
    sandbox.needs_programs(&["stty"]).await?;
    for (columns, rows) in [(80, 24), (200, 5), (1, 1)] {
        let command = sandbox.shell("stty size")?.terminal(size(columns, rows)?);
        let output = sandbox.start(command).await?.succeed().await?;
        equal(
            "rows and columns",
            output.words(),
            vec![rows.to_string(), columns.to_string()],
        )?;
    }
    Ok(())
}

async fn resize_reaches_the_command(cx: &Context) -> Verdict {
    let sandbox = with_terminal(cx).await?;
    sandbox.needs_programs(&["stty"]).await?;
    let script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done";
    let mut command = ready(&sandbox, script).await?;
    for (columns, rows) in [(100, 40), (132, 43)] {
        command.send(Input::Resize(size(columns, rows)?));
        command
            .until_stdout(&format!("{rows} {columns}\r\n"))
            .await?;
    }
    Ok(())
}

async fn output_is_merged(cx: &Context) -> Verdict {
    let sandbox = with_terminal(cx).await?;
    let script = "for i in 1 2 3; do echo out$i; echo err$i >&2; done";
    let output = sandbox.start(under_terminal(&sandbox, script)?).await?;
    let output = output.succeed().await?;
    equal(
        "stdout",
        output.words(),
        ["out1", "err1", "out2", "err2", "out3", "err3"]
            .map(str::to_owned)
            .to_vec(),
    )?;
    equal("stderr", output.stderr, Vec::new())
}

async fn typing_and_ctrl_d(cx: &Context) -> Verdict {
    let sandbox = with_terminal(cx).await?;
    let script = "echo ready; read -r line; echo \"got $line\"; cat; echo bye";
    let mut command = ready(&sandbox, script).await?;
    command.send_stdin("typed\n");
    command.until_stdout("got typed\r\n").await?;
    command.send_stdin("more\n\u{4}");
    command.until_stdout("bye\r\n").await?;
    command.succeed().await.map(drop)
}

/// Its child in the foreground handles the interrupt, and it the next one.
const INTERRUPTED: &str = r#"
    trap 'echo main' INT
    sh -c 'trap "echo child; exit 0" INT; echo ready; while :; do sleep 0.05; done'
    exit 7"#;

async fn interrupted(command: Running) -> Verdict {
    let output = command.end_with(ExitStatus::Code(7)).await?;
    let words = output.words();
    // The terminal may show the typed key before a word.
    let said = |word: &str| words.iter().any(|seen| seen.ends_with(word));
    ensure(
        "who was interrupted",
        said("child") && said("main"),
        "the child and its parent",
        &words,
    )
}

async fn ctrl_c_interrupts(cx: &Context) -> Verdict {
    let sandbox = with_terminal(cx).await?;
    let command = ready(&sandbox, INTERRUPTED).await?;
    command.send_stdin("\u{3}");
    interrupted(command).await?;
    let command = ready(&sandbox, "echo ready; exec sleep 60").await?;
    command.send_stdin("\u{3}");
    command.end_with(ExitStatus::Signal(2)).await.map(drop)
}

async fn interrupt_reaches_the_foreground(cx: &Context) -> Verdict {
    let sandbox = with_terminal(cx).await?;
    let command = ready(&sandbox, INTERRUPTED).await?;
    command.send(Input::Signal(Signal::Interrupt));
    interrupted(command).await
}

async fn exit_codes(cx: &Context) -> Verdict {
    let sandbox = with_terminal(cx).await?;
    for code in [0, 1, 42, 255] {
        let command = under_terminal(&sandbox, &format!("echo x; exit {code}"))?;
        let output = sandbox.start(command).await?;
        let output = output.end_with(ExitStatus::Code(code)).await?;
        equal("its output", output.stdout, b"x\r\n".to_vec())?;
    }
    let missing = ok("a command", Command::new(["no-such-program-anywhere"]))?;
    let command = sandbox.start(missing.terminal(size(80, 24)?)).await?;
    command
        .end_with(ExitStatus::NO_SUCH_PROGRAM)
        .await
        .map(drop)
}

async fn drop_kills(cx: &Context) -> Verdict {
    let sandbox = with_terminal(cx).await?;
    sandbox.needs_processes().await?;
    sandbox
        .write(
            "stay",
            "trap '' HUP INT TERM; echo $$; while :; do sleep 1; done\n",
        )
        .await?;
    let script = "sh stay & echo $$; trap '' HUP; wait; sleep 600";
    let mut command = sandbox.start(under_terminal(&sandbox, script)?).await?;
    let pids: Vec<String> = command.lines(2).await?;
    let pids: Vec<String> = pids.iter().map(|pid| pid.trim().to_owned()).collect();
    sandbox.all_live("before", &pids).await?;
    drop(command);
    sandbox
        .all_die("after the events were dropped", &pids)
        .await
}
