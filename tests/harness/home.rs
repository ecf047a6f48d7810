//! A directory of a test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{Cli, Daemon, binary, process};

/// What a test has to itself: a home, a data directory and a workspace, all
/// under one path that no other test has. It is in the environment of whatever
/// the test starts, since `HOME` is among what commands inherit, and so marks
/// the processes of this test.
#[derive(Debug)]
pub struct Home {
    dir: tempfile::TempDir,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// An empty one.
    ///
    /// # Panics
    /// If there is no place for it.
    #[must_use]
    pub fn new() -> Self {
        // Short, because the path of a socket may have 107 bytes at most.
        let dir = tempfile::Builder::new()
            .prefix("stigmer-")
            .tempdir()
            .expect("a temporary directory");
        let home = Self { dir };
        for part in ["home", "work"] {
            fs::create_dir(home.path(part)).expect("a directory");
        }
        home
    }

    /// Something in this directory.
    #[must_use]
    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// The data directory, which whoever needs it creates.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// A directory that exists, to be a workspace.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.path("work")
    }

    /// Writes a file, with its parents.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, below: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(below);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, content).expect("a file");
        path
    }

    /// `program` in an environment that holds next to nothing.
    #[expect(clippy::disallowed_methods, reason = "the harness starts the host")]
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", self.path("home"))
            .env("STIGMER_DATA_DIR", self.data())
            .env("SANDBOX_ROOT_DIR", self.work())
            // Discard: nobody is asked there, least of all this machine's own.
            .env("OLLAMA_BASE_URL", "http://127.0.0.1:9")
            .env("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
            .current_dir(self.dir.path());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }

    /// A run of `stigmer`.
    #[must_use]
    pub fn stigmer<A: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Cli {
        let mut command = self.command(binary::path());
        command.args(args);
        Cli::new(command)
    }

    /// A daemon that is ready.
    #[must_use]
    pub fn daemon(&self) -> Daemon {
        Daemon::start(self, &[])
    }

    /// The processes that were started under this home, and live.
    #[must_use]
    pub fn processes(&self) -> Vec<process::Process> {
        process::marked(&self.mark())
    }

    fn mark(&self) -> String {
        self.dir.path().to_str().expect("UTF-8").to_owned()
    }

    /// The names of everything in the data directory, sorted, as paths below it.
    #[must_use]
    pub fn data_entries(&self) -> Vec<String> {
        fn walk(dir: &Path, base: &Path, found: &mut Vec<String>) {
            let Ok(entries) = fs::read_dir(dir) else {
                return;
            };
            for entry in entries.flatten() {
                let path = entry.path();
                let name = path.strip_prefix(base).expect("below the base");
                found.push(name.to_string_lossy().into_owned());
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    walk(&path, base, found);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.data(), &self.data(), &mut found);
        found.sort();
        found
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let limit = Instant::now() + Duration::from_secs(10);
        let mut left = self.processes();
        while !left.is_empty() && Instant::now() < limit {
            if std::thread::panicking() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
            left = self.processes();
        }
        for process in &left {
            process.signal(Signal::KILL);
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "processes survived the test: {left:#?}");
        }
    }
}
