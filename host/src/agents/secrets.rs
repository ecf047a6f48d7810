//! Variables that are shown to the runner and to nobody else.
//!
//! Their values are in memory only. What is stored, and what people see, has
//! their names.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use stigmer_sdk::wire::agent::{self as pb, EnvValue, event::What};

use crate::config::Secret;

/// What people see instead.
const MASK: &str = "***";
/// A shorter value is no secret, and would be found in too much that is not it.
const SHORTEST: usize = 4;

type Env = HashMap<String, EnvValue>;

/// Values by the name of their variable.
#[derive(Clone, Debug, Default)]
pub(super) struct Secrets(BTreeMap<String, Secret>);

impl Secrets {
    /// Takes the values out, and leaves the names.
    pub(super) fn take(env: &mut Env) -> Self {
        let secret = env.iter_mut().filter(|(_, value)| value.secret);
        let taken = secret.map(|(name, value)| {
            let value = Secret::new(std::mem::take(&mut value.value));
            (name.clone(), value)
        });
        Self(taken.collect())
    }

    /// The names whose values are not here, sorted.
    pub(super) fn missing(&self, env: &Env) -> Vec<String> {
        let missing = env
            .iter()
            .filter(|(name, value)| value.secret && !self.0.contains_key(*name));
        let mut names: Vec<_> = missing.map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// Puts the values back.
    pub(super) fn fill(&self, env: &mut Env) {
        for (name, value) in env.iter_mut().filter(|(_, value)| value.secret) {
            if let Some(secret) = self.0.get(name) {
                secret.expose().clone_into(&mut value.value);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// As people see it.
pub(super) fn hide(env: &mut Env) {
    for value in env.values_mut().filter(|value| value.secret) {
        MASK.clone_into(&mut value.value);
    }
}

/// Takes secrets out of events. It is the second line of defence: the runner
/// has masked them before, and alone can find one that is spread over two
/// pieces of a text.
#[derive(Debug, Default)]
pub(super) struct Mask(Vec<Secret>);

impl Mask {
    pub(super) fn of<'a>(secrets: impl IntoIterator<Item = &'a Secrets>) -> Self {
        let mut values: Vec<String> = Vec::new();
        for secret in secrets.into_iter().flat_map(|secrets| secrets.0.values()) {
            let value = secret.expose();
            if value.len() < SHORTEST {
                continue;
            }
            values.push(value.to_owned());
            // As it stands in the arguments of a tool call.
            let json = serde_json::Value::from(value).to_string();
            let json = &json[1..json.len() - 1];
            if json != value {
                values.push(json.to_owned());
            }
        }
        // The longest first, so that none is left half by one that it contains.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self(values.into_iter().map(Secret::new).collect())
    }

    /// Masks every text in an event.
    pub(super) fn event(&self, event: &mut pb::Event) {
        if self.0.is_empty() {
            return;
        }
        match &mut event.what {
            Some(What::Phase(change)) => {
                if let Some(error) = &mut change.error {
                    self.text(&mut error.message);
                    error.path.iter_mut().for_each(|path| self.text(path));
                }
            }
            Some(What::Message(message)) => {
                self.text(&mut message.content);
                // Only the runner knows what it is made of: its length stays,
                // in case that is part of it.
                message.state = self.bytes(&message.state, true);
            }
            Some(What::Text(delta)) => self.text(&mut delta.text),
            Some(What::ToolCall(call)) => {
                self.text(&mut call.args);
                self.text(&mut call.result);
                call.error.iter_mut().for_each(|error| self.text(error));
                self.changes(&mut call.changes);
            }
            Some(What::CancelRequested(reason)) => self.text(reason),
            Some(What::Todos(todos)) => {
                let items = todos.items.iter_mut();
                items.for_each(|todo| self.text(&mut todo.content));
            }
            Some(What::Approval(approval)) => {
                self.text(&mut approval.why);
                self.text(&mut approval.summary);
                self.text(&mut approval.reason);
                self.changes(&mut approval.changes);
            }
            Some(What::Output(output)) => output.data = self.bytes(&output.data, false),
            Some(What::Usage(_)) | None => {}
        }
    }

    fn changes(&self, changes: &mut [pb::FileChange]) {
        for change in changes {
            self.text(&mut change.path);
            self.text(&mut change.diff);
        }
    }

    fn text(&self, text: &mut String) {
        for secret in &self.0 {
            if text.contains(secret.expose()) {
                *text = text.replace(secret.expose(), MASK);
            }
        }
    }

    fn bytes(&self, bytes: &Bytes, same_length: bool) -> Bytes {
        let mut bytes = bytes.clone();
        for secret in &self.0 {
            let secret = secret.expose().as_bytes();
            let stars = vec![
                b'*';
                if same_length {
                    secret.len()
                } else {
                    MASK.len()
                }
            ];
            let mut masked = Vec::new();
            let mut rest = &bytes[..];
            while let Some(at) = position(rest, secret) {
                masked.extend_from_slice(&rest[..at]);
                masked.extend_from_slice(&stars);
                rest = &rest[at + secret.len()..];
            }
            if !masked.is_empty() {
                masked.extend_from_slice(rest);
                bytes = masked.into();
            }
        }
        bytes
    }
}

/// Where `needle`, which is not empty, begins.
fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from
            + haystack[from..]
                .iter()
                .position(|&byte| byte == needle[0])?;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(values: &[(&str, &str, bool)]) -> Env {
        let value = |value: &str, secret| EnvValue {
            value: value.to_owned(),
            secret,
        };
        values
            .iter()
            .map(|&(name, text, secret)| (name.to_owned(), value(text, secret)))
            .collect()
    }

    #[test]
    fn values_leave_and_come_back() {
        let original = env(&[
            ("A", "plain", false),
            ("B", "hidden", true),
            ("C", "", true),
        ]);
        let mut stored = original.clone();
        let secrets = Secrets::take(&mut stored);
        assert_eq!(
            stored,
            env(&[("A", "plain", false), ("B", "", true), ("C", "", true)])
        );
        assert!(!format!("{secrets:?}").contains("hidden"));
        assert_eq!(secrets.missing(&stored), [""; 0]);
        assert_eq!(Secrets::default().missing(&stored), ["B", "C"]);
        let mut shown = stored.clone();
        hide(&mut shown);
        assert_eq!(
            shown,
            env(&[
                ("A", "plain", false),
                ("B", "***", true),
                ("C", "***", true)
            ])
        );
        secrets.fill(&mut stored);
        assert_eq!(stored, original);
    }

    #[test]
    fn texts_are_masked() {
        #[track_caller]
        fn check(secrets: &[&str], text: &str, expected: &str) {
            let values: Vec<_> = secrets.iter().map(|&value| (value, value, true)).collect();
            let mask = Mask::of([&Secrets::take(&mut env(&values))]);
            let mut event = pb::Event {
                what: Some(What::Text(pb::TextDelta {
                    text: text.to_owned(),
                    ..Default::default()
                })),
                ..Default::default()
            };
            mask.event(&mut event);
            let Some(What::Text(delta)) = event.what else {
                panic!("{event:?}")
            };
            assert_eq!(delta.text, expected);
            let mut event = pb::Event {
                what: Some(What::Output(pb::ToolOutput {
                    data: text.to_owned().into(),
                    ..Default::default()
                })),
                ..Default::default()
            };
            mask.event(&mut event);
            let Some(What::Output(output)) = event.what else {
                panic!("{event:?}")
            };
            assert_eq!(output.data, expected);
            let state = mask.bytes(&text.to_owned().into(), true);
            assert_eq!(state.len(), text.len());
            assert_eq!(state == text, expected == text);
        }
        check(&[], "hunter2", "hunter2");
        check(
            &["hunter2"],
            "a hunter2 hunter2, hunter",
            "a *** ***, hunter",
        );
        check(&["hunter2"], "hunter2", "***");
        check(&["abc"], "abc", "abc");
        check(&["hunt", "hunter2"], "hunter2 hunt", "*** ***");
        check(&["a\"b\nc"], r#"{"x":"a\"b\nc"}"#, r#"{"x":"***"}"#);
        check(&["aaab"], "aaaaab", "aa***");
        check(&["żółć"], "x żółć y", "x *** y");
    }
}
