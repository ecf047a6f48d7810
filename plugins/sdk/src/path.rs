//! Paths in a sandbox.

use std::fmt;

use crate::{Error, ErrorCode, Result};

/// A path in a sandbox: not empty, without NUL, at most 4,095 bytes of UTF-8.
///
/// It is `/`-separated and means the same to the file API as to a command in
/// that sandbox; a relative one starts at the workspace. Nothing here says
/// that it stays inside: `..`, links and absolute paths are the backend's to
/// resolve, against the sandbox's roots and by descriptor, because a check of
/// the text alone loses the race against a rename.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxPath(String);

impl SandboxPath {
    /// The most bytes a path may have: Linux' `PATH_MAX` without its NUL.
    pub const MAX_BYTES: usize = 4095;

    /// Checks and wraps a path.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidPath`] if it is empty, has a NUL byte, or is longer
    /// than [`Self::MAX_BYTES`].
    pub fn new(path: impl Into<String>) -> Result<Self> {
        let path = path.into();
        let problem = if path.is_empty() {
            "a path may not be empty".to_owned()
        } else if path.contains('\0') {
            "a path may not contain a NUL byte".to_owned()
        } else if path.len() > Self::MAX_BYTES {
            // The path itself stays out of the message: it is as long as the problem.
            let bytes = path.len();
            return Err(Error::new(
                ErrorCode::InvalidPath,
                format!(
                    "a path may have at most {} bytes, this one has {bytes}",
                    Self::MAX_BYTES
                ),
            ));
        } else {
            return Ok(Self(path));
        };
        Err(Error::new(ErrorCode::InvalidPath, problem).with_path(path))
    }

    /// The workspace itself: `.`.
    #[must_use]
    pub fn workspace() -> Self {
        Self(".".to_owned())
    }

    /// The path as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it starts at the root rather than at the workspace.
    #[must_use]
    pub fn is_absolute(&self) -> bool {
        self.0.starts_with('/')
    }

    /// This path, a `/` where one is needed, and `below`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn join(&self, below: &str) -> Result<Self> {
        let separator = if self.0.ends_with('/') || below.is_empty() {
            ""
        } else {
            "/"
        };
        Self::new(format!("{}{separator}{below}", self.0))
    }
}

impl fmt::Display for SandboxPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<&str> for SandboxPath {
    type Error = Error;

    fn try_from(path: &str) -> Result<Self> {
        Self::new(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_sandbox_could_name_is_refused() {
        #[track_caller]
        fn check(path: &str, valid: bool) {
            match SandboxPath::new(path) {
                Ok(parsed) => assert!(valid && parsed.as_str() == path),
                Err(error) => assert!(!valid && error.code() == ErrorCode::InvalidPath),
            }
        }
        check("", false);
        check("a\0b", false);
        check(&"a".repeat(4096), false);
        check(&"a".repeat(4095), true);
        check("a\nb", true);
        check("../..", true);
        check("/", true);
        check("żółć 🦀", true);
    }

    #[test]
    fn join_adds_one_separator() {
        #[track_caller]
        fn check(path: &str, below: &str, joined: &str) {
            assert_eq!(
                SandboxPath::new(path)
                    .unwrap()
                    .join(below)
                    .unwrap()
                    .as_str(),
                joined
            );
        }
        check("/", "a", "/a");
        check("a", "b/c", "a/b/c");
        check("a", "", "a");
    }
}
