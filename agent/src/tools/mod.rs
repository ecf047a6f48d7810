//! What a model can do, all of it in the sandbox.
//!
//! A call is parsed into an [`Action`] before anything else looks at it: whether
//! it needs approval, what it may run beside and what it does are asked of that.
//! Whatever goes wrong in here is an [`Outcome`] that tells the model so; a
//! tool never ends an execution.
//!
//! | tool | module |
//! | --- | --- |
//! | `execute`, `process` | `execute` with `output`, `process`: commands, and those left running |
//! | `read_file`, `write_file`, `edit_file`, `delete` | `files` |
//! | `ls`, `glob`, `grep` | `search` |
//! | `write_todos` | `todos` |

mod action;
mod execute;
mod files;
mod output;
mod process;
mod search;
mod todos;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use stigmer_sdk::wire::agent::{FileChange, Todos, file_change};
use stigmer_sdk::wire::host;
use stigmer_sdk::{Error, ErrorCode, Result};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::diff::diff;
use crate::mask::Mask;
use crate::model;
use crate::sandbox::{Sandbox, told};

pub use action::Action;
pub(crate) use action::{Call, Tool};
pub(crate) use todos::text as todos_text;

/// The longest file whose change is shown line by line.
const MAX_DIFFED_BYTES: u64 = 1024 * 1024;
/// The longest diff that is shown.
const MAX_DIFF_BYTES: usize = 64 * 1024;
/// The longest result of a tool, as the model sees it.
const MAX_RESULT_BYTES: usize = 32 * 1024;

/// Where a running command's output goes while it runs: bytes, and whether they
/// were printed to stderr. Secrets are masked already.
pub type Live<'a> = &'a (dyn Fn(Bytes, bool) + Send + Sync);

/// What a call gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// For the model.
    pub content: String,
    /// Whether it failed.
    pub failed: bool,
    /// What became of files.
    pub changes: Vec<FileChange>,
    /// Of a command that ran.
    pub exit_code: Option<i32>,
    /// The new list, if it was written.
    pub todos: Option<Todos>,
}

impl Outcome {
    pub(crate) fn told(content: impl Into<String>) -> Self {
        Self {
            content: content.into(),
            ..Self::default()
        }
    }

    pub(crate) fn failed(content: impl Into<String>) -> Self {
        Self {
            content: content.into(),
            failed: true,
            ..Self::default()
        }
    }
}

/// The tools that a model has, in one sandbox.
#[derive(Debug)]
pub struct Toolbox {
    pub(crate) sandbox: Sandbox,
    /// Of every command.
    env: HashMap<String, String>,
    mask: Arc<Mask>,
    tools: Vec<Tool>,
    /// [`Sandbox::house`] was called, and went well.
    house: OnceCell<()>,
}

impl Toolbox {
    /// Those of these names, or all if there is none. `process` comes along
    /// with `execute`, whose processes it looks after.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] if there is no tool of a name.
    pub fn new(
        sandbox: Sandbox,
        names: &[String],
        env: HashMap<String, String>,
        mask: Arc<Mask>,
    ) -> Result<Self> {
        let unknown: Vec<_> = names
            .iter()
            .filter(|name| Tool::named(name).is_none())
            .map(|name| format!("'{name}'"))
            .collect();
        if !unknown.is_empty() {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!(
                    "the agent asks for tools that do not exist: {}; there are {}",
                    unknown.join(", "),
                    Tool::ALL.map(Tool::name).join(", ")
                ),
            ));
        }
        let wanted = |tool: Tool| {
            let named = |tool: Tool| names.iter().any(|name| name == tool.name());
            names.is_empty() || named(tool) || (tool == Tool::Process && named(Tool::Execute))
        };
        Ok(Self {
            sandbox,
            env,
            mask,
            tools: Tool::ALL.into_iter().filter(|&tool| wanted(tool)).collect(),
            house: OnceCell::new(),
        })
    }

    /// As the model is told of them.
    #[must_use]
    pub fn definitions(&self) -> Vec<model::Tool> {
        let definition = |tool: &Tool| {
            let (description, parameters) = tool.about();
            model::Tool {
                name: tool.name(),
                description: description.to_owned(),
                parameters,
            }
        };
        self.tools.iter().map(definition).collect()
    }

    /// What a model's call means.
    ///
    /// # Errors
    /// What is wrong with it, for the model.
    pub fn parse(&self, name: &str, arguments: &str) -> Result<Action, String> {
        let tool = Tool::named(name).filter(|tool| self.tools.contains(tool));
        let Some(tool) = tool else {
            let names: Vec<_> = self.tools.iter().map(|tool| tool.name()).collect();
            return Err(format!(
                "there is no tool '{name}'; there are {}",
                names.join(", ")
            ));
        };
        let parsed = match tool {
            Tool::Execute => arguments_of(arguments).map(Call::Execute),
            Tool::Process => arguments_of(arguments).map(Call::Process),
            Tool::ReadFile => arguments_of(arguments).map(Call::ReadFile),
            Tool::WriteFile => arguments_of(arguments).map(Call::WriteFile),
            Tool::EditFile => arguments_of(arguments).map(Call::EditFile),
            Tool::Delete => arguments_of(arguments).map(Call::Delete),
            Tool::Ls => arguments_of(arguments).map(Call::Ls),
            Tool::Glob => arguments_of(arguments).map(Call::Glob),
            Tool::Grep => arguments_of(arguments).map(Call::Grep),
            Tool::WriteTodos => arguments_of(arguments).map(Call::WriteTodos),
        };
        parsed.map(Action).map_err(|problem| {
            let (_, schema) = tool.about();
            format!("invalid arguments for `{name}`: {problem}; they must fit this JSON Schema: {schema}")
        })
    }

    /// Does it. `id` is the call's; `stop` ends a command with its whole tree.
    pub async fn run(
        &self,
        id: &str,
        action: &Action,
        live: Live<'_>,
        stop: &CancellationToken,
    ) -> Outcome {
        let done = async {
            match &action.0 {
                Call::Execute(call) => self.execute(id, call, live, stop).await,
                Call::Process(call) => self.process(call).await,
                Call::ReadFile(call) => self.read_file(call).await,
                Call::WriteFile(call) => self.write_file(call).await,
                Call::EditFile(call) => self.edit_file(call).await,
                Call::Delete(call) => self.delete(call).await,
                Call::Ls(call) => self.ls(call).await,
                Call::Glob(call) => self.glob(call).await,
                Call::Grep(call) => self.grep(call).await,
                Call::WriteTodos(call) => Ok(todos::write(call)),
            }
        };
        // A command ends by its own means, so that its tree is waited for.
        let stopped = async {
            if action.tool() == Tool::Execute {
                std::future::pending::<()>().await;
            }
            stop.cancelled().await;
        };
        let outcome = tokio::select! {
            outcome = done => outcome,
            () = stopped => return Outcome::failed("it was stopped"),
        };
        let mut outcome = outcome.unwrap_or_else(|error| Outcome::failed(advice(action, &error)));
        outcome.content = bounded(self.mask.text(&outcome.content));
        self.mask_changes(&mut outcome.changes);
        outcome
    }

    /// What would become of files, if that can be told before.
    pub(crate) async fn preview(&self, action: &Action) -> Vec<FileChange> {
        let mut changes = match &action.0 {
            Call::WriteFile(call) => self.preview_write(call).await,
            Call::EditFile(call) => self.preview_edit(call).await,
            Call::Delete(call) => self.preview_delete(call).await,
            _ => Ok(Vec::new()),
        }
        // The call itself will say what is wrong.
        .unwrap_or_default();
        self.mask_changes(&mut changes);
        changes
    }

    fn mask_changes(&self, changes: &mut [FileChange]) {
        for change in changes {
            change.diff = self.mask.text(&change.diff);
        }
    }

    /// A line of shell with the environment of every command.
    fn shell(&self, command: &str) -> host::Run {
        host::Run {
            sandbox_id: self.sandbox.id.clone(),
            program: Some(host::run::Program::Shell(command.to_owned())),
            env: self.env.clone(),
            ..host::Run::default()
        }
    }

    /// Makes sure that there is a place for what is the runner's own.
    async fn house(&self) -> Result<()> {
        let made = self.house.get_or_try_init(|| self.sandbox.house());
        made.await.copied()
    }

    /// A change of a file, for people.
    fn change(&self, path: &str, old: Option<&Text>, new: Option<&Text>) -> FileChange {
        let kind = match (old, new) {
            (None, _) => file_change::Kind::Created,
            (Some(_), Some(_)) => file_change::Kind::Changed,
            (Some(_), None) => file_change::Kind::Deleted,
        };
        let nothing = Text(Some(String::new()));
        let (old, new) = (old.unwrap_or(&nothing), new.unwrap_or(&nothing));
        let mut change = FileChange {
            path: self.sandbox.shown(path),
            kind: kind.into(),
            ..FileChange::default()
        };
        if let (Text(Some(old)), Text(Some(new))) = (old, new) {
            let found = diff(old, new);
            change.added = found.added;
            change.removed = found.removed;
            if found.unified.len() <= MAX_DIFF_BYTES {
                change.diff = found.unified;
            }
        }
        change
    }

    /// What is in a file, or `None` if there is none.
    async fn text(&self, path: &str) -> Result<Option<Text>> {
        match self.sandbox.text(path, MAX_DIFFED_BYTES).await {
            Ok(text) => Ok(Some(Text(text))),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What is in a file, unless it is no text or too long to be compared.
#[derive(Debug)]
struct Text(Option<String>);

impl Text {
    fn of(content: &str) -> Self {
        let short = content.len() as u64 <= MAX_DIFFED_BYTES;
        Self(short.then(|| content.to_owned()))
    }
}

/// Adds to a text.
fn add(text: &mut String, more: std::fmt::Arguments<'_>) {
    std::fmt::Write::write_fmt(text, more).expect("a string takes everything");
}

/// Nothing at all stands for no arguments: some models send it.
fn arguments_of<T: DeserializeOwned>(arguments: &str) -> Result<T, String> {
    let arguments = match arguments.trim() {
        "" => "{}",
        arguments => arguments,
    };
    serde_json::from_str(arguments).map_err(|error| error.to_string())
}

/// What the model reads of an error, with what to do about it.
fn advice(action: &Action, error: &Error) -> String {
    let hint = match (error.code(), action.tool()) {
        (ErrorCode::NotFound, Tool::ReadFile | Tool::EditFile | Tool::Delete) => {
            "look for it with `glob` or `ls`"
        }
        (ErrorCode::NotFound, Tool::Process) => "it may have ended long ago",
        (ErrorCode::IsDirectory, Tool::Delete) => "set `recursive` to delete a directory",
        (ErrorCode::IsDirectory, _) => "use `ls` for a directory",
        (ErrorCode::NotText, _) => {
            "it is no UTF-8 text; look at it with `execute`, for example with `file` or `xxd`"
        }
        (ErrorCode::NoMatch, _) => {
            "`old_text` must be in the file exactly, with its white space and without line numbers; read the file again"
        }
        (ErrorCode::MultipleMatches, _) => {
            "add lines around it to `old_text` until there is only one, or set `replace_all`"
        }
        (ErrorCode::InvalidPattern, Tool::Grep) => "set `literal` to search for the text as it is",
        (ErrorCode::InvalidPath, _) => "paths lie in the workspace",
        (ErrorCode::TooLarge, _) => "use `execute` for a file of this size",
        (ErrorCode::Conflict, _) => "something else changed it meanwhile; read it again",
        _ => return told(error),
    };
    let counted = match (error.code(), error.count()) {
        (ErrorCode::MultipleMatches, Some(count)) => format!(" ({count} places)"),
        _ => String::new(),
    };
    format!("{}{counted}; {hint}", told(error))
}

/// A result that a model can hold. Tools cut theirs themselves, and say how to
/// go on; this is for what nobody thought of.
fn bounded(mut content: String) -> String {
    if content.len() > 2 * MAX_RESULT_BYTES {
        content.truncate(content.floor_char_boundary(2 * MAX_RESULT_BYTES));
        content.push_str("\n[cut here: it was longer]");
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolbox(names: &[&str]) -> Result<Toolbox> {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        Toolbox::new(Sandbox::nowhere(), &names, HashMap::new(), Arc::default())
    }

    #[tokio::test]
    async fn an_agent_names_its_tools() {
        let all = toolbox(&[]).unwrap().definitions();
        assert_eq!(all.len(), Tool::ALL.len());
        let some = toolbox(&["execute", "ls"]).unwrap().definitions();
        let names: Vec<_> = some.iter().map(|tool| tool.name).collect();
        assert_eq!(names, ["execute", "process", "ls"]);
        let error = toolbox(&["ls", "bash"]).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert!(
            error.message().contains("'bash'; there are execute,"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn every_schema_names_what_its_arguments_hold() {
        for tool in toolbox(&[]).unwrap().definitions() {
            let schema = &tool.parameters;
            assert_eq!(schema["type"], "object", "{}", tool.name);
            assert_eq!(schema["additionalProperties"], false, "{}", tool.name);
            let properties = schema["properties"].as_object().unwrap();
            for required in schema["required"].as_array().unwrap() {
                assert!(properties.contains_key(required.as_str().unwrap()));
            }
            assert!(tool.description.len() > 40, "{}", tool.name);
        }
    }

    #[tokio::test]
    async fn calls_that_make_no_sense_say_why() {
        let tools = toolbox(&["execute", "read_file"]).unwrap();
        #[track_caller]
        fn check(tools: &Toolbox, name: &str, arguments: &str, problem: &str) {
            let error = tools.parse(name, arguments).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
        check(
            &tools,
            "bash",
            "{}",
            "there is no tool 'bash'; there are execute, process, read_file",
        );
        check(&tools, "ls", "{}", "there is no tool 'ls'");
        check(&tools, "execute", "", "missing field `command`");
        check(&tools, "execute", "{", "EOF while parsing");
        check(&tools, "execute", "[]", "invalid");
        check(&tools, "execute", r#"{"command":1}"#, "invalid type");
        check(
            &tools,
            "execute",
            r#"{"command":"ls","shell":"zsh"}"#,
            "unknown field `shell`",
        );
        check(
            &tools,
            "read_file",
            r#"{"path":"a","limit":-1}"#,
            "JSON Schema: {",
        );
    }

    #[tokio::test]
    async fn rules_see_a_path_however_it_is_spelled() {
        let tools = toolbox(&[]).unwrap();
        let action = tools
            .parse("write_file", r#"{"path":"./x/../.env","content":""}"#)
            .unwrap();
        assert_eq!(action.subjects(&tools.sandbox), [".env", "/workspace/.env"]);
        assert_eq!(action.summary(&tools.sandbox), ".env");
    }

    #[tokio::test]
    async fn a_daemon_that_is_gone_is_a_failed_call() {
        let tools = toolbox(&[]).unwrap();
        let action = tools.parse("read_file", r#"{"path":"a"}"#).unwrap();
        let outcome = tools
            .run("1", &action, &|_, _| {}, &CancellationToken::new())
            .await;
        assert!(
            outcome.failed && outcome.content.contains("connection"),
            "{outcome:?}"
        );
    }
}
