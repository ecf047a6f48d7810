//! How a command starts and ends.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Case;
use super::check::{Verdict, ensure, equal, ok, refused, refused_with, same_bytes, show, skip};
use super::run::Context;
use super::subject::{Subject, path, permissions};
use crate::{Command, ErrorCode, ExitStatus};

pub(super) const CASES: &[Case] = cases! { command, Core;
    /// Every exit code from 0 to 255 arrives as it is.
    exit_codes;
    /// A program that a signal ended is reported with that signal, not with 128 and more.
    ends_by_signal;
    /// A missing program is an exit of 127 with a line of why on stderr.
    missing_program_is_127;
    /// A file without permission to execute, and a directory, are an exit of 126 with a line of why on stderr.
    not_executable_is_126;
    /// A script with permission to execute runs by its path below the working directory.
    runs_a_script_by_path;
    /// A program is found by its name alone.
    runs_a_program_by_name;
    /// No word of a command is parsed, split or dropped.
    arguments_are_verbatim;
    /// A single argument of 100 KiB arrives whole.
    argument_of_100_kib;
    /// A thousand arguments arrive in order.
    a_thousand_arguments;
    /// A command starts in the directory it names, relative or absolute, also through a link.
    cwd_is_where_it_starts;
    /// A working directory that is missing, or no directory, is refused.
    cwd_must_be_a_directory [NotFound, NotADirectory];
    /// A working directory outside the sandbox is refused, however it is spelled.
    cwd_may_not_lead_out [InvalidPath];
    /// A hundred commands at once each get their own output and status.
    a_hundred_at_once;
    /// Each command has a session and a process group of its own.
    own_session_and_group;
    /// A command inherits no descriptor but its three streams.
    no_descriptor_leaks;
};

async fn exit_codes(cx: &Context) -> Verdict {
    let sandbox = &cx.sandbox().await?;
    stream::iter(0..=255u8)
        .map(Ok)
        .try_for_each_concurrent(8, |code| async move {
            let output = sandbox.run(sandbox.shell(&format!("exit {code}"))?).await?;
            output.exited(&format!("exit {code}"), ExitStatus::Code(code))
        })
        .await
}

async fn ends_by_signal(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    for signal in [9, 15, 10] {
        let script = format!("kill -{signal} $$");
        let output = sandbox.run(sandbox.shell(&script)?).await?;
        output.exited(&script, ExitStatus::Signal(signal))?;
    }
    Ok(())
}

/// Runs what cannot run: the status, nothing on stdout, and a line on stderr
/// that names it.
async fn cannot_run(sandbox: &Subject, program: &str, status: ExitStatus) -> Verdict {
    let command = ok("a command", Command::new([program, "argument"]))?;
    let output = sandbox.run(command).await?;
    output.exited(&format!("run {program}"), status)?;
    same_bytes("stdout", &output.stdout, b"")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure(
        format!("stderr of {program}"),
        stderr.ends_with('\n') && stderr.contains(program),
        "a line that names the program",
        &stderr,
    )
}

async fn missing_program_is_127(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let absolute = sandbox.absolute("missing");
    for program in [
        "no-such-program-anywhere",
        "./missing",
        "a/b/missing",
        &absolute,
    ] {
        cannot_run(&sandbox, program, ExitStatus::NO_SUCH_PROGRAM).await?;
    }
    Ok(())
}

async fn not_executable_is_126(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let written = sandbox.try_write("plain", permissions(0o644), "text").await;
    ok("write \"plain\"", written)?;
    sandbox.make_dir("directory").await?;
    let absolute = sandbox.absolute("plain");
    for program in ["./plain", "./directory", &absolute] {
        cannot_run(&sandbox, program, ExitStatus::NOT_EXECUTABLE).await?;
    }
    Ok(())
}

async fn runs_a_script_by_path(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let Some(shell) = sandbox.sandbox.info().shell.first().cloned() else {
        return skip("the sandbox has no shell");
    };
    let script = format!("#!{shell}\necho \"ran with $1\"\n");
    let written = sandbox
        .try_write("bin/tool", permissions(0o755), script)
        .await;
    ok("write \"bin/tool\"", written)?;
    let by_path = ok("a command", Command::new(["bin/tool", "one"]))?;
    let in_directory = ok("a command", Command::new(["./tool", "two"]))?.cwd(path("bin")?);
    for (command, expected) in [(by_path, "ran with one"), (in_directory, "ran with two")] {
        let output = sandbox.run(command).await?;
        output.exited("the script", ExitStatus::Code(0))?;
        equal("its output", output.text(), expected.to_owned())?;
    }
    Ok(())
}

async fn runs_a_program_by_name(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let command = ok("a command", Command::new(["printf", "%s|%s", "a b", ""]))?;
    let output = sandbox.run(command).await?;
    output.exited("printf", ExitStatus::Code(0))?;
    equal("its output", show(&output.stdout), show(b"a b|"))
}

/// What `sh` got as arguments, each ended by a NUL.
async fn echoed(sandbox: &Subject, args: &[&str]) -> Verdict<Vec<u8>> {
    let output = sandbox.sh_with(r#"printf '%s\0' "$@""#, args).await?;
    Ok(output.stdout)
}

fn ended_by_nul(args: &[&str]) -> Vec<u8> {
    args.iter().flat_map(|arg| arg.bytes().chain([0])).collect()
}

async fn arguments_are_verbatim(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let args = [
        "two words",
        "",
        " ",
        "'single' \"double\"",
        "new\nline\n",
        "\ttab\r",
        "$(echo no) `echo no` $HOME ${HOME}",
        "a;b|c&d>e<f",
        "* ? [a-z] {a,b} ~",
        "back\\slash\\",
        "-n",
        "--",
        "--flag=value",
        "zażółć 🦀 \u{202e}",
        "\u{1b}[31m",
        "%s %d %%",
        "#comment",
        "!history",
        "",
    ];
    same_bytes(
        "the arguments, each ended by NUL",
        &echoed(&sandbox, &args).await?,
        &ended_by_nul(&args),
    )
}

async fn argument_of_100_kib(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let long: String = ('a'..='z').cycle().take(100 * 1024).collect();
    same_bytes(
        "the argument, ended by NUL",
        &echoed(&sandbox, &[&long]).await?,
        &ended_by_nul(&[&long]),
    )
}

async fn a_thousand_arguments(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let args: Vec<String> = (0..1000)
        .map(|number| format!("argument {number}"))
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    same_bytes(
        "the arguments, each ended by NUL",
        &echoed(&sandbox, &args).await?,
        &ended_by_nul(&args),
    )
}

async fn cwd_is_where_it_starts(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("a b/ż/here", "yes").await?;
    sandbox.link("a b/ż", "link").await?;
    let absolute = sandbox.absolute("a b/ż");
    for cwd in ["a b/ż", "./a b//ż/", "a b/../a b/ż", "link", &absolute] {
        let command = sandbox.shell("cat here")?.cwd(path(cwd)?);
        let output = sandbox.run(command).await?;
        output.exited(&format!("cat here, in {cwd:?}"), ExitStatus::Code(0))?;
        equal("the file that is there", output.text(), "yes".to_owned())?;
    }
    Ok(())
}

async fn cwd_must_be_a_directory(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("file", "").await?;
    for (cwd, code) in [
        ("missing", ErrorCode::NotFound),
        ("missing/below", ErrorCode::NotFound),
        ("file", ErrorCode::NotADirectory),
        ("file/below", ErrorCode::NotADirectory),
    ] {
        let command = sandbox.shell(":")?.cwd(path(cwd)?);
        refused(
            format!("run in {cwd:?}"),
            sandbox.try_run(command).await,
            code,
        )?;
    }
    Ok(())
}

async fn cwd_may_not_lead_out(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let outside = cx.outside(&sandbox).await?;
    sandbox.make_dir("a").await?;
    sandbox.link(&outside.directory, "out").await?;
    sandbox.link("loop", "loop").await?;
    for cwd in ["..", "a/../..", "/etc", "/", "out", "loop"] {
        let command = sandbox.shell(":")?.cwd(path(cwd)?);
        refused_with(
            format!("run in {cwd:?}"),
            sandbox.try_run(command).await,
            &[ErrorCode::InvalidPath],
        )?;
    }
    Ok(())
}

async fn a_hundred_at_once(cx: &Context) -> Verdict {
    let sandbox = &cx.sandbox().await?;
    // Each waits for its input, so that all of them run before one ends.
    let commands = (0..100).map(|number: u8| async move {
        let script = "read -r word; echo \"$1 $word\"; echo \"$1\" >&2; exit \"$1\"";
        let command = sandbox.script(script, [number.to_string()])?.stdin(true);
        Ok((number, sandbox.start(command).await?))
    });
    let running: Vec<_> = futures_util::future::try_join_all(commands).await?;
    for (number, command) in &running {
        command.send_stdin(format!("for-{number}\n"));
    }
    let ends = running.into_iter().map(|(number, command)| async move {
        let output = command.end_with(ExitStatus::Code(number)).await?;
        equal("stdout", output.text(), format!("{number} for-{number}"))?;
        equal(
            "stderr",
            show(&output.stderr),
            show(format!("{number}\n").as_bytes()),
        )
    });
    futures_util::future::try_join_all(ends).await?;
    Ok(())
}

async fn own_session_and_group(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    // After the name, which may hold spaces: state, parent, group, session.
    let script = r#"read -r line < /proc/$$/stat || exit 9; echo "${line##*) }""#;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let output = sandbox.run(sandbox.shell(script)?).await?;
        if !output.status.is_success() {
            return skip("the sandbox has no /proc");
        }
        seen.push(output.words());
    }
    for (index, what) in [(2, "process group"), (3, "session")] {
        let of = |command: usize| seen[command].get(index).cloned();
        ensure(
            format!("the {what} of two commands"),
            of(0).is_some() && of(0) != of(1),
            "a different one for each",
            (of(0), of(1)),
        )?;
    }
    Ok(())
}

async fn no_descriptor_leaks(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    // The shell's own descriptor for the directory is closed again by the time
    // the names are looked at.
    let script = r#"
        for fd in /proc/$$/fd/*; do
            [ -h "$fd" ] && echo "${fd##*/}"
        done
        [ -d /proc/$$/fd ]"#;
    let output = sandbox.run(sandbox.shell(script)?).await?;
    if !output.status.is_success() {
        return skip("the sandbox has no /proc");
    }
    equal(
        "the open descriptors",
        output.words(),
        vec!["0".to_owned(), "1".to_owned(), "2".to_owned()],
    )
}
