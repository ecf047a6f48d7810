//! One implementation of `glob` and `grep`, for whatever holds the files.
//!
//! The host runs it over `list` and `read` of any backend, and a backend with a
//! shorter way to its files runs it over a [`Tree`] of its own, so that both
//! find the same. [`walk`] goes through the directories on a few threads,
//! [`pattern`] says which names match ([`names`], one at a time) and which
//! directories cannot hold a match, [`ignore`] knows the `.gitignore` files on the way, and [`budget`] is
//! what all threads share: how much may still be found, and until when.
//!
//! Everything here blocks, on the tree's own calls and on nothing else.

mod budget;
mod glob;
mod grep;
mod ignore;
mod lines;
#[cfg(test)]
mod memory;
mod names;
mod pattern;
mod walk;

use std::io::Read;

use crate::{FileKind, Metadata, Result};

pub use self::glob::glob;
pub use self::grep::grep;

/// Files to search, from the root of a query downwards.
///
/// Nothing is ever opened through a link: where a directory or a file has
/// become one since it was listed, that is an error. Of the errors, those that
/// say that something is gone or is something else by now are passed over;
/// `PermissionDenied`, `InvalidPath`, `TooLarge` and `Internal` make the result
/// incomplete; all others end the search.
pub trait Tree: Sync {
    /// A directory, cheap to list and to open names in. A search keeps few of
    /// them at a time.
    type Dir: Send + Sync;
    /// A file's content. An error of the contract reaches the search through
    /// [`std::io::Error::other`].
    type File: Read;

    /// What the query's root names, links followed.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `NotAFile`, `InvalidPath`: the search fails
    /// with what this fails with.
    fn root(&self) -> Result<Node<Self::Dir, Self::File>>;

    /// The directory with this name.
    ///
    /// # Errors
    /// As for the trait.
    fn enter(&self, dir: &Self::Dir, name: &str) -> Result<Self::Dir>;

    /// Adds the entries of a directory, in any order, without `.` and `..`.
    ///
    /// # Errors
    /// As for the trait. What was added until then is searched.
    fn list(&self, dir: &Self::Dir, entries: &mut Vec<Entry>) -> Result<()>;

    /// The file with this name.
    ///
    /// # Errors
    /// As for the trait.
    fn open(&self, dir: &Self::Dir, name: &str) -> Result<Self::File>;

    /// What an entry is, or what it leads to if it is a link: `None` if that is
    /// not below the root of the query, or nothing.
    ///
    /// # Errors
    /// As for the trait.
    fn metadata(&self, dir: &Self::Dir, entry: &Entry) -> Result<Option<Metadata>>;
}

/// What a query starts at.
#[derive(Debug)]
pub enum Node<D, F> {
    /// A directory.
    Directory(D),
    /// A regular file.
    File(F),
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, with U+FFFD for what is not UTF-8.
    pub name: String,
    /// Of the entry itself: links are not followed.
    pub kind: FileKind,
    /// Of the entry itself, if listing it told.
    pub metadata: Option<Metadata>,
}
