//! The `.gitignore` files on the way from the root to a name.

use std::io::Read;
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// The name of the file.
pub(super) const NAME: &str = ".gitignore";

/// Bytes read of one. More than anybody writes by hand.
const MAX_BYTES: u64 = 1024 * 1024;

/// What one file says, and those above it. The nearest that says anything of a
/// name decides.
#[derive(Debug)]
pub(super) struct Ignore {
    rules: Gitignore,
    /// Bytes of a path that lead to the file's directory.
    prefix: usize,
    above: Option<Arc<Ignore>>,
}

impl Ignore {
    /// Reads the file of the directory `dir`, which is a path below the root.
    /// A line that is no pattern is passed over, as git does.
    pub(super) fn read(
        file: impl Read,
        dir: &str,
        above: Option<Arc<Self>>,
    ) -> std::io::Result<Self> {
        let mut text = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let mut rules = GitignoreBuilder::new(".");
        for line in text.trim_start_matches('\u{feff}').lines() {
            // The error is of this line alone.
            drop(rules.add_line(None, line));
        }
        Ok(Self {
            rules: rules.build().unwrap_or_else(|_| Gitignore::empty()),
            prefix: if dir.is_empty() { 0 } else { dir.len() + 1 },
            above,
        })
    }

    /// Whether to leave out a path below the root.
    pub(super) fn excludes(&self, path: &str, is_directory: bool) -> bool {
        let mut nearest = Some(self);
        while let Some(ignore) = nearest {
            match ignore.rules.matched(&path[ignore.prefix..], is_directory) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => nearest = ignore.above.as_deref(),
            }
        }
        false
    }
}
