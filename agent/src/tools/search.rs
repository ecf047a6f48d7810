//! `ls`, `glob` and `grep`: bounded, and honest about it.

use serde::Deserialize;
use serde_json::json;
use stigmer_sdk::Result;
use stigmer_sdk::wire::host;
use stigmer_sdk::wire::sandbox::{File, FileKind, Match, Truncation};

use super::{MAX_RESULT_BYTES, Outcome, Toolbox, add};
use crate::daemon::{call, from_status};

/// Entries of a directory that are shown.
const ENTRIES: usize = 1000;
/// Files that a pattern may find.
const FILES: u32 = 500;
/// Lines that a search may find.
const MATCHES: u32 = 200;
/// What is shown of one line.
const LINE_BYTES: usize = 400;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ls {
    pub(crate) path: Option<String>,
}

pub(super) fn about_ls() -> (&'static str, serde_json::Value) {
    (
        "Lists one directory, hidden entries included: directories end in /, files have their size.",
        json!({
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": "A directory; the workspace if absent."},
            },
            "required": [],
            "additionalProperties": false,
        }),
    )
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Glob {
    pattern: String,
    pub(crate) path: Option<String>,
    include_ignored: Option<bool>,
}

pub(super) fn about_glob() -> (&'static str, serde_json::Value) {
    (
        "Finds files by their names. `*` and `?` stay within a name, `**` crosses directories; a \
         pattern without / matches the name at any depth. What .gitignore leaves out is left out.",
        json!({
            "type": "object",
            "properties": {
                "pattern": {"type": "string", "description": "Such as `*.rs` or `src/**/test_*.py`."},
                "path": {"type": "string", "description": "Where to look; the workspace if absent."},
                "include_ignored": {"type": "boolean", "description": "Also what .gitignore leaves out."},
            },
            "required": ["pattern"],
            "additionalProperties": false,
        }),
    )
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grep {
    pattern: String,
    pub(crate) path: Option<String>,
    glob: Option<String>,
    literal: Option<bool>,
    ignore_case: Option<bool>,
    context: Option<u32>,
    include_ignored: Option<bool>,
}

pub(super) fn about_grep() -> (&'static str, serde_json::Value) {
    (
        "Searches files for lines that match a regular expression, without look-around and \
         back-references. Gives path:line:text. What .gitignore leaves out is left out, and so are \
         binary files.",
        json!({
            "type": "object",
            "properties": {
                "pattern": {"type": "string"},
                "path": {"type": "string", "description": "A file or a directory; the workspace if absent."},
                "glob": {"type": "string", "description": "Only files of such names, as for `glob`."},
                "literal": {"type": "boolean", "description": "Search for the pattern as it is."},
                "ignore_case": {"type": "boolean"},
                "context": {"type": "integer", "minimum": 0, "maximum": 10, "description": "Lines to show before and after each."},
                "include_ignored": {"type": "boolean", "description": "Also what .gitignore leaves out."},
            },
            "required": ["pattern"],
            "additionalProperties": false,
        }),
    )
}

impl Toolbox {
    pub(super) async fn ls(&self, ls: &Ls) -> Result<Outcome> {
        let request = host::ListDirRequest {
            sandbox_id: self.sandbox.id.clone(),
            path: ls.path.clone().unwrap_or_else(|| ".".to_owned()),
        };
        let answer = self.sandbox.daemon.files().list_dir(call(request)).await;
        let mut parts = answer.map_err(from_status)?.into_inner();
        let mut files = Vec::new();
        while let Some(part) = parts.message().await.map_err(from_status)? {
            files.extend(part.files);
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let more = files.len().saturating_sub(ENTRIES);
        let mut list = List::default();
        for file in &files[..files.len() - more] {
            list.line(&entry(file));
        }
        Ok(list.outcome(
            "[the directory is empty]",
            more,
            "look with `glob` for a part of them",
        ))
    }

    pub(super) async fn glob(&self, glob: &Glob) -> Result<Outcome> {
        let request = host::GlobRequest {
            sandbox_id: self.sandbox.id.clone(),
            root: glob.path.clone().unwrap_or_default(),
            pattern: glob.pattern.clone(),
            directories: false,
            exclude: vec![".git".to_owned()],
            max_results: Some(FILES),
            max_ms: None,
            gitignore: glob.include_ignored != Some(true),
        };
        let answer = self.sandbox.daemon.files().glob(call(request)).await;
        let mut parts = answer.map_err(from_status)?.into_inner();
        let mut paths = Vec::new();
        let mut truncation = Truncation::Unspecified;
        while let Some(part) = parts.message().await.map_err(from_status)? {
            truncation = part.truncation();
            paths.extend(part.files.into_iter().map(|file| file.path));
        }
        paths.sort();
        let mut list = List::default();
        for path in &paths {
            list.line(path);
        }
        list.note(truncation);
        Ok(list.outcome("[no file matches]", 0, "use a narrower pattern"))
    }

    pub(super) async fn grep(&self, grep: &Grep) -> Result<Outcome> {
        let context = grep.context.unwrap_or(0).min(10);
        let request = host::GrepRequest {
            sandbox_id: self.sandbox.id.clone(),
            root: grep.path.clone().unwrap_or_default(),
            patterns: vec![grep.pattern.clone()],
            regex: grep.literal != Some(true),
            ignore_case: grep.ignore_case == Some(true),
            files: grep.glob.clone(),
            exclude: vec![".git".to_owned()],
            before: context,
            after: context,
            max_results: Some(MATCHES),
            max_ms: None,
            gitignore: grep.include_ignored != Some(true),
        };
        let answer = self.sandbox.daemon.files().grep(call(request)).await;
        let mut parts = answer.map_err(from_status)?.into_inner();
        let mut matches = Vec::new();
        let mut truncation = Truncation::Unspecified;
        while let Some(part) = parts.message().await.map_err(from_status)? {
            truncation = part.truncation();
            matches.extend(part.matches);
        }
        let mut list = List::default();
        for found in &matches {
            for line in lines(found) {
                list.line(&line);
            }
            if context > 0 {
                list.line("--");
            }
        }
        list.note(truncation);
        Ok(list.outcome(
            "[no line matches]",
            0,
            "search in a part of the files, or for something rarer",
        ))
    }
}

fn entry(file: &File) -> String {
    // Paths in answers begin with that of the request.
    let name = file.path.rsplit('/').next().unwrap_or(&file.path);
    let Some(metadata) = &file.metadata else {
        return name.to_owned();
    };
    match metadata.kind() {
        FileKind::Directory => format!("{name}/"),
        FileKind::Symlink => format!("{name} -> {}", metadata.target.as_deref().unwrap_or("?")),
        FileKind::File | FileKind::Unspecified => format!("{name}  {} bytes", metadata.size),
        FileKind::Other => format!("{name}  (no ordinary file)"),
    }
}

/// A match as grep writes it, with its context.
fn lines(found: &Match) -> Vec<String> {
    let short = |text: &str| {
        let end = text.floor_char_boundary(LINE_BYTES);
        if end < text.len() {
            format!("{} [{} bytes more]", &text[..end], text.len() - end)
        } else {
            text.to_owned()
        }
    };
    let first = found.line.saturating_sub(found.before.len() as u64);
    let around = |(text, line): (&String, u64)| format!("{}-{line}-{}", found.path, short(text));
    let before = found.before.iter().zip(first..).map(around);
    let after = found.after.iter().zip(found.line + 1..).map(around);
    let this = format!("{}:{}:{}", found.path, found.line, short(&found.text));
    before.chain([this]).chain(after).collect()
}

/// Lines up to what a model can hold.
#[derive(Debug, Default)]
struct List {
    text: String,
    left_out: usize,
    note: &'static str,
}

impl List {
    fn line(&mut self, line: &str) {
        if self.left_out > 0 || self.text.len() + line.len() >= MAX_RESULT_BYTES {
            self.left_out += 1;
            return;
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn note(&mut self, truncation: Truncation) {
        self.note = match truncation {
            Truncation::Unspecified => "",
            Truncation::Results => "there are more results than these",
            Truncation::Time => "the search took too long and was stopped",
            Truncation::Unreadable => "some directories could not be read",
        };
    }

    fn outcome(mut self, empty: &str, more: usize, advice: &str) -> Outcome {
        let left_out = self.left_out + more;
        if self.text.is_empty() && left_out == 0 {
            self.text.push_str(empty);
            self.text.push('\n');
        }
        if left_out > 0 {
            add(
                &mut self.text,
                format_args!("[{left_out} more lines are not shown; {advice}]\n"),
            );
        }
        if !self.note.is_empty() {
            add(&mut self.text, format_args!("[{}; {advice}]\n", self.note));
        }
        Outcome::told(self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_read_as_those_of_grep() {
        let found = Match {
            path: "src/a.rs".to_owned(),
            line: 3,
            text: "here".to_owned(),
            before: vec!["one".to_owned(), "two".to_owned()],
            after: vec!["four".to_owned()],
        };
        assert_eq!(
            lines(&found),
            [
                "src/a.rs-1-one",
                "src/a.rs-2-two",
                "src/a.rs:3:here",
                "src/a.rs-4-four"
            ]
        );
    }

    #[test]
    fn what_is_left_out_is_said() {
        let mut list = List::default();
        for _ in 0..3 {
            list.line(&"x".repeat(MAX_RESULT_BYTES / 2));
        }
        list.note(Truncation::Results);
        let text = list.outcome("", 5, "ask for less").content;
        assert!(
            text.contains("[7 more lines are not shown; ask for less]"),
            "{text}"
        );
        assert!(text.ends_with("[there are more results than these; ask for less]\n"));
    }
}
