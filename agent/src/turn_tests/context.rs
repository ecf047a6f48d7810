//! Conversations that are too long for their model.

use super::*;

/// A conversation of so many turns before the request.
fn talked(bench: &mut Bench, turns: usize) {
    let entry = |id: String, message| Entry {
        id,
        by: None,
        message,
    };
    let mut entries = vec![entry(
        "u".to_owned(),
        Message::User {
            text: "first".to_owned(),
        },
    )];
    for turn in 0..turns {
        let call = ToolCall {
            id: format!("old{turn}"),
            name: "ls".to_owned(),
            arguments: "{}".to_owned(),
        };
        let result = ToolResult {
            id: call.id.clone(),
            content: "x".repeat(1000),
            failed: false,
        };
        entries.push(entry(
            format!("a{turn}"),
            Message::Assistant {
                content: vec![Content::Call(call)],
            },
        ));
        entries.push(entry(
            format!("t{turn}"),
            Message::Tools {
                results: vec![result],
            },
        ));
    }
    entries.append(&mut bench.job.conversation.entries);
    bench.job.conversation.entries = entries;
}

#[tokio::test(start_paused = true)]
async fn a_conversation_that_overflows_is_summarised() {
    let overflow = || Err(failure(FailureKind::ContextOverflow));
    let mut bench = Bench::new(vec![
        overflow(),
        Ok(vec![text("they listed files"), used(5, 5), DONE]),
        Ok(vec![text("done"), DONE]),
    ]);
    talked(&mut bench, 10);
    bench.run().await.unwrap();
    let asked = bench.asked();
    assert_eq!(asked[1].system, compact::SUMMARY_PROMPT);
    assert!(asked[1].tools.is_empty());
    let Message::User { text: opening } = &asked[2].messages[0] else {
        panic!("{:?}", asked[2].messages[0]);
    };
    assert!(
        opening.contains("they listed files") && opening.contains("do it"),
        "{opening}"
    );
    assert!(asked[2].messages.len() < asked[0].messages.len() / 2);
    let story = bench.story();
    assert!(
        story
            .iter()
            .any(|line| line.contains("its older part was summarised")),
        "{story:?}"
    );
    // Nobody is shown the summary as an answer.
    assert!(
        !story.iter().any(|line| line.contains("they listed files")),
        "{story:?}"
    );
    // The next execution begins where this one is.
    let state = bench
        .record
        .events()
        .into_iter()
        .find_map(|what| match what {
            What::Message(message) if message.content.contains("summarised") => Some(message),
            _ => None,
        });
    let again = Conversation::recorded(&[state.unwrap()], &[]);
    assert_eq!(again.summary, bench.job.conversation.summary);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_made_shorter_fails() {
    let overflow = || Err(failure(FailureKind::ContextOverflow));
    let mut replies: Vec<Reply> = vec![overflow(), Ok(vec![text("summary"), DONE])];
    replies.extend((0..9).map(|_| overflow()));
    let mut bench = Bench::new(replies);
    talked(&mut bench, 10);
    let error = bench.fails().await;
    assert_eq!(error.code(), ErrorCode::TooLarge);
    assert!(
        error.message().contains("even after it was shortened"),
        "{error}"
    );
    let story = bench.story();
    assert!(
        story
            .iter()
            .any(|line| line.contains("old outputs of tools were dropped")),
        "{story:?}"
    );

    // There is nothing but the request.
    let mut bench = Bench::new(vec![overflow()]);
    assert_eq!(bench.fails().await.code(), ErrorCode::TooLarge);
}

#[tokio::test(start_paused = true)]
async fn a_context_that_is_nearly_full_is_made_room_in() {
    let turn = |id: &str, input| {
        Ok(vec![
            call(
                id,
                "write_todos",
                &format!(r#"{{"todos":[{{"content":"{id}","status":"pending"}}]}}"#),
            ),
            used(input, 0),
            CALLS,
        ])
    };
    let mut bench = Bench::with(Scripted {
        replies: Mutex::new(
            [
                turn("1", 100),
                turn("2", 100),
                turn("3", 900),
                Ok(vec![text("summary"), used(10, 10), DONE]),
                // Still nearly full: not again at once.
                turn("4", 900),
                Ok(vec![text("done"), DONE]),
            ]
            .into(),
        ),
        context: Some(1000),
        ..Scripted::default()
    });
    bench.run().await.unwrap();
    let asked = bench.asked();
    let summaries: Vec<_> = asked
        .iter()
        .map(|request| request.system == compact::SUMMARY_PROMPT)
        .collect();
    assert_eq!(summaries, [false, false, false, true, false, false]);
    assert_eq!(asked[0].max_output_tokens, 1024);
}
