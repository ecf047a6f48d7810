//! What ends with a command, what with its sandbox, and what lives on.
//!
//! Whether a process lives is asked by a later command in the same sandbox;
//! once that is destroyed, from another one, if sandboxes see each other's
//! processes at all.

use std::time::{Duration, Instant};

use super::Case;
use super::check::{Verdict, ensure, equal, eventually, prompt, skip};
use super::run::Context;
use super::signals::{LISTENER, all_were_told};
use super::subject::Subject;
use crate::{ExitStatus, Feature, Input, Isolation, Signal};

pub(super) const CORE: &[Case] = cases! { kill, Core;
    /// Dropping the events kills the command with its children, those that ignore SIGTERM included.
    drop_kills_the_tree;
    /// Dropping the events of one command leaves the others alone.
    drop_kills_one_command;
    /// `Kill` reaches the children too.
    kill_reaches_children;
    /// A command ends within 250 ms of its program, though a background child holds its output open.
    background_child_does_not_delay alone;
    /// A background child lives on after its command has ended and its events were dropped.
    background_child_lives_on;
    /// A background child that goes on writing to its lost output is not killed by that.
    background_writer_lives_on;
    /// Destroying the sandbox ends a command that runs, and its stream.
    destroy_ends_a_running_command;
    /// Destroying the sandbox kills background children.
    destroy_kills_background_children;
};

pub(super) const GUARANTEE: &[Case] = cases! { kill, KillGuarantee;
    /// Dropping the events kills what moved to another session or was orphaned.
    drop_kills_what_moved;
    /// `Kill` reaches what moved to another session or was orphaned.
    kill_reaches_what_moved;
    /// `Terminate` reaches what moved to another session or was orphaned.
    terminate_reaches_what_moved;
    /// What moved away lives on after its command has ended, until the sandbox is destroyed.
    moved_child_lives_on;
    /// Destroying the sandbox kills what moved to another session or was orphaned.
    destroy_kills_what_moved;
};

/// Prints its process id and stays.
const HOLD: &str = "echo $$; exec sleep 600\n";
/// The same, and ignores what it can.
const STUBBORN: &str = "trap '' HUP INT TERM; echo $$; while :; do sleep 1; done\n";

/// Starts children that stay where they are: three lines.
const CHILDREN: &str = "sh hold & sh stubborn & sh -c 'sh hold & wait' &";
/// Starts some that move to another session, that are orphaned, and both:
/// three lines.
const MOVED: &str = "setsid sh stubborn & (sh hold &) ; setsid sh -c '(sh stubborn &)' &";

async fn with_processes(cx: &Context) -> Verdict<Subject> {
    let sandbox = cx.sandbox().await?;
    sandbox.needs_processes().await?;
    sandbox.write("hold", HOLD).await?;
    sandbox.write("stubborn", STUBBORN).await?;
    sandbox.write("listener", LISTENER).await?;
    Ok(sandbox)
}

async fn with_guarantee(cx: &Context) -> Verdict<Subject> {
    cx.needs(Feature::KillGuarantee)?;
    let sandbox = with_processes(cx).await?;
    sandbox.needs_programs(&["setsid"]).await?;
    Ok(sandbox)
}

/// A script that starts these, prints its own process id, and then this.
fn starting(children: &str, then: &str) -> String {
    format!("{children} echo $$; {then}")
}

async fn drop_kills(cx: &Context, sandbox: &Subject, children: &str) -> Verdict {
    let mut command = sandbox
        .start_sh(&starting(children, "wait; sleep 600"))
        .await?;
    let pids = command.lines(4).await?;
    sandbox.all_live("before", &pids).await?;
    cx.note("drop the events");
    drop(command);
    sandbox
        .all_die("after the events were dropped", &pids)
        .await
}

async fn drop_kills_the_tree(cx: &Context) -> Verdict {
    let sandbox = with_processes(cx).await?;
    drop_kills(cx, &sandbox, CHILDREN).await
}

async fn drop_kills_what_moved(cx: &Context) -> Verdict {
    let sandbox = with_guarantee(cx).await?;
    drop_kills(cx, &sandbox, MOVED).await
}

async fn drop_kills_one_command(cx: &Context) -> Verdict {
    let sandbox = with_processes(cx).await?;
    let other = sandbox.shell("echo $$; cat")?.stdin(true);
    let mut other = sandbox.start(other).await?;
    other.first_line().await?;
    let mut command = sandbox.start_sh("echo $$; exec sleep 600").await?;
    let pids = command.lines(1).await?;
    drop(command);
    sandbox
        .all_die("after the events were dropped", &pids)
        .await?;
    other.send_stdin("untouched\n");
    other.until_stdout("untouched\n").await?;
    other.end_input();
    other.succeed().await?;
    Ok(())
}

async fn kill_reaches(cx: &Context, sandbox: &Subject, children: &str) -> Verdict {
    let mut command = sandbox
        .start_sh(&starting(children, "wait; sleep 600"))
        .await?;
    let pids = command.lines(4).await?;
    cx.note("send Kill");
    command.send(Input::Signal(Signal::Kill));
    command.end_with(ExitStatus::Signal(9)).await?;
    sandbox.all_die("after Kill", &pids).await
}

async fn kill_reaches_children(cx: &Context) -> Verdict {
    let sandbox = with_processes(cx).await?;
    kill_reaches(cx, &sandbox, CHILDREN).await
}

async fn kill_reaches_what_moved(cx: &Context) -> Verdict {
    let sandbox = with_guarantee(cx).await?;
    kill_reaches(cx, &sandbox, MOVED).await
}

async fn terminate_reaches_what_moved(cx: &Context) -> Verdict {
    let sandbox = with_guarantee(cx).await?;
    let script = "
        trap 'told=1' TERM
        setsid sh listener moved &
        (sh listener orphan &)
        setsid sh -c '(sh listener both &)' &
        echo main
        while [ -z \"$told\" ]; do sleep 0.1; done
        exit 3";
    let mut command = sandbox.start_sh(script).await?;
    command.lines(4).await?;
    cx.note("send Terminate");
    command.send(Input::Signal(Signal::Terminate));
    command.end_with(ExitStatus::Code(3)).await?;
    all_were_told(&sandbox, &["moved", "orphan", "both"]).await
}

async fn background_child_does_not_delay(cx: &Context) -> Verdict {
    const LIMIT: Duration = Duration::from_millis(1250);
    let sandbox = with_processes(cx).await?;
    // The best of three, because what else the machine does is no fault of the
    // backend's; one that waits for the pipe waits ten minutes.
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let mut command = sandbox.start_sh("sleep 600 & echo hi").await?;
        command.until_stdout("hi\n").await?;
        let started = Instant::now();
        let ended = prompt("the exit", Duration::from_secs(20), command.succeed());
        ended.await??;
        best = best.min(started.elapsed());
    }
    ensure(
        "the time from the last output to the exit, at best of three",
        best < LIMIT,
        "250 ms, and a second for the machine",
        best,
    )
}

async fn background_child_lives_on(cx: &Context) -> Verdict {
    let sandbox = with_processes(cx).await?;
    let output = sandbox.sh(&starting("sleep 600 & echo $!;", ":")).await?;
    let pids: Vec<String> = output.words().into_iter().take(1).collect();
    // A command later, so that whatever follows the exit has had its chance.
    sandbox.sh("sleep 0.5").await?;
    sandbox.all_live("after its command", &pids).await?;
    sandbox.sh_with("kill \"$1\"", &[&pids[0]]).await?;
    sandbox.all_die("after a later command's kill", &pids).await
}

async fn background_writer_lives_on(cx: &Context) -> Verdict {
    let sandbox = with_processes(cx).await?;
    let script = "
        while :; do echo tick; echo tick >&2; echo tick >> ticks; sleep 0.02; done &
        echo $!";
    let output = sandbox.sh(script).await?;
    let pid = output.words().into_iter().find(|word| word != "tick");
    let size = || async {
        match sandbox.is_missing("ticks").await? {
            true => Ok(0),
            false => Ok(sandbox.stat("ticks").await?.size),
        }
    };
    let then: u64 = size().await?;
    eventually(
        "the file that the background child writes grows by 50 lines",
        Duration::from_secs(20),
        || async { Ok(size().await? >= then + 250) },
    )
    .await?;
    sandbox
        .all_live("while it writes", &Vec::from_iter(pid))
        .await
}

async fn moved_child_lives_on(cx: &Context) -> Verdict {
    let sandbox = with_guarantee(cx).await?;
    let mut command = sandbox.start_sh(&starting(MOVED, "read -r line")).await?;
    let pids = command.lines(4).await?;
    command.finish().await?;
    sandbox.sh("sleep 0.5").await?;
    let main = sandbox.living(&pids).await?;
    equal("of the children, those that live", main.len(), 3)
}

async fn destroy_ends_a_running_command(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let mut command = sandbox.start_sh("echo ready; exec sleep 600").await?;
    command.until_stdout("ready\n").await?;
    sandbox.destroy().await?;
    prompt(
        "the end of the events, by an exit or an error",
        Duration::from_secs(10),
        command.end_somehow(),
    )
    .await?
}

async fn destroy_kills(cx: &Context, children: &str) -> Verdict {
    if cx.backend().describe().isolation != Isolation::None {
        return skip("processes of one sandbox cannot be seen from another");
    }
    let sandbox = with_processes(cx).await?;
    let other = cx.sandbox().await?;
    // One command has ended, and one has not.
    let mut ended = sandbox
        .start_sh(&starting(children, "read -r line"))
        .await?;
    let mut pids = ended.lines(4).await?;
    ended.finish().await?;
    let mut running = sandbox
        .start_sh(&starting(children, "wait; sleep 600"))
        .await?;
    pids.extend(running.lines(4).await?);
    let pids = other.living(&pids).await?;
    equal("processes that another sandbox sees", pids.len(), 7)?;
    sandbox.destroy().await?;
    other
        .all_die("after the sandbox was destroyed", &pids)
        .await
}

async fn destroy_kills_background_children(cx: &Context) -> Verdict {
    destroy_kills(cx, CHILDREN).await
}

async fn destroy_kills_what_moved(cx: &Context) -> Verdict {
    cx.needs(Feature::KillGuarantee)?;
    destroy_kills(cx, MOVED).await
}
