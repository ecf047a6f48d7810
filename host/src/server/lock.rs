//! One daemon per data directory.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use stigmer_sdk::{Error, ErrorCode, Result};

/// The data directory, to itself for as long as this lives. The kernel lets go
/// of it with the process, however that ends.
#[derive(Debug)]
pub(super) struct DataDir {
    _lock: File,
}

impl DataDir {
    /// Creates the directory if need be, closes it to other users, and locks it.
    ///
    /// # Errors
    /// `AlreadyExists`, naming the process, if another daemon has it.
    pub(super) fn lock(path: &Path) -> Result<Self> {
        let failed = |what: &str| {
            let message = format!("cannot {what} the data directory {}", path.display());
            move |error: std::io::Error| Error::internal(message, error)
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed("create"))?;
        // The socket and the registry in it are this user's alone.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
            .map_err(failed("close"))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("stigmer.lock"))
            .map_err(failed("lock"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(taken(path, &mut file)),
            Err(error) => return Err(failed("lock")(error.into())),
        }
        // For the message above, in another process.
        file.set_len(0).map_err(failed("lock"))?;
        file.rewind().map_err(failed("lock"))?;
        write!(file, "{}", std::process::id()).map_err(failed("lock"))?;
        Ok(Self { _lock: file })
    }
}

fn taken(path: &Path, file: &mut File) -> Error {
    let mut pid = String::new();
    // It is only read to be shown; what is not a number is not.
    let read = file.read_to_string(&mut pid);
    let holder = match (read, pid.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("another daemon, process {pid},"),
        _ => "another daemon".to_owned(),
    };
    Error::new(
        ErrorCode::AlreadyExists,
        format!(
            "{holder} serves the data directory {}; stop it with `stigmer local stop`, \
             or set STIGMER_DATA_DIR to another directory",
            path.display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_daemon() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let lock = DataDir::lock(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
        let error = DataDir::lock(&path).unwrap_err();
        assert_eq!(error.code(), ErrorCode::AlreadyExists);
        let holder = format!("process {},", std::process::id());
        assert!(error.message().contains(&holder), "{error}");
        drop(lock);
        DataDir::lock(&path).unwrap();
    }
}
