//! A model to try Stigmer with by hand, that says what it is told to.
//!
//! ```text
//! cargo run -p stigmer-tests --example fake_provider -- anthropic [SCRIPT.json]
//! ```
//!
//! It prints the variables that lead to it and answers until it is stopped. A
//! script is an array of the model's turns, each with a `text`, `calls` of a
//! `name` with `arguments`, or both, or with an `error` of a `status`, a `kind`
//! and a `message`. It begins anew with each thing that a person says, so that
//! sessions do not get into each other's way. Without a script, a program is
//! written that has a mistake, run, mended and run again, whatever was said.

use serde_json::{Value, json};
use stigmer_tests::fakes::{FakeProvider, Received, Reply};

#[expect(clippy::print_stdout, reason = "that is how it says where it is")]
fn main() {
    let mut args = std::env::args().skip(1);
    let provider = args.next().unwrap_or_else(|| "anthropic".to_owned());
    let (fake, variable) = match provider.as_str() {
        "anthropic" => (FakeProvider::anthropic(), "ANTHROPIC"),
        "openai" => (FakeProvider::openai(), "OPENAI"),
        "ollama" => (FakeProvider::ollama(), "OLLAMA"),
        other => panic!("'{other}' is none of anthropic, openai, ollama"),
    };
    let script: Option<Vec<Value>> = args.next().map(|path| {
        let text =
            std::fs::read(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
    });
    fake.on_request(move |received| match &script {
        Some(script) => told(script, received),
        None => demo(received),
    });
    println!("export STIGMER_LLM_PROVIDER={provider}");
    println!("export {variable}_BASE_URL={}", fake.base_url());
    if provider != "ollama" {
        println!("export {variable}_API_KEY={}", fake.key());
    }
    loop {
        std::thread::park();
    }
}

/// The turn of a script that comes next.
fn told(script: &[Value], received: &Received) -> Reply {
    let Some(turn) = script.get(received.turn()) else {
        return Reply::text("That is all that my script says.");
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let error = &turn["error"];
    if let Some(status) = error["status"].as_u64() {
        let status = u16::try_from(status).unwrap_or(500);
        return Reply::error(status, &text(&error["kind"]), &text(&error["message"]));
    }
    let calls = turn["calls"].as_array().into_iter().flatten();
    let calls = calls.map(|call| {
        let name = call["name"].as_str().expect("a call has a name");
        (name, call["arguments"].clone())
    });
    Reply::calls(calls).with_text(&text(&turn["text"]))
}

const PROGRAM: &str = "\
primes = []
for number in range(2, 50):
    if all(number % prime for prime in prime):
        primes.append(number)
print(*primes)
";

fn demo(received: &Received) -> Reply {
    let call = |tool: &str, arguments: &[(&str, &str)]| {
        Reply::calls([(tool, arguments_of(received, tool, arguments))])
    };
    let run = &[("command", "python3 hello.py")];
    match received.turn() {
        0 => call("write_file", &[("path", "hello.py"), ("content", PROGRAM)])
            .with_text("I write the program."),
        1 => call("execute", run).with_text("Does it run?"),
        2 => call(
            "edit_file",
            &[
                ("path", "hello.py"),
                ("old", "in prime)"),
                ("new", "in primes)"),
            ],
        )
        .with_text("A name is wrong: the list is called `primes`."),
        3 => call("execute", run),
        _ => Reply::text(&format!(
            "`hello.py` prints the primes below 50:\n\n{}",
            received.results().join("\n").trim()
        )),
    }
}

/// Arguments as this tool calls them: each name that is given here stands for
/// the tool's own, which has it in it.
fn arguments_of(received: &Received, tool: &str, arguments: &[(&str, &str)]) -> Value {
    let tools = received.body["tools"].as_array().into_iter().flatten();
    let schema = tools
        .map(|offered| match &offered["function"] {
            Value::Null => (&offered["name"], &offered["input_schema"]),
            function => (&function["name"], &function["parameters"]),
        })
        .find(|(name, _)| *name == tool)
        .map(|(_, schema)| schema["properties"].clone())
        .unwrap_or_default();
    let mut object = json!({});
    for (name, value) in arguments {
        let own = schema
            .as_object()
            .and_then(|properties| properties.keys().find(|own| own.contains(name)))
            .map_or(*name, String::as_str);
        object[own] = json!(value);
    }
    object
}
