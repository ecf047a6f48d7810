//! Answers that break off, are cut, are empty, or go in circles; and limits.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_broken_answer_begins_again() {
    let limited = Failure {
        retry_after: Some(Duration::from_secs(2)),
        ..failure(FailureKind::RateLimited)
    };
    let mut bench = Bench::new(vec![
        Err(limited),
        Ok(vec![
            text("half an ans"),
            used(7, 3),
            Err(failure(FailureKind::Cut)),
        ]),
        Ok(vec![text("whole"), used(8, 4), DONE]),
    ]);
    bench.run().await.unwrap();
    let story = bench.story();
    assert!(
        story[1].starts_with("system 3: rate limited, waiting 2"),
        "{story:?}"
    );
    let rest: Vec<_> = story[2..].iter().map(String::as_str).collect();
    assert_eq!(
        rest[..4],
        ["ai 2: ", "+half an ans", "usage 7+3", "ai 2: "],
        "{story:?}"
    );
    assert!(
        rest[4].starts_with("system 4: the answer broke off"),
        "{story:?}"
    );
    assert_eq!(
        rest[5..],
        ["+whole", "usage 15+7", "ai 2: whole"],
        "{story:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_model_that_cannot_be_asked_fails_the_execution() {
    for (kind, code, message) in [
        (
            FailureKind::Unauthenticated,
            ErrorCode::Unauthenticated,
            "the model's provider does not accept the key: no",
        ),
        (
            FailureKind::NoModel,
            ErrorCode::NotFound,
            "there is no such model: no",
        ),
        (
            FailureKind::Refused,
            ErrorCode::PermissionDenied,
            "the model's provider refused: no",
        ),
    ] {
        let mut bench = Bench::new(vec![Err(failure(kind))]);
        let error = bench.fails().await;
        assert_eq!((error.code(), error.message()), (code, message));
    }
    let mut bench = Bench::new(vec![Ok(vec![text("I c"), Ok(Event::Stop(Stop::Refused))])]);
    assert!(
        bench
            .fails()
            .await
            .message()
            .contains("would not let it answer")
    );
    let mut bench = Bench::new(vec![Err(failure(FailureKind::Unavailable)); 9]);
    assert_eq!(bench.fails().await.code(), ErrorCode::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn an_answer_cut_at_its_length_goes_on() {
    let mut bench = Bench::new(vec![
        Ok(vec![text("one, "), LENGTH]),
        Ok(vec![text("two"), DONE]),
    ]);
    bench.run().await.unwrap();
    let asked = bench.asked();
    match &asked[1].messages[..] {
        [
            Message::User { .. },
            Message::Assistant { .. },
            Message::User { text },
        ] => {
            assert!(text.contains("Go on where it ended"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn empty_answers_are_bounded() {
    let empty = || Ok(vec![text(" "), DONE]);
    let mut bench = Bench::new(vec![empty(), empty(), Ok(vec![text("here"), DONE])]);
    bench.run().await.unwrap();
    let mut bench = Bench::new(vec![empty(), empty(), empty()]);
    assert_eq!(
        bench.fails().await.message(),
        "the model answered nothing 3 times in a row"
    );
}

#[tokio::test(start_paused = true)]
async fn limits_end_the_execution() {
    let turn = |number: usize| {
        Ok(vec![
            call(
                &number.to_string(),
                "write_todos",
                &format!(r#"{{"todos":[{{"content":"{number}","status":"pending"}}]}}"#),
            ),
            used(10, 10),
            CALLS,
        ])
    };
    let bench = |limits: ExecutionLimits| {
        let mut bench = Bench::with(Scripted {
            replies: Mutex::new((0..9).map(turn).collect()),
            price: Some(1000),
            ..Scripted::default()
        });
        bench.job.limits = Limits::first_of([Some(&limits), None, None]);
        bench
    };
    let mut turns = bench(ExecutionLimits {
        max_turns: Some(2),
        ..ExecutionLimits::default()
    });
    let error = turns.fails().await;
    assert_eq!(error.code(), ErrorCode::Exhausted);
    assert!(error.message().contains("limit of turns"), "{error}");
    assert_eq!(turns.asked().len(), 2);
    let mut tokens = bench(ExecutionLimits {
        max_tokens: Some(50),
        ..ExecutionLimits::default()
    });
    assert!(tokens.fails().await.message().contains("60 tokens"));
    let mut cost = bench(ExecutionLimits {
        max_cost_microusd: Some(4000),
        ..ExecutionLimits::default()
    });
    assert!(cost.fails().await.message().contains("it cost $0.0040"));
    assert_eq!(cost.asked().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_model_in_circles_is_told_and_then_stopped() {
    let turn = |id: &str| Ok(vec![call(id, "write_todos", TODO), CALLS]);
    let mut bench = Bench::new(vec![turn("1"), turn("2"), turn("3"), turn("4"), turn("5")]);
    let error = bench.fails().await;
    assert!(error.message().contains("goes round in circles"), "{error}");
    assert!(
        error.message().contains("(write_todos: 1 items)"),
        "{error}"
    );
    let asked = bench.asked();
    assert_eq!(asked.len(), 4);
    assert!(!last_result(&asked[2]).content.contains("several times"));
    assert!(last_result(&asked[3]).content.contains("several times"));
}
