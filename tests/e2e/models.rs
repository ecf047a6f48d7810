//! The clients of model providers, against fakes that speak the real wire.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::json;
use stigmer_agent::model::retry::{Piece, Policy, ask_with_retries};
use stigmer_agent::model::{
    Content, Endpoint, Event, Failure, FailureKind, Key, Message, Model, Provider, Providers,
    Request, Stop, Tool, ToolCall, ToolResult, Usage, connect,
};
use stigmer_tests::eventually;
use stigmer_tests::fakes::{self, FakeProvider, Reply};

/// Each provider with a fake of its own.
fn each() -> [(Provider, FakeProvider); 3] {
    [
        (Provider::Anthropic, FakeProvider::anthropic()),
        (Provider::OpenAi, FakeProvider::openai()),
        (Provider::Ollama, FakeProvider::ollama()),
    ]
}

fn providers(base_url: &str, key: Option<&str>) -> Providers {
    let endpoint = Endpoint {
        base_url: base_url.to_owned(),
        key: key.map(Key::new),
    };
    Providers {
        default: Provider::Ollama,
        model: None,
        anthropic: endpoint.clone(),
        openai: endpoint.clone(),
        ollama: Endpoint {
            key: None,
            ..endpoint
        },
    }
}

fn client(provider: Provider, fake: &FakeProvider) -> Arc<dyn Model> {
    let providers = providers(&fake.base_url(), Some(&fake.key()));
    connect(&providers, provider).expect("plain HTTP and a key")
}

fn user(text: &str) -> Message {
    Message::User {
        text: text.to_owned(),
    }
}

fn request(messages: Vec<Message>) -> Request {
    Request {
        model: "m".to_owned(),
        system: "You are careful.".to_owned(),
        messages,
        tools: vec![Tool {
            name: "execute",
            description: "Runs a command.".to_owned(),
            parameters: json!({"type": "object", "properties": {"command": {"type": "string"}}}),
        }],
        max_output_tokens: 1000,
    }
}

/// All that comes of a call.
async fn ask(model: &dyn Model, request: &Request) -> (Vec<Event>, Option<Failure>) {
    let mut answer = match model.ask(request).await {
        Ok(answer) => answer,
        Err(failure) => return (Vec::new(), Some(failure)),
    };
    let mut events = Vec::new();
    while let Some(event) = answer.next().await {
        match event {
            Ok(event) => events.push(event),
            Err(failure) => return (events, Some(failure)),
        }
    }
    (events, None)
}

fn text_of(events: &[Event]) -> String {
    let texts = events.iter().filter_map(|event| match event {
        Event::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

fn calls_of(events: &[Event]) -> Vec<ToolCall> {
    let calls = events.iter().filter_map(|event| match event {
        Event::Call(call) => Some(call.clone()),
        _ => None,
    });
    calls.collect()
}

#[tokio::test]
async fn text_comes_as_it_is_said() {
    for (provider, fake) in each() {
        let (reply, gate) = Reply::text("Zażółć gęślą jaźń 🦀").held_after(5);
        fake.reply(reply.slowly(1).usage(fakes::Usage {
            input: 60,
            output: 7,
            cache_read: 20,
            cache_write: 30,
        }));
        let model = client(provider, &fake);
        assert_eq!(model.provider(), provider);
        let mut answer = model.ask(&request(vec![user("hi")])).await.expect("begins");
        // The first words come while the rest is held back.
        let mut events = Vec::new();
        while text_of(&events).is_empty() {
            events.push(answer.next().await.expect("more").expect("fine"));
        }
        gate.open();
        while let Some(event) = answer.next().await {
            events.push(event.expect("fine"));
        }
        assert_eq!(text_of(&events), "Zażółć gęślą jaźń 🦀");
        assert_eq!(events.last(), Some(&Event::Stop(Stop::Done)));
        let used = events.iter().rev().find_map(|event| match event {
            Event::Usage(usage) => Some(*usage),
            _ => None,
        });
        let expected = Usage {
            input: 60,
            output: 7,
            cache_read: 20,
            cache_write: 30,
        };
        assert_eq!(used, Some(expected), "{provider}");
        let asked = &fake.requests()[0];
        assert_eq!((asked.said().as_str(), asked.status), ("hi", 200));
        assert_eq!(asked.system(), "You are careful.");
        assert_eq!(asked.tools(), ["execute"]);
    }
}

#[tokio::test]
async fn tools_are_called_together_and_their_results_go_back() {
    for (provider, fake) in each() {
        let calls = ["ls", "pwd"].map(|command| ("execute", json!({"command": command})));
        let reply = Reply::calls(calls)
            .with_call_as_written("execute", "{\"comm")
            .with_text("I look.")
            .with_thinking("Hm, hm, hm.", "c2lnbmVk");
        fake.reply(reply);
        fake.reply(Reply::text("done"));
        let model = client(provider, &fake);
        let mut conversation = vec![user("go")];
        let (events, failure) = ask(&*model, &request(conversation.clone())).await;
        assert!(failure.is_none(), "{provider}: {failure:?}");
        assert_eq!(text_of(&events), "I look.");
        assert_eq!(events.last(), Some(&Event::Stop(Stop::Calls)));
        let thoughts = events.iter().filter_map(|event| match event {
            Event::Thinking(text) | Event::Signature(text) => Some(text.as_str()),
            _ => None,
        });
        let thoughts = thoughts.collect::<String>();
        let calls = calls_of(&events);
        let arguments: Vec<_> = calls.iter().map(|call| call.arguments.as_str()).collect();
        assert_eq!(
            arguments,
            ["{\"command\":\"ls\"}", "{\"command\":\"pwd\"}", "{\"comm"]
        );

        let mut content = Vec::new();
        if provider == Provider::Anthropic {
            assert_eq!(thoughts, "Hm, hm, hm.c2lnbmVk");
            content.push(Content::Thinking {
                text: "Hm, hm, hm.".to_owned(),
                signature: "c2lnbmVk".to_owned(),
            });
        } else {
            assert_eq!(thoughts, "Hm, hm, hm.");
        }
        content.push(Content::Text {
            text: "I look.".to_owned(),
        });
        content.extend(calls.iter().cloned().map(Content::Call));
        let results = calls.iter().enumerate().map(|(at, call)| ToolResult {
            id: call.id.clone(),
            content: format!("result {at}"),
            failed: at == 2,
        });
        conversation.push(Message::Assistant { content });
        conversation.push(Message::Tools {
            results: results.collect(),
        });
        let (events, failure) = ask(&*model, &request(conversation)).await;
        assert!(failure.is_none(), "{provider}: {failure:?}");
        assert_eq!(text_of(&events), "done");
        let back = &fake.requests()[1];
        assert_eq!(back.results(), ["result 0", "result 1", "result 2"]);
        assert_eq!(
            back.body.to_string().contains("is_error"),
            provider == Provider::Anthropic
        );
        assert_eq!(
            back.body.to_string().contains("Hm, hm"),
            provider == Provider::Anthropic
        );
    }
}

#[tokio::test]
async fn every_refusal_says_what_to_do() {
    #[track_caller]
    fn check(
        outcome: (Vec<Event>, Option<Failure>),
        key: &str,
        kind: FailureKind,
        says: &str,
    ) -> Failure {
        let failure = outcome.1.expect("it fails");
        assert_eq!(failure.kind, kind, "{failure}");
        assert!(failure.message.contains(says), "no {says:?} in {failure}");
        assert!(!failure.message.contains(key), "{failure}");
        assert!(!failure.message.contains("sk-fa"), "{failure}");
        failure
    }
    for (provider, fake) in each() {
        let fake = fake.with_models(&["m"]);
        let key = fake.key();
        let model = client(provider, &fake);
        let fine = request(vec![user("hi")]);

        fake.reply(Reply::rate_limited("7"));
        let limited = check(
            ask(&*model, &fine).await,
            &key,
            FailureKind::RateLimited,
            "rate limit",
        );
        assert_eq!(limited.retry_after, Some(Duration::from_secs(7)));
        fake.reply(Reply::error(529, "overloaded_error", "Overloaded"));
        check(
            ask(&*model, &fine).await,
            &key,
            FailureKind::Unavailable,
            "Overloaded",
        );
        let long = "prompt is too long: 200001 tokens > 200000 maximum";
        fake.reply(Reply::error(400, "invalid_request_error", long));
        check(
            ask(&*model, &fine).await,
            &key,
            FailureKind::ContextOverflow,
            long,
        );
        // What repeats the key does not get it past here.
        if provider != Provider::Ollama {
            let tells = format!("the key {key} is bad");
            fake.reply(Reply::error(400, "invalid_request_error", &tells));
            let outcome = ask(&*model, &fine).await;
            check(outcome, &key, FailureKind::Refused, "the key *** is bad");
            fake.reply(Reply::text("x").failing_after(3, "overloaded_error", &tells));
            let outcome = ask(&*model, &fine).await;
            check(
                outcome,
                &key,
                FailureKind::Unavailable,
                "the key *** is bad",
            );
        }

        let mut other = fine.clone();
        other.model = "missing".to_owned();
        let says = if provider == Provider::Ollama {
            "`ollama pull missing`"
        } else {
            "no model 'missing'"
        };
        check(ask(&*model, &other).await, &key, FailureKind::NoModel, says);
        let nothing = request(Vec::new());
        check(
            ask(&*model, &nothing).await,
            &key,
            FailureKind::Refused,
            "400",
        );
        if provider != Provider::Ollama {
            let wrong = "sk-fake-but-another";
            let stranger = connect(&providers(&fake.base_url(), Some(wrong)), provider);
            let outcome = ask(&*stranger.expect("it looks like a key"), &fine).await;
            let variable = provider.key_variable().expect("it has one");
            check(outcome, wrong, FailureKind::Unauthenticated, variable);
        }
        assert_eq!(fake.left(), 0);
    }
}

#[tokio::test]
async fn what_breaks_off_is_cut_wherever_it_does() {
    for (provider, fake) in each() {
        let model = client(provider, &fake);
        let fine = request(vec![user("hi")]);
        let reply = || Reply::text("four words of text");
        fake.reply(reply());
        let (whole, _) = ask(&*model, &fine).await;
        for bytes in (1..400).step_by(7) {
            fake.reply(reply().cut_after_bytes(bytes));
            let (events, failure) = ask(&*model, &fine).await;
            let failure = failure.unwrap_or_else(|| panic!("{provider}: whole at {bytes}"));
            assert_eq!(failure.kind, FailureKind::Cut, "{failure}");
            assert!(
                whole.starts_with(&events),
                "{provider} at {bytes}: {events:?}"
            );
        }
        // Before it began, it is not there.
        fake.reply(reply().cut_after_bytes(0));
        let (events, failure) = ask(&*model, &fine).await;
        assert!(events.is_empty() && failure.is_some(), "{failure:?}");
        drop(fake);
        let (_, failure) = ask(&*model, &fine).await;
        let failure = failure.expect("nobody is there");
        assert_eq!(failure.kind, FailureKind::Unavailable, "{failure}");
        assert!(failure.message.contains("cannot be reached"), "{failure}");
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_is_begun_again() {
    for (provider, fake) in each() {
        fake.reply(Reply::rate_limited("0"));
        fake.reply(Reply::text("never heard in full").cut_after(4));
        fake.reply(Reply::text("x").failing_after(3, "overloaded_error", "Overloaded"));
        fake.reply(Reply::text("heard"));
        let policy = Policy {
            base: Duration::from_millis(1),
            ..Policy::default()
        };
        let model = client(provider, &fake);
        let request = Arc::new(request(vec![user("hi")]));
        let mut pieces = ask_with_retries(model, request, policy);
        let (mut text, mut why) = (String::new(), Vec::new());
        let mut stop = None;
        while let Some(piece) = pieces.next().await {
            match piece.expect("it succeeds in the end") {
                Piece::Event(Event::Text(more)) => text.push_str(&more),
                Piece::Event(Event::Stop(reason)) => stop = Some(reason),
                Piece::Event(_) => {}
                Piece::Again(again) => {
                    text.clear();
                    why.push(again.failure.kind);
                }
            }
        }
        assert_eq!((text.as_str(), stop), ("heard", Some(Stop::Done)));
        let expected = [
            FailureKind::RateLimited,
            FailureKind::Cut,
            FailureKind::Unavailable,
        ];
        assert_eq!(why, expected, "{provider}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_drops_an_answer_ends_the_call() {
    for (provider, fake) in each() {
        let model = client(provider, &fake);
        let fine = request(vec![user("hi")]);
        // In the middle of an answer, and before there is one.
        let (reply, _gate) = Reply::text("some words that are said").held_after(4);
        fake.reply(reply);
        let mut answer = model.ask(&fine).await.expect("begins");
        answer.next().await.expect("more").expect("fine");
        let start = Instant::now();
        drop(answer);
        eventually("it is given up", Duration::from_secs(5), || {
            fake.abandoned() == 1
        });
        let (reply, gate) = Reply::text("unsaid").held();
        fake.reply(reply);
        let reached = tokio::task::spawn_blocking(move || gate.reached());
        tokio::select! {
            _ = model.ask(&fine) => panic!("it is held"),
            reached = reached => reached.expect("somebody asked"),
        }
        eventually("it is given up", Duration::from_secs(5), || {
            fake.abandoned() == 2
        });
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test]
async fn limits_refusals_and_what_a_limit_cuts() {
    let check = async |provider: Provider, fake: &FakeProvider, reply: Reply, stop: Stop| {
        fake.reply(reply);
        let model = client(provider, fake);
        let (events, failure) = ask(&*model, &request(vec![user("hi")])).await;
        assert!(failure.is_none(), "{failure:?}");
        assert_eq!(events.last(), Some(&Event::Stop(stop)));
        calls_of(&events).len()
    };
    let half = || Reply::calls([("execute", json!({}))]).with_call_as_written("execute", "{\"c");
    for (provider, fake) in each() {
        let (length, refusal) = match provider {
            Provider::Anthropic => ("max_tokens", "refusal"),
            Provider::OpenAi | Provider::Ollama => ("length", "content_filter"),
        };
        let cut = check(provider, &fake, half().stopping(length), Stop::Length).await;
        assert_eq!(cut, 1, "{provider}: the whole call, and not the half");
        assert_eq!(check(provider, &fake, half(), Stop::Calls).await, 2);
        let refused = Reply::text("no").stopping(refusal);
        check(provider, &fake, refused, Stop::Refused).await;
    }
}

#[tokio::test]
async fn a_server_is_spoken_to_as_it_wants() {
    let fake = FakeProvider::openai().refusing_max_tokens();
    fake.on_request(|_| Reply::text("yes"));
    let model = client(Provider::OpenAi, &fake);
    for _ in 0..2 {
        let (events, failure) = ask(&*model, &request(vec![user("hi")])).await;
        assert!(failure.is_none(), "{failure:?}");
        assert_eq!(text_of(&events), "yes");
    }
    let statuses: Vec<_> = fake.requests().iter().map(|asked| asked.status).collect();
    assert_eq!(statuses, [400, 200, 200], "it learns once");
}

#[test]
fn who_cannot_be_asked_is_told_of_at_once() {
    let check = |base_url: &str, key: Option<&str>, provider: Provider, kind: FailureKind| {
        let failure = connect(&providers(base_url, key), provider).expect_err("it cannot be");
        assert_eq!(failure.kind, kind, "{failure}");
        failure.message
    };
    for provider in Provider::ALL {
        let message = check(
            "https://example.org",
            Some("k"),
            provider,
            FailureKind::Refused,
        );
        assert!(message.contains("TLS is not built in yet"), "{message}");
        assert!(message.contains(provider.base_url_variable()), "{message}");
    }
    let nobody = FailureKind::Unauthenticated;
    let message = check("http://localhost:1", None, Provider::Anthropic, nobody);
    assert!(message.contains("ANTHROPIC_API_KEY"), "{message}");
    let other = connect(&providers("http://localhost:1", None), Provider::OpenAi);
    assert!(other.is_ok(), "another server may need no key");
}
