//! What ends an agent that would not: limits, a loop, a person.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stigmer_tests::eventually;
use stigmer_tests::fakes::Reply;

use super::{KEY, Local, of_type};

#[track_caller]
fn failure(events: &[Value]) -> String {
    of_type(events, "phase")
        .last()
        .and_then(|event| event["error"]["message"].as_str())
        .unwrap_or_else(|| panic!("no error in {events:?}"))
        .to_owned()
}

#[test]
fn limits_end_an_execution_and_say_which() {
    #[track_caller]
    fn check(args: &[&str], said: &str) {
        let local = Local::started();
        local.model.on_request(|request| {
            let line = format!("echo {}", request.turn());
            Reply::calls([("execute", json!({ "command": line }))])
        });
        let (output, events) = local.run(args);
        assert_eq!(output.status().code(), Some(1), "{output}");
        let failure = failure(&events);
        assert!(failure.contains(said), "no {said:?} in {failure:?}");
    }
    check(&["--max-turns", "3", "go on"], "limit of turns");
    check(&["--max-tokens", "500", "go on"], "its limit is 500");
    check(&["--timeout", "1s", "go on"], "ran for 1 s");
}

#[test]
fn a_model_that_goes_in_circles_is_stopped() {
    let local = Local::started();
    local
        .model
        .on_request(|_| Reply::calls([("ls", json!({ "path": "." }))]));
    let (output, events) = local.run(&["look"]);
    assert_eq!(output.status().code(), Some(1), "{output}");
    let failure = failure(&events);
    assert!(failure.contains("ls"), "{failure}");
    let calls = local.model.requests().len();
    assert!(calls <= 6, "{calls} calls before it was stopped");
}

#[test]
fn cancel_ends_the_command_with_its_tree_within_a_second() {
    let local = Local::started();
    local.model.reply(Reply::calls([(
        "execute",
        json!({ "command": "setsid sleep 5432 & touch started; sleep 5432" }),
    )]));
    let started = local.home.work().join("started");
    let running = local.stigmer(["run", "--json", "wait"]).start();
    eventually("the command runs", Duration::from_secs(20), || {
        started.exists()
    });
    let sleeping = || {
        local
            .home
            .processes()
            .into_iter()
            .filter(|process| process.command.contains("sleep 5432"))
            .filter(|process| process.command.starts_with("sleep"))
            .count()
    };
    eventually("both run", Duration::from_secs(10), || sleeping() == 2);
    let listed = local
        .stigmer(["execution", "list", "--phase", "in_progress", "--json"])
        .ok();
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let id = listed[0]["execution_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let asked = Instant::now();
    local
        .stigmer(["execution", "cancel", &id, "--reason", "enough"])
        .ok();
    eventually("the tree ends", Duration::from_secs(10), || sleeping() == 0);
    let took = asked.elapsed();
    let output = running.wait();
    let events = super::events(output.text());
    assert_eq!(
        of_type(&events, "phase").last().expect("a phase")["phase"],
        "cancelled"
    );
    // A second is what is promised; a machine under test is slow.
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_person_is_asked_before_something_is_done() {
    let local = Local::started();
    super::runs(&local.model, "touch allowed", "Done.");
    let mut person = local.at_terminal(&["run", "--approve", "ask", "touch it"], Some(KEY));
    person.shows("touch allowed");
    person.shows("Allow?");
    assert!(!local.home.work().join("allowed").exists());
    person.types("y\r");
    person.shows("Done.");
    assert!(person.wait().success(), "{}", person.screen());
    assert!(local.home.work().join("allowed").exists());

    super::runs(&local.model, "touch denied", "Then not.");
    let mut person = local.at_terminal(&["run", "--approve", "always", "touch it"], Some(KEY));
    person.shows("Allow?");
    person.types("not on a Friday\r");
    person.shows("Then not.");
    assert!(person.wait().success(), "{}", person.screen());
    assert!(!local.home.work().join("denied").exists());
    let requests = local.model.requests();
    let told = requests.last().expect("requests").body.to_string();
    assert!(told.contains("not on a Friday"), "{told}");
}

#[test]
fn a_provider_that_stumbles_is_asked_again() {
    let local = Local::started();
    local.model.reply(Reply::rate_limited("1"));
    local
        .model
        .reply(Reply::error(529, "overloaded_error", "Overloaded"));
    local
        .model
        .reply(Reply::text("Half of an answer that never came to its end").cut_after(5));
    local.model.reply(Reply::text("Whole."));
    let (output, events) = local.run(&["say it"]);
    assert!(output.status().success(), "{output}");
    let answers: Vec<_> = of_type(&events, "message")
        .into_iter()
        .filter(|event| event["role"] == "ai")
        .collect();
    assert!(!answers.is_empty(), "{events:?}");
    let shown = local
        .stigmer([
            "execution",
            "show",
            "--json",
            events[0]["execution_id"].as_str().expect("an id"),
        ])
        .ok();
    assert!(shown.contains("Whole."), "{shown}");
    assert!(!shown.contains("Half of"), "{shown}");
}

#[test]
fn a_key_that_is_wrong_fails_at_once_and_is_not_repeated() {
    let local = Local::with_key("sk-ant-another");
    local.stigmer(["local", "start", "--no-input"]).ok();
    let (output, events) = local.run(&["hello"]);
    assert_eq!(output.status().code(), Some(1), "{output}");
    assert!(failure(&events).contains("ANTHROPIC_API_KEY"), "{events:?}");
    assert!(!output.text().contains(KEY), "{output}");
    assert_eq!(local.model.requests().len(), 1);
}
