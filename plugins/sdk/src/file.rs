//! Files and directories, as the contract sees them.

use crate::{Error, ErrorCode, Result, SandboxPath};

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO, a socket or a device.
    Other,
}

impl FileKind {
    /// The name used in JSON: `file`, `directory`, `symlink`, `other`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::Other => "other",
        }
    }
}

/// The low nine bits of a Unix mode: `0o000` to `0o777`.
///
/// Set-user-id, set-group-id and sticky bits are not the file API's to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permissions(u16);

impl Permissions {
    /// Checks and wraps a mode.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] if a bit above the ninth is set.
    pub fn new(mode: u32) -> Result<Self> {
        match u16::try_from(mode) {
            Ok(bits) if bits <= 0o777 => Ok(Self(bits)),
            _ => Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("permissions {mode:#o} have bits other than rwxrwxrwx"),
            )),
        }
    }

    /// The permission bits of any mode, without the others.
    #[must_use]
    pub fn of_mode(mode: u32) -> Self {
        Self((mode & 0o777) as u16)
    }

    /// The nine bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        u32::from(self.0)
    }
}

/// Changes when the content of a file does. Opaque to everybody but its backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(String);

impl Version {
    /// Wraps what a backend made up.
    pub fn new(version: impl Into<String>) -> Self {
        Self(version.into())
    }

    /// What the backend made up.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is known of a file without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: FileKind,
    /// Bytes of content for a file; of no meaning for the rest.
    pub size: u64,
    /// Its permission bits, where there are any.
    pub permissions: Option<Permissions>,
    /// When its content last changed, in milliseconds since 1970.
    pub modified_ms: Option<u64>,
    /// Changes when the content does; `None` for what is not a file.
    pub version: Option<Version>,
    /// Where a link points, as written, with U+FFFD for what is not UTF-8.
    pub target: Option<String>,
}

/// The answer of [`Sandbox::stat`](crate::Sandbox::stat).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Absolute, and free of links if they were followed.
    pub path: SandboxPath,
    /// What is there.
    pub metadata: Metadata,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name. One that is not UTF-8 is shown with U+FFFD in it, and only
    /// commands can reach that file.
    pub name: String,
    /// Of the entry itself: links are not followed.
    pub metadata: Metadata,
}

/// A piece of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteRange {
    /// Bytes to skip. Past the end there is nothing, which is no error.
    pub offset: u64,
    /// Bytes at most; `None` to the end.
    pub length: Option<u64>,
}

/// What a write does to what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// Replaces the whole file, or creates it.
    #[default]
    Replace,
    /// Replaces the file if it still has this version, and fails with
    /// [`ErrorCode::Conflict`] otherwise, also if it is gone.
    ReplaceVersion(Version),
    /// Creates the file, and fails with [`ErrorCode::AlreadyExists`] if
    /// anything has that name.
    CreateNew,
    /// Adds to the end of the file, or creates it.
    Append,
}

/// How to write a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// What happens to what is there.
    pub mode: WriteMode,
    /// The permissions the file has afterwards. `None`: a file that is replaced
    /// keeps its own, and a new one gets the backend's default.
    pub permissions: Option<Permissions>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_have_nine_bits() {
        assert_eq!(Permissions::new(0o755).unwrap().bits(), 0o755);
        assert!(Permissions::new(0o4755).is_err());
        assert!(Permissions::new(u32::MAX).is_err());
        assert_eq!(Permissions::of_mode(0o104_755).bits(), 0o755);
    }
}
