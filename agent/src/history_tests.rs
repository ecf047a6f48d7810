//! What a model is shown of what was recorded.

use super::*;

fn user(text: &str) -> Message {
    Message::User {
        text: text.to_owned(),
    }
}

fn says(text: &str) -> Content {
    Content::Text {
        text: text.to_owned(),
    }
}

fn call(id: &str) -> Content {
    Content::Call(ToolCall {
        id: id.to_owned(),
        name: "ls".to_owned(),
        arguments: "{}".to_owned(),
    })
}

fn result(id: &str, content: &str) -> ToolResult {
    ToolResult {
        id: id.to_owned(),
        content: content.to_owned(),
        failed: false,
    }
}

fn tools(results: &[(&str, &str)]) -> Message {
    Message::Tools {
        results: results
            .iter()
            .map(|(id, content)| result(id, content))
            .collect(),
    }
}

fn answers(content: &[Content]) -> Message {
    Message::Assistant {
        content: content.to_vec(),
    }
}

fn conversation(messages: &[Message]) -> Conversation {
    let entry = |(index, message): (usize, &Message)| Entry {
        id: index.to_string(),
        by: Some(Provider::Anthropic),
        message: message.clone(),
    };
    Conversation {
        summary: None,
        entries: messages.iter().enumerate().map(entry).collect(),
    }
}

#[test]
fn whatever_was_recorded_can_be_shown() {
    #[track_caller]
    fn check(recorded: &[Message], expected: &[Message]) {
        let messages = conversation(recorded).messages(Provider::Anthropic);
        assert_eq!(messages, expected);
    }
    let interrupted = || ToolResult {
        failed: true,
        ..result("2", INTERRUPTED)
    };
    // Results of one turn come together, in the order of the calls.
    check(
        &[
            user("a"),
            answers(&[call("1"), call("2")]),
            tools(&[("2", "y")]),
            tools(&[("1", "x")]),
        ],
        &[
            user("a"),
            answers(&[call("1"), call("2")]),
            tools(&[("1", "x"), ("2", "y")]),
        ],
    );
    // Killed between a call and its result, and asked again.
    check(
        &[
            user("a"),
            answers(&[call("1"), call("2")]),
            tools(&[("1", "x")]),
            user("b"),
        ],
        &[
            user("a"),
            answers(&[call("1"), call("2")]),
            Message::Tools {
                results: vec![result("1", "x"), interrupted()],
            },
            user("b"),
        ],
    );
    // A result that belongs to no call, and one that comes twice.
    check(
        &[
            user("a"),
            tools(&[("9", "?")]),
            answers(&[call("1")]),
            tools(&[("1", "x"), ("1", "z")]),
            answers(&[says("b")]),
            tools(&[("1", "late")]),
        ],
        &[
            user("a"),
            answers(&[call("1")]),
            tools(&[("1", "x")]),
            answers(&[says("b")]),
        ],
    );
    // A person who had no answer, and an answer in two parts.
    check(&[user("a"), user("b")], &[user("a\n\nb")]);
    check(
        &[user("a"), answers(&[says("b")]), answers(&[says("c")])],
        &[user("a"), answers(&[says("b"), says("c")])],
    );
    // Empty ones are left out.
    check(
        &[user("a"), answers(&[says(" ")]), user("b")],
        &[user("a\n\nb")],
    );
    check(
        &[answers(&[says("b")])],
        &[user("(the conversation goes on)"), answers(&[says("b")])],
    );
}

#[test]
fn thoughts_are_shown_to_their_provider_alone() {
    let thought = Content::Thinking {
        text: "hm".to_owned(),
        signature: "s".to_owned(),
    };
    let conversation = conversation(&[
        user("a"),
        answers(&[thought.clone(), says("b")]),
        answers(std::slice::from_ref(&thought)),
    ]);
    assert_eq!(
        conversation.messages(Provider::Anthropic),
        [user("a"), answers(&[thought, says("b")])]
    );
    assert_eq!(
        conversation.messages(Provider::OpenAi),
        [user("a"), answers(&[says("b")])]
    );
}

fn message(id: &str, kind: MessageType, content: &str, state: Bytes) -> agent::Message {
    agent::Message {
        message_id: id.to_owned(),
        r#type: kind.into(),
        content: content.to_owned(),
        state,
        ..agent::Message::default()
    }
}

#[test]
fn what_is_recorded_comes_back() {
    let mask = Mask::default();
    let said = |message: &Message| said(Some(Provider::Anthropic), message, &mask);
    let answer = answers(&[says("b"), call("1")]);
    let recorded = [
        message("m1", MessageType::Human, "a", said(&user("a"))),
        message("m2", MessageType::Ai, "b", said(&answer)),
        message(
            "m3",
            MessageType::System,
            "rate limited, waiting 2 s",
            Bytes::new(),
        ),
        message("m4", MessageType::Tool, "x", said(&tools(&[("1", "x")]))),
    ];
    let conversation = Conversation::recorded(&recorded, &[]);
    assert_eq!(
        conversation.messages(Provider::Anthropic),
        [user("a"), answer.clone(), tools(&[("1", "x")])]
    );
    assert_eq!(conversation.call_ids(), HashSet::from(["1".to_owned()]));

    let compacted = compacted("so far", Some("m2"), &mask);
    let mut recorded = recorded.to_vec();
    recorded.push(message("m5", MessageType::System, "compacted", compacted));
    recorded.push(message("m6", MessageType::Human, "c", Bytes::new()));
    assert_eq!(
        Conversation::recorded(&recorded, &[]).messages(Provider::Anthropic),
        [user("so far"), answer, tools(&[("1", "x")]), user("c")]
    );
}

#[test]
fn messages_without_a_state_are_understood_by_their_text() {
    let recorded = [
        message("m1", MessageType::Human, "a", Bytes::new()),
        message(
            "m2",
            MessageType::Ai,
            "b",
            Bytes::from_static(b"of another runner"),
        ),
        agent::Message {
            tool_call_id: Some("1".to_owned()),
            ..message("m3", MessageType::Tool, "x", Bytes::new())
        },
        message("m4", MessageType::Ai, "part of an ans", Bytes::new()),
    ];
    let calls = [agent::ToolCall {
        tool_call_id: "1".to_owned(),
        message_id: "m2".to_owned(),
        name: "ls".to_owned(),
        args: "{}".to_owned(),
        ..agent::ToolCall::default()
    }];
    assert_eq!(
        Conversation::recorded(&recorded, &calls).messages(Provider::Ollama),
        [
            user("a"),
            answers(&[says("b"), call("1")]),
            tools(&[("1", "x")]),
            answers(&[says("part of an ans")]),
        ]
    );
}

#[test]
fn no_secret_is_recorded() {
    let mask = Mask::new(["hunter\"2"]);
    let secret = Content::Call(ToolCall {
        id: "1".to_owned(),
        name: "execute".to_owned(),
        arguments: r#"{"command":"echo hunter\"2"}"#.to_owned(),
    });
    let thought = Content::Thinking {
        text: "hunter\"2!".to_owned(),
        signature: "s".to_owned(),
    };
    for message in [
        user("hunter\"2"),
        answers(&[secret, thought, says("hunter\"2")]),
        tools(&[("1", "hunter\"2")]),
    ] {
        let state = said(None, &message, &mask);
        let state = String::from_utf8(state.to_vec()).unwrap();
        assert!(!state.contains("hunter"), "{state}");
    }
}
