//! From what the kernel answers to what the contract says: one total mapping.

use rustix::io::Errno;
use stigmer_sdk::{Error, ErrorCode, Result};

/// The error for `errno` about `path`, as the caller wrote it.
pub(super) fn failure(errno: Errno, path: &str) -> Error {
    use ErrorCode::{
        AlreadyExists, Exhausted, InvalidPath, IsDirectory, NotADirectory, NotAFile, NotFound,
        PermissionDenied, TooLarge, Unavailable,
    };
    let (code, message) = match errno {
        Errno::NOENT => (NotFound, "no such file or directory"),
        Errno::NOTDIR => (NotADirectory, "not a directory"),
        Errno::ISDIR => (IsDirectory, "is a directory"),
        Errno::EXIST => (AlreadyExists, "already exists"),
        Errno::ACCESS | Errno::PERM => (PermissionDenied, "permission denied"),
        Errno::ROFS => (PermissionDenied, "the file system is read-only"),
        Errno::BUSY => (PermissionDenied, "in use by the system, as a mount is"),
        Errno::LOOP => (InvalidPath, "a loop of links, or more than 40 of them"),
        Errno::XDEV => (InvalidPath, "leads out of the sandbox"),
        Errno::NAMETOOLONG => (InvalidPath, "a name in it is too long, or all of it"),
        // What the file systems say of a name that they cannot hold.
        Errno::ILSEQ => (InvalidPath, "not a name that the file system can hold"),
        // Opening a socket, or a device that has no driver.
        Errno::NXIO | Errno::NODEV => (NotAFile, "neither a file nor a directory"),
        Errno::FBIG | Errno::OVERFLOW => (TooLarge, "larger than the file system allows"),
        Errno::NOSPC => (Exhausted, "no space left"),
        Errno::DQUOT => (Exhausted, "the disk quota is used up"),
        Errno::MLINK => (Exhausted, "the directory can hold no more directories"),
        Errno::MFILE | Errno::NFILE => (Exhausted, "too many open files"),
        Errno::NOMEM => (Exhausted, "out of memory"),
        Errno::NOTEMPTY => (
            Unavailable,
            "files are created in it as fast as they are removed",
        ),
        _ => return Error::internal("the file system failed", errno).with_path(path),
    };
    Error::new(code, message).with_path(path)
}

/// Names the path that a system call was about.
pub(super) trait At<T> {
    fn at(self, path: &str) -> Result<T>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, path: &str) -> Result<T> {
        self.map_err(|errno| failure(errno, path))
    }
}
