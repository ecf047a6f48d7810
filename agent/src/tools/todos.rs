//! `write_todos`: the model's own list of what is to be done.

use serde::Deserialize;
use serde_json::json;
use stigmer_sdk::wire::agent;

use super::Outcome;

/// Items that a list may have; more are no plan.
const MOST: usize = 100;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WriteTodos {
    pub(crate) todos: Vec<Todo>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Todo {
    content: String,
    status: Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Pending,
    InProgress,
    Completed,
}

pub(super) fn about() -> (&'static str, serde_json::Value) {
    (
        "Writes the list of what is to be done, in place of the one before. The person sees it. \
         Use it for work of three steps or more: keep one item in progress, and mark items as \
         completed as soon as they are.",
        json!({
            "type": "object",
            "properties": {
                "todos": {
                    "type": "array",
                    "description": "The whole list, in order.",
                    "items": {
                        "type": "object",
                        "properties": {
                            "content": {"type": "string", "description": "What is to be done."},
                            "status": {"type": "string", "enum": ["pending", "in_progress", "completed"]},
                        },
                        "required": ["content", "status"],
                        "additionalProperties": false,
                    },
                },
            },
            "required": ["todos"],
            "additionalProperties": false,
        }),
    )
}

pub(super) fn write(call: &WriteTodos) -> Outcome {
    if call.todos.len() > MOST {
        return Outcome::failed(format!(
            "{} items are too many; the list holds {MOST}",
            call.todos.len()
        ));
    }
    let items = call.todos.iter().map(|todo| agent::Todo {
        content: todo.content.clone(),
        status: match todo.status {
            Status::Pending => agent::TodoStatus::Pending,
            Status::InProgress => agent::TodoStatus::InProgress,
            Status::Completed => agent::TodoStatus::Completed,
        }
        .into(),
    });
    let open = call
        .todos
        .iter()
        .filter(|todo| todo.status != Status::Completed)
        .count();
    Outcome {
        todos: Some(agent::Todos {
            items: items.collect(),
        }),
        ..Outcome::told(format!(
            "the list has {} items, {open} of them open",
            call.todos.len()
        ))
    }
}

/// The list as text, for the model.
pub(crate) fn text(todos: &agent::Todos) -> String {
    let line = |todo: &agent::Todo| {
        let mark = match todo.status() {
            agent::TodoStatus::Completed => 'x',
            agent::TodoStatus::InProgress => '>',
            agent::TodoStatus::Pending | agent::TodoStatus::Unspecified => ' ',
        };
        format!("[{mark}] {}\n", todo.content)
    };
    todos.items.iter().map(line).collect()
}
