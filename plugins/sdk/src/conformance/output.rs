//! What comes out of a command: all of it, as it is, as it happens, and no
//! faster than it is taken.

use std::time::Duration;

use super::Case;
use super::check::{Verdict, ensure, equal, fail, same_bytes};
use super::run::Context;
use super::stdin::noise;
use crate::{Event, ExitStatus};

pub(super) const CASES: &[Case] = cases! { output, Streaming;
    /// A command that prints nothing is one event: its exit.
    silence_is_one_exit;
    /// Output arrives while the command runs, not when it has ended.
    output_arrives_as_it_happens;
    /// Stdout and stderr arrive apart, and each in order.
    streams_are_apart_and_in_order;
    /// With stderr merged, the order of what was printed is exact.
    merged_output_keeps_its_order;
    /// Bytes that are no text arrive as they are, on both streams.
    binary_output_is_untouched;
    /// What a program prints last, before it exits at once, is not lost.
    last_words_are_not_lost;
    /// Four mebibytes on each stream at the same time arrive whole.
    both_streams_at_once;
    /// A hundred mebibytes reach a slow reader whole, and the command waits for it in the meantime.
    a_slow_reader_gets_everything alone;
    /// A command whose output nobody takes holds up no other, and is killed when its events are dropped.
    output_without_reader;
};

async fn silence_is_one_exit(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let mut command = sandbox.start_sh(":").await?;
    command.end_input();
    let first = command.next().await?;
    equal(
        "the first event",
        first,
        Some(Event::Exit(ExitStatus::Code(0))),
    )
}

async fn output_arrives_as_it_happens(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let command = sandbox.shell("printf no-newline; read -r line; echo \" $line\"")?;
    let mut command = sandbox.start(command.stdin(true)).await?;
    // It ends only if this arrives before its end.
    command.until_stdout("no-newline").await?;
    command.send_stdin("then\n");
    equal(
        "its output",
        command.succeed().await?.text(),
        "no-newline then".to_owned(),
    )
}

const BOTH: &str = r#"
    i=0
    while [ $i -lt 500 ]; do
        echo "out $i"
        echo "err $i" >&2
        i=$((i + 1))
    done"#;

fn numbered(word: &str) -> Vec<u8> {
    (0..500)
        .flat_map(|number| format!("{word} {number}\n").into_bytes())
        .collect()
}

async fn streams_are_apart_and_in_order(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let output = sandbox.sh(BOTH).await?;
    same_bytes("stdout", &output.stdout, &numbered("out"))?;
    same_bytes("stderr", &output.stderr, &numbered("err"))
}

async fn merged_output_keeps_its_order(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let output = sandbox.run(sandbox.shell(BOTH)?.merge_stderr(true)).await?;
    let expected: Vec<u8> = (0..500)
        .flat_map(|number| format!("out {number}\nerr {number}\n").into_bytes())
        .collect();
    same_bytes("stdout", &output.stdout, &expected)?;
    same_bytes("stderr", &output.stderr, b"")
}

async fn binary_output_is_untouched(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let mut data = noise(200_000);
    data.extend(b"\0\0\r\n\n\r\xff\xfe\xc3\x28\xed\xa0\x80");
    sandbox.write("data", data.clone()).await?;
    let output = sandbox.sh("cat data; cat data >&2").await?;
    same_bytes("stdout", &output.stdout, &data)?;
    same_bytes("stderr", &output.stderr, &data)
}

async fn last_words_are_not_lost(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.write("data", noise(60_000)).await?;
    for _ in 0..20 {
        let output = sandbox.sh("exec cat data").await?;
        same_bytes("stdout", &output.stdout, &noise(60_000))?;
        let output = sandbox.sh("exec cat data >&2").await?;
        same_bytes("stderr", &output.stderr, &noise(60_000))?;
    }
    Ok(())
}

async fn both_streams_at_once(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let data = noise(4 << 20);
    sandbox.write("data", data.clone()).await?;
    let output = sandbox.sh("cat data >&2 & cat data; wait").await?;
    same_bytes("stdout", &output.stdout, &data)?;
    same_bytes("stderr", &output.stderr, &data)
}

async fn a_slow_reader_gets_everything(cx: &Context) -> Verdict {
    const BLOCKS: usize = 100;
    let sandbox = cx.sandbox().await?;
    let block = noise(1 << 20);
    sandbox.write("block", block.clone()).await?;
    let script = format!(
        "i=0
        while [ $i -lt {BLOCKS} ]; do
            cat block
            i=$((i + 1))
            echo $i > written
        done"
    );
    let mut command = sandbox.start_sh(&script).await?;
    command.keep = false;
    let mut position = 0;
    let mut paused = false;
    loop {
        let event = command.next().await?;
        let Some(Event::Stdout(piece)) = event else {
            if event != Some(Event::Exit(ExitStatus::Code(0))) {
                return fail("an event", "stdout or exit code 0", format!("{event:?}"));
            }
            break;
        };
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let expected = &block[position % block.len()..];
            let length = rest.len().min(expected.len());
            let what = format!("stdout from byte {position}");
            same_bytes(what, &rest[..length], &expected[..length])?;
            position += length;
            rest = &rest[length..];
        }
        if position > block.len() && !paused {
            paused = true;
            // Time for a command that nothing holds up to be done, and for
            // whoever stores its output to have all of it.
            tokio::time::sleep(Duration::from_secs(2)).await;
            let written = sandbox.sh("cat written").await?.text();
            let blocks: usize = written.trim().parse().unwrap_or(0);
            ensure(
                "MiB that the command could print while one was taken",
                blocks <= 64,
                "at most 64, after which it waits",
                &written,
            )?;
        }
    }
    equal("the bytes of stdout", position, BLOCKS * block.len())
}

async fn output_without_reader(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let mut command = sandbox.start_sh("echo $$; exec yes").await?;
    let pids = vec![command.first_line().await?];
    for _ in 0..10 {
        equal(
            "another command",
            sandbox.sh("echo hi").await?.text(),
            "hi".to_owned(),
        )?;
    }
    sandbox.needs_processes().await?;
    sandbox.all_live("while nobody reads", &pids).await?;
    drop(command);
    sandbox
        .all_die("after the events were dropped", &pids)
        .await
}
