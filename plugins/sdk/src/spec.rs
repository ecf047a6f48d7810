//! What a sandbox is made from, and what can be asked of a whole one.

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use crate::{EnvName, EnvValue, Error, ErrorCode, Metadata, Result, SandboxPath};

macro_rules! opaque_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// 1 to 256 bytes of printable ASCII without space, so that it can
        /// stand in a header, a log line and a command line as it is.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps an id.
            ///
            /// # Errors
            /// [`ErrorCode::InvalidArgument`] if it has another form.
            pub fn new(id: impl Into<String>) -> Result<Self> {
                let id = id.into();
                if id.is_empty() || id.len() > 256 || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(Error::new(
                        ErrorCode::InvalidArgument,
                        format!(concat!("'{}' is not the id of a ", $what), id.chars().take(80).collect::<String>().escape_debug()),
                    ));
                }
                Ok(Self(id))
            }

            /// The id.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

opaque_id! {
    /// Identifies a sandbox for as long as it exists: minted by its backend,
    /// opaque to the host, and enough to attach again after any restart.
    SandboxId, "sandbox"
}

opaque_id! {
    /// Identifies a snapshot.
    SnapshotId, "snapshot"
}

/// What a sandbox may use. `None` leaves the backend's own default.
///
/// A backend that cannot enforce one that is given answers
/// [`ErrorCode::Unsupported`]: a limit is never taken and then ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Thousandths of a processor.
    pub cpu_millis: Option<NonZeroU32>,
    /// Bytes of memory. The backend says whether of a process or of them all.
    pub memory_bytes: Option<NonZeroU64>,
    /// Bytes of disk. The backend says whether of a file or of them all.
    pub disk_bytes: Option<NonZeroU64>,
    /// Processes at a time.
    pub processes: Option<NonZeroU32>,
    /// How long the sandbox may exist. The host enforces it for backends that
    /// do not.
    pub lifetime: Option<Duration>,
    /// How long it may go unused. Enforced as `lifetime` is.
    pub idle: Option<Duration>,
}

/// What a sandbox's commands may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// Nothing.
    None,
    /// These and nothing else: `example.org`, `*.example.org:443`.
    Hosts(Vec<String>),
    /// Whatever the machine it runs on reaches.
    Unrestricted,
}

/// What to create a sandbox from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxSpec {
    /// An image, a template or a directory: whatever this backend starts from.
    pub source: Option<String>,
    /// Added to the backend's documented minimum, for every command.
    pub env: BTreeMap<EnvName, EnvValue>,
    /// What it may use.
    pub limits: Limits,
    /// What its commands may reach. `None`: the backend's own default. One that
    /// cannot hold them to it answers [`ErrorCode::Unsupported`].
    pub network: Option<Network>,
    /// For whoever created it, to find it by.
    pub labels: BTreeMap<String, String>,
    /// What only this backend understands, as a JSON object. An unknown key is
    /// [`ErrorCode::InvalidArgument`].
    pub options: String,
}

impl Default for SandboxSpec {
    fn default() -> Self {
        Self {
            source: None,
            env: BTreeMap::new(),
            limits: Limits::default(),
            network: None,
            labels: BTreeMap::new(),
            options: "{}".to_owned(),
        }
    }
}

/// What a client must know of a sandbox to use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxInfo {
    /// Enough to attach again.
    pub id: SandboxId,
    /// Absolute. Where commands start and relative paths begin.
    pub workspace: SandboxPath,
    /// The words that precede one line of shell: `/bin/sh`, `-c`. Empty if the
    /// sandbox has no shell.
    pub shell: Vec<String>,
}

/// Why results of a search are missing. What was found is returned all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Truncation {
    /// There are more than were asked for.
    Results,
    /// Time ran out.
    Time,
    /// Something could not be read.
    Unreadable,
}

/// Which files to find.
///
/// In a pattern `*` and `?` stay within a name, `**` crosses names but never
/// enters one with a leading dot, and there are `[a-z]`, `[!x]`, `[^x]` and
/// nested `{a,b}`. Without a `/` a pattern matches the name at any depth,
/// hidden directories included; with one, the path below `root`, and a leading
/// `/` means `root` itself. A leading dot must be written. A trailing `/`
/// matches nothing, and `..` is [`ErrorCode::InvalidPattern`].
///
/// Links count if what they lead to stays below `root`, and are not entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobQuery {
    /// The directory to search.
    pub root: SandboxPath,
    /// What to find in it.
    pub pattern: String,
    /// Directories too, not only files.
    pub directories: bool,
    /// Names of directories not to enter.
    pub exclude: Vec<String>,
    /// Leave out what `.gitignore` files below `root` say.
    pub gitignore: bool,
    /// Results at most. Meeting it exactly is not truncation.
    pub max_results: NonZeroU32,
    /// Time at most.
    pub max_time: Duration,
}

/// What a glob found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GlobResults {
    /// Below `root`, with `/` between names, sorted, each with its metadata
    /// (of what a link leads to).
    pub files: Vec<(String, Metadata)>,
    /// Why there is not more.
    pub truncation: Option<Truncation>,
}

/// Which lines to find.
///
/// Hidden files are searched, and files with a NUL in their first 8 KiB are
/// skipped. Links are not followed. No match is not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrepQuery {
    /// A file, or a directory with everything under it.
    pub root: SandboxPath,
    /// A line matches if it contains any of these.
    pub patterns: Vec<String>,
    /// Expressions without look-around or back-references. Otherwise literals.
    pub regex: bool,
    /// Whether `a` matches `A`.
    pub ignore_case: bool,
    /// Only files that this pattern matches, by the rules of [`GlobQuery`],
    /// with hidden names matched as others are.
    pub files: Option<String>,
    /// Names of directories not to enter, unless they are `root`.
    pub exclude: Vec<String>,
    /// Leave out what `.gitignore` files below `root` say.
    pub gitignore: bool,
    /// Lines of context before a match.
    pub before: u32,
    /// Lines of context after it.
    pub after: u32,
    /// Matches at most, over all files. Meeting it exactly is not truncation.
    pub max_results: NonZeroU32,
    /// Time at most.
    pub max_time: Duration,
}

/// A line that matches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Match {
    /// Below `root`; empty if `root` is the file.
    pub path: String,
    /// Counts from one.
    pub line: u64,
    /// Without its line ending; U+FFFD for what is not UTF-8; at most 64 KiB.
    pub text: String,
    /// Lines before it, as `text`.
    pub before: Vec<String>,
    /// Lines after it, as `text`.
    pub after: Vec<String>,
}

/// What a grep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrepResults {
    /// Sorted by path and line.
    pub matches: Vec<Match>,
    /// Why there is not more.
    pub truncation: Option<Truncation>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_printable_and_short() {
        #[track_caller]
        fn check(id: &str, valid: bool) {
            assert_eq!(SandboxId::new(id).is_ok(), valid, "{id:?}");
        }
        check("fs-01HX", true);
        check("filesystem:01HX", true);
        check("", false);
        check("a b", false);
        check("a\n", false);
        check("ż", false);
        check(&"a".repeat(256), true);
        check(&"a".repeat(257), false);
    }
}
