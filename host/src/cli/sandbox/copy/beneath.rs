//! Writing below one directory of this machine, whatever names a sandbox makes
//! up and whatever links are in the way.
//!
//! Every step goes through the descriptor of the directory above it, with
//! `O_NOFOLLOW`: there is no path that could be swapped between a check and its
//! use. The destination itself is the user's own choice, and may be a link.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

/// A directory to write below.
#[derive(Debug)]
pub(super) struct Beneath {
    root: OwnedFd,
    /// The directory opened last, because files come directory by directory.
    last: Option<(Vec<String>, OwnedFd)>,
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

impl Beneath {
    /// Opens the destination.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let root = openat(CWD, root, DIRECTORY, Mode::empty())?;
        Ok(Self { root, last: None })
    }

    /// Creates a directory and those above it, or finds that it is there.
    pub(super) fn make_dir(&mut self, names: &[String]) -> io::Result<()> {
        self.directory(names).map(|_| ())
    }

    /// Creates a file, or empties the one that has this name.
    pub(super) fn create(
        &mut self,
        names: &[String],
        permissions: Option<u32>,
    ) -> io::Result<File> {
        let Some((name, above)) = names.split_last() else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        check(name)?;
        let directory = self.directory(above)?;
        // Without O_TRUNC, until it is known to be a file; without waiting, if
        // it is a FIFO that nobody reads.
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file =
            openat(directory, name.as_str(), flags, Mode::from_raw_mode(0o666)).map_err(explain)?;
        let file = File::from(file);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other(
                "it is neither a file nor a directory here",
            ));
        }
        file.set_len(0)?;
        if let Some(permissions) = permissions {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(permissions & 0o777))?;
        }
        Ok(file)
    }

    fn directory(&mut self, names: &[String]) -> io::Result<&OwnedFd> {
        if names.is_empty() {
            return Ok(&self.root);
        }
        if self.last.as_ref().is_none_or(|(last, _)| last != names) {
            let mut directory: Option<OwnedFd> = None;
            for name in names {
                check(name)?;
                let above = directory.as_ref().unwrap_or(&self.root);
                match mkdirat(above, name.as_str(), Mode::from_raw_mode(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                let below = openat(
                    above,
                    name.as_str(),
                    DIRECTORY | OFlags::NOFOLLOW,
                    Mode::empty(),
                );
                directory = Some(below.map_err(explain)?);
            }
            self.last = directory.map(|directory| (names.to_vec(), directory));
        }
        // It was set above, or before.
        self.last
            .as_ref()
            .map(|(_, directory)| directory)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A link answers ELOOP, or ENOTDIR where a directory is wanted.
fn explain(error: Errno) -> io::Error {
    match error {
        Errno::LOOP => io::Error::other("it is a link here, which is not followed"),
        Errno::NOTDIR => io::Error::other("it is not a directory here, and links are not followed"),
        error => error.into(),
    }
}

fn check(name: &str) -> io::Result<()> {
    if is_safe(name) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "it is no name for a file",
    ))
}

/// Whether a name from a sandbox may be used here: one name, and nothing that
/// a terminal or a script would stumble over.
pub(super) fn is_safe(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains('/') && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn names(path: &str) -> Vec<String> {
        path.split('/').map(str::to_owned).collect()
    }

    #[test]
    fn hostile_names_are_refused() {
        #[track_caller]
        fn check(name: &str, safe: bool) {
            assert_eq!(is_safe(name), safe);
        }
        check("a", true);
        check("...", true);
        check("-rf", true);
        check("żółw 🦀", true);
        check("", false);
        check(".", false);
        check("..", false);
        check("a/b", false);
        check("/etc/passwd", false);
        check("a\nb", false);
        check("a\0b", false);
        check("\x1b[2J", false);
    }

    #[test]
    fn files_are_created_with_their_directories_and_modes() {
        let dir = tempfile::tempdir().unwrap();
        let mut beneath = Beneath::open(dir.path()).unwrap();
        beneath
            .create(&names("a/b/run.sh"), Some(0o755))
            .unwrap()
            .write_all(b"new")
            .unwrap();
        beneath.create(&names("a/b/other"), Some(0o640)).unwrap();
        beneath.make_dir(&names("a/empty")).unwrap();
        let path = dir.path().join("a/b/run.sh");
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o755
        );
        assert!(dir.path().join("a/empty").is_dir());
    }

    #[test]
    fn what_is_there_is_replaced_and_not_added_to() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "a long content").unwrap();
        let mut beneath = Beneath::open(dir.path()).unwrap();
        beneath
            .create(&names("a"), None)
            .unwrap()
            .write_all(b"new")
            .unwrap();
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"new");
    }

    #[test]
    fn no_link_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let victim = outside.path().join("victim");
        std::fs::write(&victim, "safe").unwrap();
        symlink(&victim, dir.path().join("file")).unwrap();
        symlink(outside.path(), dir.path().join("dir")).unwrap();
        let mut beneath = Beneath::open(dir.path()).unwrap();
        assert!(beneath.create(&names("file"), None).is_err());
        assert!(beneath.create(&names("dir/new"), None).is_err());
        assert!(beneath.create(&names("../victim"), None).is_err());
        assert!(beneath.make_dir(&names("dir/new")).is_err());
        assert_eq!(std::fs::read(&victim).unwrap(), b"safe");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_fifo_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(
            CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        // With a reader it can be opened, and must still be refused.
        let reader = openat(CWD, &fifo, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
        let mut beneath = Beneath::open(dir.path()).unwrap();
        assert!(beneath.create(&names("fifo"), None).is_err());
        drop(reader);
        assert!(beneath.create(&names("fifo"), None).is_err());
    }
}
