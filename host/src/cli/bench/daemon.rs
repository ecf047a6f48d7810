//! The daemon that is measured: a process of its own, with a data directory
//! that goes with it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use stigmer_sdk::wire::{host, sandbox};

use super::broken;
use crate::cli::daemon::Daemon;
use crate::cli::failure::{Failure, Result};
use crate::config::{self, Entry, Flags};

/// A daemon and a connection to it.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) daemon: Daemon,
    child: Child,
    dir: PathBuf,
}

impl Bench {
    /// Starts a daemon that holds so many bytes of touched memory besides.
    pub(super) async fn start(ballast: u64) -> Result<Self> {
        let dir = scratch()?;
        let program =
            std::env::current_exe().map_err(|error| broken("find this program", &error))?;
        let mut child = process(&program.to_string_lossy())
            .args([
                "--quiet",
                "server",
                "--mode",
                "local",
                "--port",
                "0",
                "--log-level",
                "error",
            ])
            .arg("--data-dir")
            .arg(&dir)
            .args(["--ballast", &ballast.to_string()])
            .env_remove("MODE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| broken("start a daemon", &error))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout)
                .read_line(&mut line)
                .map_err(|error| broken("hear from the daemon", &error))?;
        }
        if line.is_empty() {
            return Err(Failure::failed(
                "the daemon that was to be measured did not start",
            ));
        }
        let flags = Flags {
            mode: Some("local".to_owned()),
            data_dir: Some(dir.clone()),
            ..Flags::default()
        };
        let config = config::load(Entry::Local, &flags, &config::Env::new())
            .map_err(Failure::configuration)?;
        let daemon = Daemon::connect(&config).await?;
        Ok(Self { daemon, child, dir })
    }

    /// A new sandbox's id.
    pub(super) async fn sandbox(&self) -> Result<host::Sandbox> {
        let request = host::CreateSandboxRequest {
            spec: Some(sandbox::SandboxSpec {
                options: "{}".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let created = self.daemon.sandboxes().create(request).await?.into_inner();
        created
            .sandbox
            .ok_or_else(|| Failure::failed("the daemon created no sandbox"))
    }

    /// Memory of the daemon in MiB: `VmRSS` or `VmHWM`.
    pub(super) fn memory(&self, field: &str) -> f64 {
        memory(self.child.id(), field).unwrap_or(f64::NAN)
    }

    /// Its data directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Our own child, and not waited for yet: the number is still its own.
            kill_process(pid, Signal::TERM).ok();
        }
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// A field of `/proc/PID/status`, in MiB.
pub(super) fn memory(pid: u32, field: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// A process for comparison, started as any program would.
pub(super) fn process(program: &str) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "what is measured against runs outside any sandbox"
    )]
    Command::new(program)
}

/// An empty directory for a while.
pub(super) fn scratch() -> Result<PathBuf> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| broken("make up a name", &error))?;
    let dir =
        std::env::temp_dir().join(format!("stigmer-bench-{:016x}", u64::from_ne_bytes(random)));
    std::fs::create_dir(&dir).map_err(|error| broken("make a directory to measure in", &error))?;
    Ok(dir)
}
