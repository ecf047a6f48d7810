//! Signals that the host sends to a running command.

use std::time::Duration;

use super::Case;
use super::check::{Verdict, ensure, equal, eventually, skip};
use super::run::Context;
use super::running::Running;
use super::subject::Subject;
use crate::{ExitStatus, Input, Signal};

pub(super) const CASES: &[Case] = cases! { signals, Core;
    /// `Kill` ends a command that ignores everything else, and is reported.
    kill_ends_anything;
    /// Each signal that ends a program by default does so and is reported as itself.
    each_ends_by_default;
    /// `Terminate` reaches every process of the command.
    terminate_reaches_every_process;
    /// `Interrupt` reaches the whole process group, and what handles it decides.
    interrupt_reaches_the_group;
    /// A command that ignores `Terminate` goes on, until `Kill`.
    terminate_may_be_ignored;
    /// `Stop` halts a command, and `Continue` lets it go on.
    stop_and_continue;
    /// Signals of one command do not touch another.
    signals_reach_one_command;
    /// What was printed before a signal is not lost.
    output_before_a_signal_is_kept;
};

/// A script that tells `$1.got` when it is asked to terminate.
pub(super) const LISTENER: &str = r#"
trap ': > "$1.got"; exit 0' TERM
echo "$1"
while :; do sleep 0.1; done
"#;

/// Sends `Kill` and waits for the end.
async fn kill(command: Running) -> Verdict {
    command.send(Input::Signal(Signal::Kill));
    command.end_with(ExitStatus::Signal(9)).await?;
    Ok(())
}

/// Each of these listeners was told, before long.
pub(super) async fn all_were_told(sandbox: &Subject, names: &[&str]) -> Verdict {
    for name in names {
        let file = format!("{name}.got");
        eventually(
            format!("{name:?} gets SIGTERM"),
            Duration::from_secs(10),
            || async { Ok(!sandbox.is_missing(&file).await?) },
        )
        .await?;
    }
    Ok(())
}

async fn kill_ends_anything(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let script = "trap '' HUP INT QUIT TERM USR1 USR2; echo ready; while :; do sleep 1; done";
    let mut command = sandbox.start_sh(script).await?;
    command.until_stdout("ready\n").await?;
    kill(command).await
}

async fn each_ends_by_default(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let mut ignored = Vec::new();
    for signal in [
        Signal::Terminate,
        Signal::Interrupt,
        Signal::Hangup,
        Signal::Quit,
        Signal::User1,
        Signal::User2,
    ] {
        let mut command = sandbox.start_sh("echo ready; exec sleep 60").await?;
        command.until_stdout("ready\n").await?;
        cx.note(format!("send {signal:?}"));
        command.send(Input::Signal(signal));
        let expected = ExitStatus::Signal(signal.number());
        // One that a backend cannot deliver is ignored.
        match tokio::time::timeout(Duration::from_secs(3), command.end_with(expected)).await {
            Ok(ended) => drop(ended?),
            Err(_) => ignored.push(signal),
        }
    }
    if ignored.is_empty() {
        return Ok(());
    }
    skip(format!("the backend does not deliver {ignored:?}"))
}

async fn terminate_reaches_every_process(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.needs_processes().await?;
    sandbox.write("listener", LISTENER).await?;
    let script = "
        trap 'told=1' TERM
        sh listener one &
        sh -c 'trap : TERM; sh listener two & wait; wait' &
        echo main
        while [ -z \"$told\" ]; do sleep 0.1; done
        wait
        exit 3";
    let mut command = sandbox.start_sh(script).await?;
    command.lines(3).await?;
    cx.note("send Terminate");
    command.send(Input::Signal(Signal::Terminate));
    command.end_with(ExitStatus::Code(3)).await?;
    all_were_told(&sandbox, &["one", "two"]).await
}

async fn interrupt_reaches_the_group(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.needs_processes().await?;
    // The child is in the foreground, because a shell lets background children
    // ignore this signal.
    let script = r#"
        trap 'echo main' INT
        sh -c 'trap "echo child; exit 0" INT; echo ready; while :; do sleep 0.1; done'
        exit 7"#;
    let mut command = sandbox.start_sh(script).await?;
    command.until_stdout("ready\n").await?;
    cx.note("send Interrupt");
    command.send(Input::Signal(Signal::Interrupt));
    let output = command.end_with(ExitStatus::Code(7)).await?;
    equal("who got it", output.text(), "ready\nchild\nmain".to_owned())
}

async fn terminate_may_be_ignored(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let script = "trap '' TERM; echo ready; while read -r line; do echo \"$line\"; done; sleep 60";
    let command = sandbox.shell(script)?.stdin(true);
    let mut command = sandbox.start(command).await?;
    command.until_stdout("ready\n").await?;
    command.send(Input::Signal(Signal::Terminate));
    command.send_stdin("still here\n");
    command.until_stdout("still here\n").await?;
    kill(command).await
}

async fn stop_and_continue(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let command = sandbox.shell("echo $$; exec cat")?.stdin(true);
    let mut command = sandbox.start(command).await?;
    let pid = command.first_line().await?;
    let file = format!("/proc/{pid}/status");
    let state = || async {
        let script = r#"while read -r key value rest; do
            [ "$key" = State: ] && echo "$value"
        done < "$1"; :"#;
        Ok::<_, super::check::Stop>(sandbox.sh_with(script, &[&file]).await?.text())
    };
    if state().await?.is_empty() {
        return skip("the sandbox's /proc does not show the process");
    }
    cx.note("send Stop");
    command.send(Input::Signal(Signal::Stop));
    eventually("the command is stopped", Duration::from_secs(5), || async {
        Ok(state().await? == "T")
    })
    .await?;
    command.send_stdin("sent meanwhile\n");
    command.send(Input::Signal(Signal::Continue));
    command.until_stdout("sent meanwhile\n").await?;
    command.end_input();
    command.succeed().await?;
    Ok(())
}

async fn signals_reach_one_command(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let mut others = Vec::new();
    for _ in 0..2 {
        let command = sandbox.shell("echo ready; cat")?.stdin(true);
        let mut command = sandbox.start(command).await?;
        command.until_stdout("ready\n").await?;
        others.push(command);
    }
    for signal in [Signal::Interrupt, Signal::Terminate, Signal::Kill] {
        let mut command = sandbox.start_sh("echo ready; exec sleep 60").await?;
        command.until_stdout("ready\n").await?;
        command.send(Input::Signal(signal));
        command.send(Input::Signal(Signal::Kill));
        let output = command.finish().await?;
        ensure(
            "the status of the command that was killed",
            matches!(output.status, ExitStatus::Signal(_)),
            "a signal",
            &output.status,
        )?;
    }
    for mut other in others {
        other.send_stdin("untouched\n");
        other.end_input();
        let output = other.succeed().await?;
        equal(
            "the other's output",
            output.text(),
            "ready\nuntouched".to_owned(),
        )?;
    }
    Ok(())
}

async fn output_before_a_signal_is_kept(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let script = "echo printed >&2; echo before; exec sleep 60";
    let mut command = sandbox.start_sh(script).await?;
    command.until_stdout("before\n").await?;
    command.send(Input::Signal(Signal::Kill));
    let output = command.end_with(ExitStatus::Signal(9)).await?;
    equal("stdout", output.text(), "before".to_owned())?;
    equal("stderr", output.stderr, b"printed\n".to_vec())
}
