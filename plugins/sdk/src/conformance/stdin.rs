//! What goes into a command, and its end.

use futures_util::{StreamExt as _, stream};

use super::Case;
use super::check::{Verdict, equal, ok, same_bytes};
use super::run::Context;
use super::running::Running;
use super::subject::Subject;
use crate::{Bytes, ExitStatus, Input, Signal, Terminal};

pub(super) const CASES: &[Case] = cases! { stdin, Streaming;
    /// A mebibyte on stdin comes back byte for byte, while it is still being sent.
    a_mebibyte_comes_back;
    /// Every byte value passes both ways as it is.
    every_byte_value_passes;
    /// Two thousand pieces of one byte arrive in order.
    small_pieces_keep_their_order;
    /// An empty piece is not the end.
    an_empty_piece_is_not_the_end;
    /// The end of the inputs closes stdin, and the command goes on.
    end_of_input_closes_stdin;
    /// Closing stdin is not the end of the inputs: a signal may still follow.
    signals_follow_closed_stdin;
    /// Input and output take turns, so that a conversation is possible.
    a_conversation;
    /// Without stdin a command is at its end at once, though inputs stay open and bytes are sent.
    no_stdin_is_the_end_at_once;
    /// Inputs that are at their end from the start are an empty stdin.
    input_that_ends_at_once;
    /// A command may exit although its inputs never end.
    exit_while_input_is_open;
    /// A command may exit while an endless input is being sent, and keeps its status.
    exit_while_input_is_sent;
    /// A command that does not read its stdin is not held up by it, nor by closing it.
    stdin_that_is_not_read;
    /// A new size without a terminal is ignored.
    resize_without_terminal_is_ignored;
};

async fn reading(sandbox: &Subject, script: &str) -> Verdict<Running> {
    sandbox.start(sandbox.shell(script)?.stdin(true)).await
}

async fn comes_back(sandbox: &Subject, data: &[u8], piece: usize) -> Verdict {
    let mut command = reading(sandbox, "exec cat").await?;
    for piece in data.chunks(piece) {
        command.send_stdin(piece);
    }
    command.end_input();
    let output = command.succeed().await?;
    same_bytes("what cat gives back", &output.stdout, data)
}

/// Bytes without a short period, so that a piece that is lost or swapped shows.
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(length)
    .collect()
}

async fn a_mebibyte_comes_back(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    comes_back(&sandbox, &noise(1 << 20), 32 * 1024).await
}

async fn every_byte_value_passes(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let data: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    comes_back(&sandbox, &data, data.len()).await
}

async fn small_pieces_keep_their_order(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    comes_back(&sandbox, &noise(2000), 1).await
}

async fn an_empty_piece_is_not_the_end(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let mut command = reading(&sandbox, "exec cat").await?;
    for piece in ["", "before ", "", "after", ""] {
        command.send_stdin(piece);
    }
    command.end_input();
    equal(
        "what cat gives back",
        command.succeed().await?.text(),
        "before after".to_owned(),
    )
}

async fn end_of_input_closes_stdin(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let mut command = reading(&sandbox, "cat; echo then; sleep 0.1; echo end").await?;
    command.send_stdin("first\n");
    command.until_stdout("first\n").await?;
    command.end_input();
    equal(
        "its output",
        command.succeed().await?.text(),
        "first\nthen\nend".to_owned(),
    )
}

async fn signals_follow_closed_stdin(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let mut command = reading(&sandbox, "cat; echo end; exec sleep 60").await?;
    command.send_stdin("first\n");
    command.send(Input::CloseStdin);
    command.send_stdin("too late\n");
    command.until_stdout("end\n").await?;
    command.send(Input::Signal(Signal::Kill));
    let output = command.end_with(ExitStatus::Signal(9)).await?;
    equal("its output", output.text(), "first\nend".to_owned())
}

async fn a_conversation(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let script = r#"while read -r line; do echo "got $line"; done; echo bye"#;
    let mut command = reading(&sandbox, script).await?;
    for turn in 0..20 {
        command.send_stdin(format!("{turn}\n"));
        command.until_stdout(&format!("got {turn}\n")).await?;
    }
    command.end_input();
    command.until_stdout("bye\n").await?;
    command.succeed().await?;
    Ok(())
}

async fn no_stdin_is_the_end_at_once(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let command = sandbox.start_sh("cat; echo end").await?;
    command.send_stdin("ignored");
    equal(
        "its output",
        command.succeed().await?.text(),
        "end".to_owned(),
    )
}

async fn input_that_ends_at_once(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let mut command = reading(&sandbox, "cat; echo end").await?;
    command.end_input();
    equal(
        "its output",
        command.succeed().await?.text(),
        "end".to_owned(),
    )
}

async fn exit_while_input_is_open(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let command = reading(&sandbox, "read -r line; echo \"$line\"; exit 0").await?;
    command.send_stdin("one\ntwo\n");
    equal(
        "its output",
        command.succeed().await?.text(),
        "one".to_owned(),
    )
}

async fn exit_while_input_is_sent(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let piece = Bytes::from(vec![b'x'; 16 * 1024]);
    let endless = stream::repeat(Input::Stdin(piece)).boxed();
    let command = sandbox.shell("head -c 100000 | wc -c")?.stdin(true);
    let command = sandbox.start_with(command, endless).await?;
    let output = command.succeed().await?;
    equal("the bytes it read", output.text().trim(), "100000")
}

async fn stdin_that_is_not_read(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    for script in ["sleep 0.2; echo done", "exec <&-; sleep 0.2; echo done"] {
        let mut command = reading(&sandbox, script).await?;
        for piece in noise(1 << 20).chunks(64 * 1024) {
            command.send_stdin(piece);
        }
        command.end_input();
        equal(script, command.succeed().await?.text(), "done".to_owned())?;
    }
    Ok(())
}

async fn resize_without_terminal_is_ignored(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let mut command = reading(&sandbox, "exec cat").await?;
    command.send(Input::Resize(ok("a size", Terminal::new(100, 40))?));
    command.send_stdin("after");
    command.end_input();
    equal(
        "what cat gives back",
        command.succeed().await?.text(),
        "after".to_owned(),
    )
}
