//! `read_file`, `write_file`, `edit_file` and `delete`.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use stigmer_sdk::wire::agent::{FileChange, file_change};
use stigmer_sdk::wire::host::{self, read_text_response};
use stigmer_sdk::wire::sandbox::FileKind;
use stigmer_sdk::{ErrorCode, Result};

use super::{MAX_RESULT_BYTES, Outcome, Text, Toolbox, add};
use crate::daemon::{call, from_status, incomplete};

/// Lines that are read if the model does not say.
const LINES: u64 = 2000;
/// What is shown of one line. Longer ones are data that somebody put on a line.
const LINE_BYTES: usize = 2000;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadFile {
    pub(crate) path: String,
    offset: Option<u64>,
    limit: Option<u64>,
}

pub(super) fn about_read() -> (&'static str, serde_json::Value) {
    (
        "Reads a text file, with the number of each line before it, a tab between them; neither is \
         part of the file. A long file comes in parts: the result says how to go on.",
        json!({
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": "Relative to the workspace, or absolute."},
                "offset": {"type": "integer", "minimum": 1, "description": "The first line; 1 if absent."},
                "limit": {"type": "integer", "minimum": 1, "description": "How many lines; 2000 if absent."},
            },
            "required": ["path"],
            "additionalProperties": false,
        }),
    )
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WriteFile {
    pub(crate) path: String,
    content: String,
}

pub(super) fn about_write() -> (&'static str, serde_json::Value) {
    (
        "Writes a file: creates it, with the directories above it, or replaces all that is in it. \
         To change a part of a file, use `edit_file`.",
        json!({
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": "Relative to the workspace, or absolute."},
                "content": {"type": "string", "description": "All of the file."},
            },
            "required": ["path", "content"],
            "additionalProperties": false,
        }),
    )
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EditFile {
    pub(crate) path: String,
    old_text: String,
    new_text: String,
    replace_all: Option<bool>,
}

pub(super) fn about_edit() -> (&'static str, serde_json::Value) {
    (
        "Replaces text in a file. `old_text` must be in the file exactly as given, white space \
         included and without line numbers, and only once unless `replace_all` is set. Read the \
         file first.",
        json!({
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": "Relative to the workspace, or absolute."},
                "old_text": {"type": "string", "description": "What is there now, with enough around it to be the only one."},
                "new_text": {"type": "string", "description": "What is to be there instead."},
                "replace_all": {"type": "boolean", "description": "Replace it wherever it is."},
            },
            "required": ["path", "old_text", "new_text"],
            "additionalProperties": false,
        }),
    )
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Delete {
    pub(crate) path: String,
    recursive: Option<bool>,
}

pub(super) fn about_delete() -> (&'static str, serde_json::Value) {
    (
        "Deletes a file, or with `recursive` a directory and everything in it. There is no way back.",
        json!({
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": "Relative to the workspace, or absolute."},
                "recursive": {"type": "boolean", "description": "Delete a directory with all that is in it."},
            },
            "required": ["path"],
            "additionalProperties": false,
        }),
    )
}

impl Toolbox {
    pub(super) async fn read_file(&self, read: &ReadFile) -> Result<Outcome> {
        let first = read.offset.unwrap_or(1).max(1);
        let request = host::ReadTextRequest {
            sandbox_id: self.sandbox.id.clone(),
            path: read.path.clone(),
            offset: first - 1,
            limit: Some(read.limit.unwrap_or(LINES).max(1)),
            max_bytes: Some(MAX_RESULT_BYTES as u64),
            policy: host::TextPolicy::Require.into(),
            max_binary_bytes: None,
        };
        let answer = match self.sandbox.daemon.files().read_text(call(request)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                let error = from_status(status);
                return match (error.code(), error.count()) {
                    (ErrorCode::OutOfRange, Some(lines)) => Ok(Outcome::failed(format!(
                        "{} has {lines} lines, and line {first} is past the end",
                        read.path
                    ))),
                    _ => Err(error),
                };
            }
        };
        let Some(read_text_response::Content::Text(text)) = answer.content else {
            return Err(incomplete("text"));
        };
        if answer.end_line == 0 {
            return Ok(Outcome::told("[the file is empty]"));
        }
        let mut content = numbered(&text, answer.start_line);
        let total = match answer.total_lines {
            Some(total) => format!(" of {total}"),
            None => String::new(),
        };
        if answer.cut {
            add(
                &mut content,
                format_args!(
                    "[line {} is too long to be shown whole; look at it with `execute`]\n",
                    answer.end_line
                ),
            );
        }
        if let Some(next) = answer.next_offset {
            add(
                &mut content,
                format_args!(
                    "[lines {} to {}{total}; go on with offset {}]\n",
                    answer.start_line,
                    answer.end_line,
                    next + 1
                ),
            );
        }
        Ok(Outcome::told(content))
    }

    pub(super) async fn write_file(&self, write: &WriteFile) -> Result<Outcome> {
        let old = self.text(&write.path).await?;
        let data = Bytes::from(write.content.clone());
        self.sandbox.write(&write.path, data, None).await?;
        let change = self.change(&write.path, old.as_ref(), Some(&Text::of(&write.content)));
        let done = match old {
            None => "created",
            Some(_) => "replaced",
        };
        Ok(Outcome {
            content: format!("{done} {} ({} bytes)", change.path, write.content.len()),
            changes: vec![change],
            ..Outcome::default()
        })
    }

    pub(super) async fn preview_write(&self, write: &WriteFile) -> Result<Vec<FileChange>> {
        let old = self.text(&write.path).await?;
        Ok(vec![self.change(
            &write.path,
            old.as_ref(),
            Some(&Text::of(&write.content)),
        )])
    }

    pub(super) async fn edit_file(&self, edit: &EditFile) -> Result<Outcome> {
        let old = self.text(&edit.path).await?;
        let request = host::EditFileRequest {
            sandbox_id: self.sandbox.id.clone(),
            path: edit.path.clone(),
            edits: vec![host::Edit {
                old_text: edit.old_text.clone(),
                new_text: edit.new_text.clone(),
                replace_all: edit.replace_all == Some(true),
            }],
            ..host::EditFileRequest::default()
        };
        let answer = self.sandbox.daemon.files().edit_file(call(request)).await;
        let places: u64 = answer
            .map_err(from_status)?
            .into_inner()
            .counts
            .iter()
            .sum();
        let new = self.text(&edit.path).await?;
        let change = self.change(&edit.path, old.as_ref(), new.as_ref());
        let places = match places {
            1 => "1 place".to_owned(),
            places => format!("{places} places"),
        };
        Ok(Outcome {
            content: format!("changed {places} in {}", change.path),
            changes: vec![change],
            ..Outcome::default()
        })
    }

    /// The edit as it will be, if the text is there as it is given.
    pub(super) async fn preview_edit(&self, edit: &EditFile) -> Result<Vec<FileChange>> {
        let old = self.text(&edit.path).await?;
        let Some(Text(Some(text))) = &old else {
            return Ok(Vec::new());
        };
        if edit.old_text.is_empty() || !text.contains(&edit.old_text) {
            return Ok(Vec::new());
        }
        let new = if edit.replace_all == Some(true) {
            text.replace(&edit.old_text, &edit.new_text)
        } else {
            text.replacen(&edit.old_text, &edit.new_text, 1)
        };
        Ok(vec![self.change(
            &edit.path,
            old.as_ref(),
            Some(&Text::of(&new)),
        )])
    }

    pub(super) async fn delete(&self, delete: &Delete) -> Result<Outcome> {
        let changes = self.preview_delete(delete).await?;
        let recursive = delete.recursive == Some(true);
        self.sandbox.remove(&delete.path, recursive, false).await?;
        Ok(Outcome {
            content: format!("deleted {}", self.sandbox.shown(&delete.path)),
            changes,
            ..Outcome::default()
        })
    }

    pub(super) async fn preview_delete(&self, delete: &Delete) -> Result<Vec<FileChange>> {
        let request = host::StatRequest {
            sandbox_id: self.sandbox.id.clone(),
            path: delete.path.clone(),
            follow: false,
        };
        let answer = self.sandbox.daemon.files().stat(call(request)).await;
        let file = answer.map_err(from_status)?.into_inner().file;
        let kind = file
            .and_then(|file| file.metadata)
            .map(|metadata| metadata.kind());
        if kind == Some(FileKind::File) {
            let old = self.text(&delete.path).await?.unwrap_or(Text(None));
            return Ok(vec![self.change(&delete.path, Some(&old), None)]);
        }
        Ok(vec![FileChange {
            path: self.sandbox.shown(&delete.path),
            kind: file_change::Kind::Deleted.into(),
            ..FileChange::default()
        }])
    }
}

/// Lines with their numbers.
fn numbered(text: &str, first: u64) -> String {
    let mut shown = String::with_capacity(text.len() + text.len() / 8);
    for (line, number) in text.split('\n').zip(first..) {
        let end = line.floor_char_boundary(LINE_BYTES);
        add(&mut shown, format_args!("{number:>6}\t{}", &line[..end]));
        if end < line.len() {
            add(
                &mut shown,
                format_args!(" [{} bytes more]", line.len() - end),
            );
        }
        shown.push('\n');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered() {
        assert_eq!(numbered("a\n\nb", 9), "     9\ta\n    10\t\n    11\tb\n");
        let long = numbered(&"x".repeat(3000), 1);
        assert!(long.ends_with("x [1000 bytes more]\n"), "{long}");
    }
}
