use super::*;
use stigmer_sdk::wire::agent::{
    Approval, ApprovalState, FileChange, Message, MessageType, TextDelta, TodoStatus, Todos,
    ToolCall, ToolCallStatus, ToolOutput, Usage, file_change::Kind,
};
use stigmer_sdk::wire::sandbox::{Error, ErrorCode};

const PLAIN: Look = Look {
    colours: false,
    terminal: true,
    quiet: false,
    humans: false,
    asks: false,
};

fn message(id: &str, kind: MessageType, content: &str) -> What {
    What::Message(Message {
        message_id: id.to_owned(),
        r#type: kind.into(),
        content: content.to_owned(),
        ..Message::default()
    })
}

fn text(id: &str, text: &str) -> What {
    What::Text(TextDelta {
        message_id: id.to_owned(),
        text: text.to_owned(),
    })
}

fn call(id: &str, name: &str, args: &str, status: ToolCallStatus) -> ToolCall {
    ToolCall {
        tool_call_id: id.to_owned(),
        name: name.to_owned(),
        args: args.to_owned(),
        status: status.into(),
        ..ToolCall::default()
    }
}

fn running(id: &str, command: &str) -> What {
    let args = format!(r#"{{"command":"{command}"}}"#);
    What::ToolCall(call(id, "execute", &args, ToolCallStatus::Running))
}

fn exited(id: &str, command: &str, code: i32) -> What {
    let args = format!(r#"{{"command":"{command}"}}"#);
    What::ToolCall(ToolCall {
        exit_code: Some(code),
        started_ms: Some(1_000),
        completed_ms: Some(1_340),
        ..call(id, "execute", &args, ToolCallStatus::Completed)
    })
}

fn output(id: &str, data: &[u8]) -> What {
    What::Output(ToolOutput {
        tool_call_id: id.to_owned(),
        data: data.to_vec().into(),
        stderr: false,
    })
}

fn phase(phase: Phase) -> What {
    What::Phase(PhaseChange {
        phase: phase.into(),
        ..PhaseChange::default()
    })
}

fn rendered(look: Look, events: Vec<What>) -> Vec<Piece> {
    let execution = Execution {
        execution_id: "exe-1".to_owned(),
        session_id: "ses-1".to_owned(),
        ..Execution::default()
    };
    let mut plain = Plain::new(look, &execution);
    for (index, what) in events.into_iter().enumerate() {
        let seq = index as u64 + 1;
        plain.event(&Event {
            seq,
            at_ms: seq * 500,
            what: Some(what),
        });
    }
    plain.take()
}

/// Both streams on one screen, as a terminal shows them.
fn screen(look: Look, events: Vec<What>) -> String {
    rendered(look, events)
        .into_iter()
        .map(|piece| match piece {
            Piece::Out(text) | Piece::Err(text) => text,
        })
        .collect()
}

fn stdout(look: Look, events: Vec<What>) -> String {
    rendered(look, events)
        .into_iter()
        .filter_map(|piece| match piece {
            Piece::Out(text) => Some(text),
            Piece::Err(_) => None,
        })
        .collect()
}

/// A whole execution: two messages, a file, a command.
fn story() -> Vec<What> {
    let change = FileChange {
        path: "hello.py".to_owned(),
        kind: Kind::Created.into(),
        added: 1,
        removed: 0,
        diff: "@@ -0,0 +1 @@\n+print(2)\n".to_owned(),
    };
    let write = ToolCall {
        changes: vec![change],
        started_ms: Some(0),
        completed_ms: Some(8),
        ..call(
            "c1",
            "write_file",
            r#"{"path":"hello.py"}"#,
            ToolCallStatus::Completed,
        )
    };
    let todos = Todos {
        items: vec![
            Todo {
                content: "write it".to_owned(),
                status: TodoStatus::Completed.into(),
            },
            Todo {
                content: "run it".to_owned(),
                status: TodoStatus::InProgress.into(),
            },
            Todo {
                content: "rest".to_owned(),
                status: TodoStatus::Pending.into(),
            },
        ],
    };
    vec![
        phase(Phase::Pending),
        phase(Phase::InProgress),
        message("h", MessageType::Human, "do it"),
        message("m1", MessageType::Ai, ""),
        text("m1", "\n\nI'll "),
        text("m1", "write it.\n"),
        message("m1", MessageType::Ai, "\n\nI'll write it.\n"),
        What::ToolCall(call(
            "c1",
            "write_file",
            r#"{"path":"hello.py"}"#,
            ToolCallStatus::Running,
        )),
        What::ToolCall(write),
        message("t", MessageType::Tool, "ok"),
        What::Todos(todos.clone()),
        What::Todos(todos),
        running("c2", "python3 hello.py"),
        output("c2", b"2"),
        output("c2", b" 3\n5\n"),
        exited("c2", "python3 hello.py", 0),
        What::Usage(Usage {
            input_tokens: 12_345,
            output_tokens: 678,
            cached_tokens: 8_000,
            model_calls: 3,
            cost_microusd: Some(12_300),
        }),
        text("m2", "Done:\n\n- all"),
        phase(Phase::Completed),
    ]
}

#[test]
fn an_execution_reads_from_top_to_bottom() {
    assert_eq!(
        screen(PLAIN, story()),
        "\
⏳ Execution pending...
▶️  Execution started

I'll write it.

🔧 write_file  hello.py
   ✓ 8ms
   created hello.py +1
   @@ -0,0 +1 @@
   +print(2)
📋 Todos
   ☑ write it
   ▸ run it
   ☐ rest
🔧 execute  python3 hello.py
   2 3
   5
   ✓ exit 0 · 340ms

Done:

- all

✅ Execution completed
   Duration:    8.5s
   Tokens:      12,345 in (8,000 cached), 678 out
   Cost:        $0.0123
   Model calls: 3
   Tool calls:  2
   Files:       hello.py (new) +1
   Session:     ses-1
   Go on with:  stigmer run --session ses-1 '…'
"
    );
}

#[test]
fn stdout_holds_the_words_alone() {
    assert_eq!(stdout(PLAIN, story()), "I'll write it.\n\nDone:\n\n- all\n");
}

#[test]
fn quiet_means_the_last_message_alone() {
    let quiet = Look {
        quiet: true,
        ..PLAIN
    };
    assert_eq!(screen(quiet, story()), "Done:\n\n- all\n");
    let failed = vec![text("m", "half"), phase(Phase::Failed)];
    assert_eq!(screen(quiet, failed), "");
}

#[test]
fn a_piece_of_text_is_shown_as_it_comes() {
    let events = vec![text("m", "a"), text("m", "b\n"), text("m", "c")];
    let out = |text: &str| Piece::Out(text.to_owned());
    assert_eq!(rendered(PLAIN, events), [out("a"), out("b"), out("\nc")]);
}

#[test]
fn parallel_calls_are_told_apart() {
    let events = vec![
        running("a", "make a"),
        running("b", "make b"),
        output("a", b"one\ntw"),
        output("b", b"first"),
        output("a", b"o\n"),
        exited("b", "make b", 2),
        exited("a", "make a", 0),
    ];
    assert_eq!(
        screen(PLAIN, events),
        "\
🔧 execute  make a
🔧 execute  make b
🔧 execute  make a
   one
   tw
🔧 execute  make b
   first
🔧 execute  make a
   o
🔧 execute  make b
   ✗ exit 2 · 340ms
🔧 execute  make a
   ✓ exit 0 · 340ms
"
    );
}

#[test]
fn a_tool_that_fails_says_why() {
    let failed = ToolCall {
        error: Some("no such file\nreally".to_owned()),
        ..call("c", "read_file", r#"{"path":"x"}"#, ToolCallStatus::Failed)
    };
    assert_eq!(
        screen(PLAIN, vec![What::ToolCall(failed)]),
        "🔧 read_file  x\n   ✗ no such file … (1 more line)\n"
    );
}

#[test]
fn a_failure_says_why() {
    let failed = What::Phase(PhaseChange {
        phase: Phase::Failed.into(),
        error: Some(Error {
            code: ErrorCode::Unavailable.into(),
            message: "the model did not answer\nfor long".to_owned(),
            path: None,
            count: None,
        }),
        ..PhaseChange::default()
    });
    let events = vec![
        message("s", MessageType::System, "trying again"),
        What::CancelRequested("enough".to_owned()),
        failed,
    ];
    assert_eq!(
        screen(PLAIN, events),
        "\
ℹ️  trying again
⚠️  Cancelling: enough

❌ Execution failed
   the model did not answer
   for long
   Session:     ses-1
"
    );
}

#[test]
fn a_terminal_is_not_given_orders() {
    let events = vec![
        text("m", "a\x1b[2Jb\nc"),
        running("c", "echo x"),
        output("c", b"\x1b]0;title\x07\r\n"),
    ];
    assert_eq!(
        screen(PLAIN, events.clone()),
        "a\\u{1b}[2Jb\nc\n\n🔧 execute  echo x\n   \\u{1b}]0;title\\u{7}\n"
    );
    let piped = Look {
        terminal: false,
        ..PLAIN
    };
    assert_eq!(stdout(piped, events), "a\x1b[2Jb\nc\n");
}

#[test]
fn a_message_that_becomes_another_is_said_again() {
    let events = vec![
        text("m", "wrong"),
        message("m", MessageType::Ai, "right"),
        message("m", MessageType::Ai, "right and more"),
    ];
    assert_eq!(
        screen(PLAIN, events),
        "wrong\n\n⚠️  The message above was withdrawn\n\nright and more"
    );
}

#[test]
fn colours_are_for_those_who_can_see_them() {
    let colours = Look {
        colours: true,
        ..PLAIN
    };
    let events = vec![
        running("c", "ls"),
        output("c", b"x\n"),
        exited("c", "ls", 1),
    ];
    assert_eq!(
        screen(colours, events),
        "🔧 \x1b[1mexecute\x1b[0m  ls\n   \x1b[2mx\x1b[0m\n   \x1b[31m✗ exit 1 · 340ms\x1b[0m\n"
    );
}

fn asked() -> Approval {
    Approval {
        tool_call_id: "c".to_owned(),
        state: ApprovalState::Pending.into(),
        why: "mode ask".to_owned(),
        summary: "rm -rf build\n   Allow? y".to_owned(),
        ..Approval::default()
    }
}

#[test]
fn an_approval_says_how_to_answer_from_elsewhere() {
    let denied = Approval {
        state: ApprovalState::Denied.into(),
        reason: "use make clean".to_owned(),
        ..asked()
    };
    let pending = call(
        "c",
        "execute",
        r#"{"command":"rm -rf build"}"#,
        ToolCallStatus::Pending,
    );
    let events = vec![
        What::ToolCall(pending),
        What::Approval(asked()),
        What::Approval(denied),
    ];
    assert_eq!(
        screen(PLAIN, events),
        "\
✋ execute waits for approval (mode ask)
   rm -rf build
      Allow? y
   to allow it:  stigmer execution approve exe-1 c
   to refuse it: stigmer execution deny exe-1 c
🔧 execute  rm -rf build
   ✗ denied: use make clean
"
    );
}

#[test]
fn a_question_is_asked_even_if_quiet_and_what_follows_begins_below_it() {
    let look = Look {
        asks: true,
        quiet: true,
        ..PLAIN
    };
    let mut plain = Plain::new(look, &Execution::default());
    plain.ask(&asked());
    plain.note("hidden");
    let text: String = plain
        .take()
        .into_iter()
        .map(|piece| match piece {
            Piece::Out(text) | Piece::Err(text) => text,
        })
        .collect();
    assert_eq!(
        text,
        "\
✋ a tool waits for approval (mode ask)
   rm -rf build
      Allow? y
   Allow? [y]es / [n]o, or say why not: 
"
    );
}
