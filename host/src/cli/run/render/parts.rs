//! Tool calls, diffs, todos and numbers as text. Lines come without their end,
//! made harmless for a terminal.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;
use stigmer_sdk::wire::agent::{FileChange, Todo, TodoStatus, file_change};

use crate::cli::output::harmless;

/// How many lines of a diff are shown.
const DIFF_LINES: usize = 40;
/// How much of what a tool is called with is shown on its line.
const TITLE_CHARS: usize = 120;

/// Colours, on a terminal.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Paint(pub(in crate::cli) bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    pub(in crate::cli) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(in crate::cli) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(in crate::cli) fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    pub(in crate::cli) fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(in crate::cli) fn cyan(self, text: &str) -> String {
        self.with("36", text)
    }
}

/// The lines of text, harmless, without an empty one at the end.
pub(in crate::cli) fn lines(text: &str) -> impl Iterator<Item = Cow<'_, str>> {
    text.trim_end_matches('\n').split('\n').map(harmless)
}

/// A text on one line, with what was left out.
pub(in crate::cli) fn one_line(text: &str, most: usize) -> String {
    let text = text.trim();
    let mut all = text.lines();
    let first = all.next().unwrap_or_default();
    let more = all.count();
    let mut line: String = first.chars().take(most).collect();
    if line.len() < first.len() {
        line.push('…');
    }
    let line = harmless(&line).into_owned();
    match more {
        0 => line,
        1 => format!("{line} … (1 more line)"),
        more => format!("{line} … ({more} more lines)"),
    }
}

/// What a tool was called with, as a person would say it.
pub(in crate::cli) fn title(args: &str) -> String {
    let Ok(Value::Object(object)) = serde_json::from_str(args) else {
        return one_line(args, TITLE_CHARS);
    };
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let path = text("path").or_else(|| text("file_path"));
    let line = match (text("command"), text("pattern"), path) {
        (Some(command), _, _) => command.to_owned(),
        (None, Some(pattern), Some(path)) => format!("{pattern} in {path}"),
        (None, Some(only), None) | (None, None, Some(only)) => only.to_owned(),
        (None, None, None) if object.is_empty() => String::new(),
        (None, None, None) => Value::Object(object).to_string(),
    };
    one_line(&line, TITLE_CHARS)
}

/// `🔧 execute  python3 hello.py`.
pub(in crate::cli) fn tool(paint: Paint, name: &str, title: &str) -> String {
    let name = paint.bold(&harmless(name));
    if title.is_empty() {
        format!("🔧 {name}")
    } else {
        format!("🔧 {name}  {title}")
    }
}

/// What became of a file, with its diff below.
pub(in crate::cli) fn change(paint: Paint, change: &FileChange) -> Vec<String> {
    let mut all = vec![format!(
        "{} {}{}",
        match change.kind() {
            file_change::Kind::Created => "created",
            file_change::Kind::Unspecified | file_change::Kind::Changed => "changed",
            file_change::Kind::Deleted => "deleted",
        },
        harmless(&change.path),
        counts(paint, change.added, change.removed)
    )];
    if change.diff.is_empty() {
        return all;
    }
    let diff: Vec<_> = lines(&change.diff).collect();
    for line in diff.iter().take(DIFF_LINES) {
        all.push(match line.chars().next() {
            Some('+') => paint.green(line),
            Some('-') => paint.red(line),
            Some('@') => paint.cyan(line),
            _ => line.to_string(),
        });
    }
    if diff.len() > DIFF_LINES {
        let more = diff.len() - DIFF_LINES;
        all.push(paint.dim(&format!("… {more} more lines of the diff")));
    }
    all
}

/// ` +3 -1`.
pub(in crate::cli) fn counts(paint: Paint, added: u32, removed: u32) -> String {
    let mut text = String::new();
    if added > 0 {
        text = format!(" {}", paint.green(&format!("+{added}")));
    }
    if removed > 0 {
        text = format!("{text} {}", paint.red(&format!("-{removed}")));
    }
    text
}

pub(in crate::cli) fn todo(paint: Paint, todo: &Todo) -> String {
    let content = one_line(&todo.content, TITLE_CHARS);
    match todo.status() {
        TodoStatus::Unspecified | TodoStatus::Pending => format!("☐ {content}"),
        TodoStatus::InProgress => format!("▸ {}", paint.bold(&content)),
        TodoStatus::Completed => paint.dim(&format!("☑ {content}")),
    }
}

/// `340ms`, `1.2s`, `2m 5s`, `1h 2m`.
pub(in crate::cli) fn duration(ms: u64) -> String {
    let seconds = Duration::from_millis(ms).as_secs();
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}.{}s", ms % 1000 / 100),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        _ => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `12,345`.
pub(in crate::cli) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `$0.0123`.
pub(in crate::cli) fn dollars(microusd: u64) -> String {
    let tenths_of_cents = microusd.div_ceil(100);
    format!(
        "${}.{:04}",
        tenths_of_cents / 10_000,
        tenths_of_cents % 10_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_called_what_it_does() {
        #[track_caller]
        fn check(args: &str, expected: &str) {
            assert_eq!(title(args), expected);
        }
        check(
            r#"{"command":"python3 hello.py","timeout":5}"#,
            "python3 hello.py",
        );
        check(r#"{"command":"a\nb\nc"}"#, "a … (2 more lines)");
        check(r#"{"path":"src"}"#, "src");
        check(r#"{"file_path":"a.rs","old_string":"x"}"#, "a.rs");
        check(r#"{"pattern":"TODO","path":"src"}"#, "TODO in src");
        check(r#"{"pattern":"*.rs"}"#, "*.rs");
        check("{}", "");
        check(r#"{"n":1}"#, r#"{"n":1}"#);
        check("not json", "not json");
        check(r#"{"command":"echo \u001b[2J"}"#, "echo \\u{1b}[2J");
        check(
            &format!(r#"{{"path":"{}"}}"#, "x".repeat(200)),
            &format!("{}…", "x".repeat(120)),
        );
    }

    #[test]
    fn a_long_diff_is_cut() {
        let shown = change(
            Paint(false),
            &FileChange {
                path: "a".to_owned(),
                kind: file_change::Kind::Created.into(),
                added: 50,
                removed: 0,
                diff: "+x\n".repeat(50),
            },
        );
        assert_eq!(shown.len(), 42);
        assert_eq!(shown[0], "created a +50");
        assert_eq!(shown[41], "… 10 more lines of the diff");
    }

    #[test]
    fn numbers_are_for_people() {
        #[track_caller]
        fn check(actual: String, expected: &str) {
            assert_eq!(actual, expected);
        }
        check(duration(0), "0ms");
        check(duration(340), "340ms");
        check(duration(1_250), "1.2s");
        check(duration(125_000), "2m 5s");
        check(duration(3_725_000), "1h 2m");
        check(number(0), "0");
        check(number(999), "999");
        check(number(12_345), "12,345");
        check(number(1_234_567), "1,234,567");
        check(dollars(0), "$0.0000");
        check(dollars(12_345), "$0.0124");
        check(dollars(2_500_000), "$2.5000");
    }
}
