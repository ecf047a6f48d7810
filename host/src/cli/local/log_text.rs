//! A record of a log as people read it.

use serde_json::{Map, Value};

use super::logs::{Component, Line};

fn colour_of(component: Component) -> &'static str {
    match component {
        Component::Server => "\x1b[36m",
        Component::AgentRunner => "\x1b[35m",
    }
}

/// A line for people, and for a terminal in colour. `shown` makes harmless
/// what the line brought.
pub(super) fn text(line: &Line, colour: bool, shown: impl Fn(&str) -> String) -> String {
    let paint = |code: &str, text: &str| {
        if colour && !code.is_empty() {
            format!("{code}{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    };
    let name = paint(
        colour_of(line.component),
        &format!("{:<12}", line.component.name()),
    );
    let Ok(Value::Object(record)) = serde_json::from_slice(&line.bytes) else {
        return format!("{name} {}", shown(&String::from_utf8_lossy(&line.bytes)));
    };
    let string = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default();
    let when = match line.time {
        Some(time) => humantime::format_rfc3339_millis(time).to_string(),
        None => shown(string("timestamp")),
    };
    let level = match string("level") {
        "ERROR" => "\x1b[31m",
        "WARN" => "\x1b[33m",
        _ => "",
    };
    let mut text = format!(
        "{} {name} {}",
        paint("\x1b[2m", &when),
        paint(level, &format!("{:<5}", shown(string("level"))))
    );
    for part in said(&record) {
        text.push(' ');
        text.push_str(&shown(&part));
    }
    text
}

/// The message and the fields of a record, wherever its writer puts them.
fn said(record: &Map<String, Value>) -> Vec<String> {
    const NO_FIELDS: [&str; 6] = ["timestamp", "level", "target", "message", "fields", "spans"];
    let inner = record.get("fields").and_then(Value::as_object);
    let message = record
        .get("message")
        .or_else(|| inner?.get("message"))
        .and_then(Value::as_str);
    // An operation is told by the span it was, and not by a message.
    let span = record.get("span").and_then(Value::as_object);
    let span = span
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != "name");
    let outer = record
        .iter()
        .filter(|(name, _)| !NO_FIELDS.contains(&name.as_str()) && *name != "span");
    let inner = inner
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != "message");
    let fields = span
        .chain(outer)
        .chain(inner)
        .map(|(name, value)| match value {
            Value::String(text) if !text.is_empty() && !text.contains([' ', '"', '=']) => {
                format!("{name}={text}")
            }
            value => format!("{name}={value}"),
        });
    message
        .map(str::to_owned)
        .into_iter()
        .chain(fields)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::logs::time;
    use super::*;

    fn line(text: &str) -> Line {
        Line {
            component: Component::Server,
            time: time(text.as_bytes()),
            bytes: text.as_bytes().to_vec(),
        }
    }

    #[test]
    fn a_record_is_one_line_for_people() {
        #[track_caller]
        fn check(json: &str, expected: &str) {
            assert_eq!(text(&line(json), false, str::to_owned), expected);
        }
        let flat = r#"{"timestamp":"2026-01-31T12:00:00.123456Z","level":"INFO","message":"serving","target":"stigmer::server","port":50051,"why":"a b"}"#;
        check(
            flat,
            r#"2026-01-31T12:00:00.123Z server       INFO  serving port=50051 why="a b""#,
        );
        let nested = r#"{"timestamp":"2026-01-31T12:00:00Z","level":"WARN","target":"x","fields":{"message":"late","path":"/a"},"span":{"name":"operation","operation":"exec"}}"#;
        check(
            nested,
            "2026-01-31T12:00:00.000Z server       WARN  late operation=exec path=/a",
        );
        check("not JSON", "server       not JSON");
        check("[1]", "server       [1]");
    }

    #[test]
    fn colours_are_ours_and_escapes_are_shown() {
        let json = "{\"timestamp\":\"2026-01-31T12:00:00Z\",\"level\":\"ERROR\",\"message\":\"\\u001b[2J\"}";
        let shown = text(&line(json), true, |text| text.escape_debug().to_string());
        assert_eq!(
            shown,
            "\x1b[2m2026-01-31T12:00:00.000Z\x1b[0m \x1b[36mserver      \x1b[0m \x1b[31mERROR\x1b[0m \\u{1b}[2J"
        );
    }
}
