//! What is written down of a sandbox, so that it can be attached after the
//! host restarted.
//!
//! ```text
//! <data dir>/filesystem/<id>/sandbox.json   this
//! <data dir>/filesystem/<id>/workspace/     unless the workspace is somebody's own directory
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use stigmer_sdk::{Error, ErrorCode, Result, SandboxId};

/// A name that no id has, for what is being deleted.
const DELETING: &str = ".deleting-";

/// Everything needed to open a sandbox again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// Absolute. `None`: the `workspace` beside this file, which goes with the
    /// sandbox. A directory that somebody named stays.
    pub(crate) workspace: Option<PathBuf>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) file_bytes: Option<u64>,
}

/// The directory of all manifests.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            dir: data_dir.join("filesystem"),
        }
    }

    /// Where the private workspace of a sandbox is.
    pub(crate) fn workspace(&self, id: &SandboxId) -> PathBuf {
        self.dir.join(id.as_str()).join("workspace")
    }

    /// Writes a new sandbox down, with its private workspace if it has one.
    pub(crate) fn create(&self, id: &SandboxId, manifest: &Manifest) -> Result<()> {
        let dir = self.dir_of(id)?;
        self.make(&dir)
            .map_err(|error| refused("make a directory for the sandbox", &dir, error))?;
        write(&dir, manifest).map_err(|error| {
            // This directory was made just now. What is left of it, `recover` would find; this is sooner.
            remove(&dir).ok();
            refused("write down the sandbox", &dir, error)
        })
    }

    /// Makes the directory of a new sandbox, and fails if it is there: it is
    /// somebody's.
    fn make(&self, dir: &Path) -> io::Result<()> {
        let mut private = fs::DirBuilder::new();
        // Its files may hold secrets of the sandbox's environment.
        private.mode(0o700);
        match private.create(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                private.recursive(true).create(&self.dir)?;
                private.recursive(false).create(dir)
            }
            made => made,
        }
    }

    /// The directory of a sandbox: always an entry of ours.
    fn dir_of(&self, id: &SandboxId) -> Result<PathBuf> {
        if is_plain(id.as_str()) {
            return Ok(self.dir.join(id.as_str()));
        }
        Err(crate::sandbox::no_sandbox(id.as_str()))
    }

    /// What was written down of a sandbox, if there is one.
    pub(crate) fn load(&self, id: &SandboxId) -> Result<Option<Manifest>> {
        if !is_plain(id.as_str()) {
            return Ok(None);
        }
        let path = self.dir.join(id.as_str()).join("sandbox.json");
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| {
                Error::internal(format!("cannot make sense of {}", path.display()), error)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(refused("read", &path, error)),
        }
    }

    /// Forgets a sandbox at once, and deletes what was its own.
    pub(crate) fn delete(&self, id: &SandboxId) -> Result<()> {
        let dir = self.dir_of(id)?;
        let doomed = self.dir.join(format!("{DELETING}{id}"));
        match fs::rename(&dir, &doomed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(|error| refused("delete the sandbox", &dir, error))?,
        }
        remove(&doomed).map_err(|error| refused("delete the sandbox", &doomed, error))
    }

    /// The ids of all sandboxes, after deleting what a crash left half made or
    /// half deleted.
    pub(crate) fn recover(&self) -> Result<Vec<SandboxId>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(refused("list", &self.dir, error)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| refused("list", &self.dir, error))?;
            let name = entry.file_name();
            let id = name
                .to_str()
                .filter(|name| is_plain(name))
                .and_then(|name| SandboxId::new(name).ok());
            match id {
                Some(id) if entry.path().join("sandbox.json").exists() => ids.push(id),
                _ => remove(&entry.path())
                    .map_err(|error| refused("delete", &entry.path(), error))?,
            }
        }
        Ok(ids)
    }
}

/// Fills the directory of a new sandbox.
fn write(dir: &Path, manifest: &Manifest) -> io::Result<()> {
    if manifest.workspace.is_none() {
        fs::DirBuilder::new()
            .mode(0o755)
            .create(dir.join("workspace"))?;
    }
    // Last, because a directory without it is one whose creation was cut off.
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(dir.join("sandbox.new"))?;
    serde_json::to_writer(file, manifest)?;
    fs::rename(dir.join("sandbox.new"), dir.join("sandbox.json"))
}

/// Whether an id can be the name of a directory of ours: what we mint is.
fn is_plain(id: &str) -> bool {
    !id.starts_with('.')
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Deletes a tree, directories that were made read-only included.
fn remove(path: &Path) -> io::Result<()> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = rustix::fs::open(
        parent,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    Ok(crate::files::remove_tree(parent, name, true)?)
}

fn refused(what: &str, path: &Path, error: io::Error) -> Error {
    let code = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorCode::PermissionDenied
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::Exhausted,
        _ => ErrorCode::Unavailable,
    };
    Error::new(code, format!("cannot {what} at {}", path.display())).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            workspace: None,
            env: BTreeMap::new(),
            memory_bytes: Some(1 << 30),
            file_bytes: None,
        }
    }

    #[test]
    fn a_sandbox_is_written_found_and_forgotten() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::new(data.path());
        let id = SandboxId::new("abc").unwrap();
        assert_eq!(store.load(&id).unwrap(), None);
        store.create(&id, &manifest()).unwrap();
        assert_eq!(store.load(&id).unwrap(), Some(manifest()));
        assert!(store.workspace(&id).is_dir());
        // An id that is taken is refused, and what has it is left alone.
        assert!(store.create(&id, &manifest()).is_err());
        assert_eq!(store.load(&id).unwrap(), Some(manifest()));
        assert!(store.workspace(&id).is_dir());
        store.delete(&id).unwrap();
        store.delete(&id).unwrap();
        assert_eq!(store.load(&id).unwrap(), None);
        assert_eq!(
            fs::read_dir(data.path().join("filesystem"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn what_a_crash_left_half_done_is_deleted() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::new(data.path());
        let id = SandboxId::new("whole").unwrap();
        store.create(&id, &manifest()).unwrap();
        for litter in ["cut-off/workspace", ".deleting-old/workspace/deep"] {
            fs::create_dir_all(data.path().join("filesystem").join(litter)).unwrap();
        }
        assert_eq!(store.recover().unwrap(), [id]);
        assert_eq!(
            fs::read_dir(data.path().join("filesystem"))
                .unwrap()
                .count(),
            1
        );
    }

    #[test]
    fn an_id_never_leads_elsewhere() {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join("sandbox.json"), "{}").unwrap();
        for id in ["..", ".", "a/../..", "/etc"] {
            assert_eq!(
                Store::new(data.path())
                    .load(&SandboxId::new(id).unwrap())
                    .unwrap(),
                None
            );
        }
    }
}
