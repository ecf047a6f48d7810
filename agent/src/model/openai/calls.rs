//! Calls out of their pieces.
//!
//! OpenAI sends a call's id and name first and its arguments in pieces, each
//! with the index of its call. Others send calls whole, leave out the index or
//! give each the same, leave out the id, repeat the name, or give the arguments
//! as an object.

use serde::Deserialize;
use serde_json::Value;

use crate::model::ToolCall;

/// A piece of a call.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Piece {
    index: Option<u64>,
    id: Option<String>,
    function: Option<Function>,
}

#[derive(Debug, Default, Deserialize)]
struct Function {
    name: Option<String>,
    arguments: Option<Value>,
}

/// The calls of one answer so far.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<Partial>);

#[derive(Debug)]
struct Partial {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
}

impl Partial {
    fn is_whole(&self) -> bool {
        matches!(serde_json::from_str(&self.arguments), Ok(Value::Object(_)))
    }
}

impl Calls {
    pub(super) fn push(&mut self, piece: Piece) {
        let function = piece.function.unwrap_or_default();
        let id = piece.id.unwrap_or_default();
        let name = function.name.unwrap_or_default();
        let arguments = match function.arguments {
            Some(Value::String(text)) => text,
            None | Some(Value::Null) => String::new(),
            Some(value) => value.to_string(),
        };
        let Some(call) = self.find(piece.index, &id, &name) else {
            self.0.push(Partial {
                index: piece.index,
                id,
                name,
                arguments,
            });
            return;
        };
        if call.id.is_empty() {
            call.id = id;
        }
        if call.name.is_empty() {
            call.name = name;
        }
        call.arguments.push_str(&arguments);
    }

    /// The call that a piece goes on with, if it does not begin one.
    fn find(&mut self, index: Option<u64>, id: &str, name: &str) -> Option<&mut Partial> {
        let same_place = |call: &&mut Partial| index.is_none() || call.index == index;
        let call = self.0.iter_mut().rev().find(same_place)?;
        let begins = if !id.is_empty() && !call.id.is_empty() {
            id != call.id
        } else if index.is_some() {
            // An index that is used twice: the call before was whole.
            !name.is_empty() && !call.name.is_empty() && call.is_whole()
        } else {
            // A name begins a call, and so does an id that comes with none before.
            !name.is_empty() && !call.name.is_empty()
        };
        (!begins).then_some(call)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in the order in which they began. `cut` leaves out what is
    /// not whole.
    pub(super) fn take(&mut self, cut: bool) -> Vec<ToolCall> {
        let calls = std::mem::take(&mut self.0).into_iter();
        calls
            .filter(|call| !cut || call.is_whole())
            .map(|call| ToolCall {
                id: match call.id {
                    id if id.is_empty() => format!("call_{:016x}", fastrand::u64(..)),
                    id => id,
                },
                name: call.name,
                arguments: match call.arguments {
                    arguments if arguments.trim().is_empty() => "{}".to_owned(),
                    arguments => arguments,
                },
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces in; ids (`?` for one that was made up), names and arguments out.
    #[track_caller]
    fn check(pieces: &[&str], expected: &[(&str, &str, &str)]) {
        let mut calls = Calls::default();
        for piece in pieces {
            calls.push(serde_json::from_str(piece).expect("JSON"));
        }
        let calls = calls.take(false);
        let calls: Vec<_> = calls
            .iter()
            .map(|call| {
                let made_up = call.id.starts_with("call_") && call.id.len() == 21;
                let id = if made_up { "?" } else { call.id.as_str() };
                (id, call.name.as_str(), call.arguments.as_str())
            })
            .collect();
        assert_eq!(calls, expected);
    }

    #[test]
    fn as_openai_sends_them() {
        check(
            &[
                r#"{"index":0,"id":"a","type":"function","function":{"name":"ls","arguments":""}}"#,
                r#"{"index":0,"function":{"arguments":"{\"path\""}}"#,
                r#"{"index":1,"id":"b","function":{"name":"ls","arguments":"{"}}"#,
                r#"{"index":0,"function":{"arguments":":\".\"}"}}"#,
                r#"{"index":1,"function":{"arguments":"}"}}"#,
            ],
            &[("a", "ls", "{\"path\":\".\"}"), ("b", "ls", "{}")],
        );
    }

    #[test]
    fn as_others_send_them() {
        // Whole, each with the same index, with ids and without.
        check(
            &[
                r#"{"index":0,"id":"a","function":{"name":"ls","arguments":"{}"}}"#,
                r#"{"index":0,"id":"b","function":{"name":"ls","arguments":"{}"}}"#,
            ],
            &[("a", "ls", "{}"), ("b", "ls", "{}")],
        );
        check(
            &[
                r#"{"index":0,"function":{"name":"ls","arguments":"{}"}}"#,
                r#"{"index":0,"function":{"name":"rm","arguments":"{\"x\":1}"}}"#,
            ],
            &[("?", "ls", "{}"), ("?", "rm", "{\"x\":1}")],
        );
        // Without an index.
        check(
            &[
                r#"{"function":{"name":"ls","arguments":{"path":"."}}}"#,
                r#"{"id":"","function":{"name":"ls"}}"#,
            ],
            &[("?", "ls", "{\"path\":\".\"}"), ("?", "ls", "{}")],
        );
        check(
            &[
                r#"{"id":"a","function":{"name":"ls","arguments":"{\"a"}}"#,
                r#"{"function":{"arguments":"\":1}"}}"#,
                r#"{"id":"b","function":{"name":"rm","arguments":""}}"#,
                r#"{"id":"b","function":{"arguments":"{}"}}"#,
            ],
            &[("a", "ls", "{\"a\":1}"), ("b", "rm", "{}")],
        );
        // Id and name with every piece.
        check(
            &[
                r#"{"index":0,"id":"a","function":{"name":"ls","arguments":"{}"}}"#,
                r#"{"index":0,"id":"a","function":{"name":"ls","arguments":""}}"#,
            ],
            &[("a", "ls", "{}")],
        );
        check(
            &[
                r#"{"index":0,"function":{"name":"ls","arguments":"{\"a\""}}"#,
                r#"{"index":0,"function":{"name":"ls","arguments":":1}"}}"#,
            ],
            &[("?", "ls", "{\"a\":1}")],
        );
        // An id that comes late, and a call that says next to nothing.
        check(
            &[
                r#"{"index":0,"function":{"name":"ls","arguments":null}}"#,
                r#"{"index":0,"id":"late"}"#,
            ],
            &[("late", "ls", "{}")],
        );
    }

    #[test]
    fn what_a_limit_cut_is_left_out() {
        let mut calls = Calls::default();
        for piece in [
            r#"{"index":0,"id":"a","function":{"name":"ls","arguments":"{}"}}"#,
            r#"{"index":1,"id":"b","function":{"name":"ls","arguments":"{\"pa"}}"#,
        ] {
            calls.push(serde_json::from_str(piece).expect("JSON"));
        }
        let calls = calls.take(true);
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0].id, "a");
    }
}
