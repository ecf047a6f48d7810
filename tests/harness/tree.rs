//! Trees of files, to be compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Directory,
    File { mode: u32, content: Vec<u8> },
    Link { target: PathBuf },
}

/// Everything below a directory, by the path below it.
///
/// # Panics
/// If something cannot be read.
#[must_use]
pub fn read(root: &Path) -> BTreeMap<PathBuf, Node> {
    let mut nodes = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("metadata");
            let node = if metadata.is_dir() {
                open.push(path.clone());
                Node::Directory
            } else if metadata.is_symlink() {
                Node::Link {
                    target: fs::read_link(&path).expect("a link"),
                }
            } else {
                Node::File {
                    mode: metadata.permissions().mode() & 0o777,
                    content: fs::read(&path).expect("a file"),
                }
            };
            let below = path.strip_prefix(root).expect("below the root");
            nodes.insert(below.to_owned(), node);
        }
    }
    nodes
}

/// Fails with the first few differences, rather than with both trees.
///
/// # Panics
/// If the two are not the same.
#[track_caller]
pub fn assert_same(left: &Path, right: &Path) {
    let (a, b) = (read(left), read(right));
    let differences: Vec<_> = a
        .keys()
        .chain(b.keys())
        .filter(|path| a.get(*path) != b.get(*path))
        .take(10)
        .collect();
    assert!(
        differences.is_empty(),
        "{} and {} differ in {differences:?}",
        left.display(),
        right.display()
    );
}
