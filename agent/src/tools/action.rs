//! The tools by name, and what a call of one is about.

use super::{execute, files, process, search, todos};
use crate::sandbox::Sandbox;

/// A tool there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    Execute,
    Process,
    ReadFile,
    WriteFile,
    EditFile,
    Ls,
    Glob,
    Grep,
    Delete,
    WriteTodos,
}

impl Tool {
    pub(crate) const ALL: [Self; 10] = [
        Self::Execute,
        Self::Process,
        Self::ReadFile,
        Self::WriteFile,
        Self::EditFile,
        Self::Ls,
        Self::Glob,
        Self::Grep,
        Self::Delete,
        Self::WriteTodos,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Process => "process",
            Self::ReadFile => "read_file",
            Self::WriteFile => "write_file",
            Self::EditFile => "edit_file",
            Self::Ls => "ls",
            Self::Glob => "glob",
            Self::Grep => "grep",
            Self::Delete => "delete",
            Self::WriteTodos => "write_todos",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.name() == name)
    }

    /// Whether it may change the sandbox: what `MODE_ASK` asks about.
    pub(crate) const fn changes(self) -> bool {
        match self {
            Self::Execute | Self::WriteFile | Self::EditFile | Self::Delete => true,
            Self::Process
            | Self::ReadFile
            | Self::Ls
            | Self::Glob
            | Self::Grep
            | Self::WriteTodos => false,
        }
    }

    /// When to use it, and a JSON Schema of its arguments.
    pub(super) fn about(self) -> (&'static str, serde_json::Value) {
        match self {
            Self::Execute => execute::about(),
            Self::Process => process::about(),
            Self::ReadFile => files::about_read(),
            Self::WriteFile => files::about_write(),
            Self::EditFile => files::about_edit(),
            Self::Delete => files::about_delete(),
            Self::Ls => search::about_ls(),
            Self::Glob => search::about_glob(),
            Self::Grep => search::about_grep(),
            Self::WriteTodos => todos::about(),
        }
    }
}

/// A call that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Action(pub(crate) Call);

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Call {
    Execute(execute::Execute),
    Process(process::Process),
    ReadFile(files::ReadFile),
    WriteFile(files::WriteFile),
    EditFile(files::EditFile),
    Delete(files::Delete),
    Ls(search::Ls),
    Glob(search::Glob),
    Grep(search::Grep),
    WriteTodos(todos::WriteTodos),
}

impl Action {
    pub(crate) fn tool(&self) -> Tool {
        match &self.0 {
            Call::Execute(_) => Tool::Execute,
            Call::Process(_) => Tool::Process,
            Call::ReadFile(_) => Tool::ReadFile,
            Call::WriteFile(_) => Tool::WriteFile,
            Call::EditFile(_) => Tool::EditFile,
            Call::Delete(_) => Tool::Delete,
            Call::Ls(_) => Tool::Ls,
            Call::Glob(_) => Tool::Glob,
            Call::Grep(_) => Tool::Grep,
            Call::WriteTodos(_) => Tool::WriteTodos,
        }
    }

    /// The path it is about, as the model wrote it.
    pub(crate) fn path(&self) -> Option<&str> {
        match &self.0 {
            Call::Execute(_) | Call::Process(_) | Call::WriteTodos(_) => None,
            Call::ReadFile(call) => Some(&call.path),
            Call::WriteFile(call) => Some(&call.path),
            Call::EditFile(call) => Some(&call.path),
            Call::Delete(call) => Some(&call.path),
            Call::Ls(call) => Some(call.path.as_deref().unwrap_or(".")),
            Call::Glob(call) => Some(call.path.as_deref().unwrap_or(".")),
            Call::Grep(call) => Some(call.path.as_deref().unwrap_or(".")),
        }
    }

    /// What would be done, for whoever is asked: the command as it is, or the
    /// path.
    pub(crate) fn summary(&self, sandbox: &Sandbox) -> String {
        match &self.0 {
            Call::Execute(call) => call.command.clone(),
            Call::Process(call) => format!("{} {}", call.action.as_str(), call.process_id),
            Call::WriteTodos(call) => format!("{} items", call.todos.len()),
            _ => self
                .path()
                .map(|path| sandbox.shown(path))
                .unwrap_or_default(),
        }
    }

    /// What the patterns of approval rules are held against.
    pub(crate) fn subjects(&self, sandbox: &Sandbox) -> Vec<String> {
        match (&self.0, self.path()) {
            (Call::Execute(call), _) => vec![call.command.clone()],
            (_, Some(path)) => vec![sandbox.shown(path), sandbox.absolute(path)],
            (_, None) => vec![self.summary(sandbox)],
        }
    }
}
