//! A tree in memory, to search in tests.

use std::collections::BTreeMap;
use std::io::Cursor;

use super::{Entry, Node, Tree};
use crate::{Error, ErrorCode, FileKind, Metadata, Result};

/// Files by their paths. A path that ends in `/` is an empty directory, content
/// `-> path` a link, and content `!` a file or a directory that cannot be read.
pub(super) struct Memory(BTreeMap<String, Vec<u8>>);

impl Memory {
    pub(super) fn new<B: AsRef<[u8]>>(files: &[(&str, B)]) -> Self {
        let files = files.iter();
        Self(
            files
                .map(|(path, content)| ((*path).to_owned(), content.as_ref().to_vec()))
                .collect(),
        )
    }

    fn find(&self, path: &str) -> Option<(FileKind, &[u8])> {
        if let Some(content) = self.0.get(path) {
            let kind = match content.starts_with(b"-> ") {
                true => FileKind::Symlink,
                false => FileKind::File,
            };
            return Some((kind, content));
        }
        let within = format!("{path}/");
        let is_directory = path.is_empty() || self.0.keys().any(|key| key.starts_with(&within));
        is_directory.then_some((FileKind::Directory, &[]))
    }
}

fn error(code: ErrorCode) -> Error {
    Error::new(code, code.as_str())
}

fn join(dir: &str, name: &str) -> String {
    format!("{dir}/{name}").trim_start_matches('/').to_owned()
}

impl Tree for Memory {
    type Dir = String;
    type File = Cursor<Vec<u8>>;

    fn root(&self) -> Result<Node<String, Cursor<Vec<u8>>>> {
        // One file without a name is the root itself.
        match self.0.get("") {
            Some(content) => Ok(Node::File(Cursor::new(content.clone()))),
            None => Ok(Node::Directory(String::new())),
        }
    }

    fn enter(&self, dir: &String, name: &str) -> Result<String> {
        Ok(join(dir, name))
    }

    fn list(&self, dir: &String, entries: &mut Vec<Entry>) -> Result<()> {
        let prefix = join(dir, "");
        let below = self.0.keys().filter_map(|key| key.strip_prefix(&prefix));
        let mut names: Vec<_> = below
            .filter_map(|rest| rest.split('/').next())
            .filter(|name| !name.is_empty())
            .collect();
        names.dedup();
        if names.contains(&"!") {
            return Err(error(ErrorCode::PermissionDenied));
        }
        for name in names {
            let found = self.find(&join(dir, name));
            let (kind, _) = found.ok_or_else(|| error(ErrorCode::NotFound))?;
            entries.push(Entry {
                name: name.to_owned(),
                kind,
                metadata: None,
            });
        }
        Ok(())
    }

    fn open(&self, dir: &String, name: &str) -> Result<Cursor<Vec<u8>>> {
        match self.find(&join(dir, name)) {
            Some((FileKind::File, b"!")) => Err(error(ErrorCode::PermissionDenied)),
            Some((FileKind::File, content)) => Ok(Cursor::new(content.to_vec())),
            _ => Err(error(ErrorCode::NotFound)),
        }
    }

    fn metadata(&self, dir: &String, entry: &Entry) -> Result<Option<Metadata>> {
        let Some((mut kind, mut content)) = self.find(&join(dir, &entry.name)) else {
            return Err(error(ErrorCode::NotFound));
        };
        if let Some(target) = content.strip_prefix(b"-> ") {
            let Some(found) = self.find(str::from_utf8(target).unwrap()) else {
                return Ok(None);
            };
            (kind, content) = found;
        }
        Ok(Some(Metadata {
            kind,
            size: content.len() as u64,
            permissions: None,
            modified_ms: None,
            version: None,
            target: None,
        }))
    }
}
