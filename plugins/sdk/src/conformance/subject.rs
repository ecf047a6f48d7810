//! A sandbox in a case's hands.
//!
//! The plain methods must succeed; those that start with `try_` give back what
//! the backend answered. Each notes what it does, so that a failure can be
//! done again by hand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::check::{Verdict, eventually, ok, show, skip};
use super::run::lock;
use super::running::{Output, Running, input_channel};
use crate::{
    ByteRange, ByteStream, Bytes, Command, DirEntry, ErrorCode, InputStream, Metadata, Permissions,
    Result, Sandbox, SandboxPath, Stat, WriteMode, WriteOptions,
};

/// A sandbox, and what a case does to it.
pub(super) struct Subject {
    pub(super) sandbox: Arc<dyn Sandbox>,
    steps: Arc<Mutex<Vec<String>>>,
}

pub(super) fn path(path: &str) -> Verdict<SandboxPath> {
    ok(
        format!("{} is a path", show(path.as_bytes())),
        SandboxPath::new(path),
    )
}

/// Data in pieces of 64 KiB.
pub(super) fn bytes(data: impl Into<Bytes>) -> ByteStream {
    let mut data = data.into();
    let pieces = std::iter::from_fn(move || {
        let piece = data.split_to(data.len().min(64 * 1024));
        (!piece.is_empty()).then_some(Ok(piece))
    });
    stream::iter(pieces).boxed()
}

/// How to write with this mode and the default permissions.
pub(super) fn mode(mode: WriteMode) -> WriteOptions {
    WriteOptions {
        mode,
        permissions: None,
    }
}

/// How to replace a file and give it these permissions.
pub(super) fn permissions(bits: u32) -> WriteOptions {
    WriteOptions {
        mode: WriteMode::Replace,
        permissions: Some(Permissions::of_mode(bits)),
    }
}

impl Subject {
    pub(super) fn new(sandbox: Arc<dyn Sandbox>, steps: Arc<Mutex<Vec<String>>>) -> Self {
        Self { sandbox, steps }
    }

    fn note(&self, step: String) {
        lock(&self.steps).push(step);
    }

    /// The absolute path of something in the workspace.
    pub(super) fn absolute(&self, below: &str) -> String {
        let workspace = self.sandbox.info().workspace.as_str();
        format!("{}/{below}", workspace.trim_end_matches('/'))
    }

    /// A command for the sandbox's shell, with `$1` and so on.
    pub(super) fn script<A: Into<String>>(
        &self,
        script: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Verdict<Command> {
        let shell = &self.sandbox.info().shell;
        if shell.is_empty() {
            return skip("the sandbox has no shell");
        }
        let words = shell
            .iter()
            .cloned()
            .chain([script.to_owned(), "sh".to_owned()]);
        ok(
            "a command",
            Command::new(words.chain(args.into_iter().map(Into::into))),
        )
    }

    /// A line for the sandbox's shell.
    pub(super) fn shell(&self, script: &str) -> Verdict<Command> {
        self.script(script, [""; 0])
    }

    /// Starts a command, which must be possible.
    pub(super) async fn start(&self, command: Command) -> Verdict<Running> {
        let what = format!("run {}", describe(&command));
        let started = self.try_start(command).await;
        ok(what, started)
    }

    /// Starts a command with inputs of the case's own making.
    pub(super) async fn start_with(
        &self,
        command: Command,
        input: InputStream,
    ) -> Verdict<Running> {
        let what = format!("run {}", describe(&command));
        self.note(what.clone());
        let events = ok(&what, self.sandbox.exec(command, input).await)?;
        Ok(Running::new(what, events, None))
    }

    /// Starts a line of shell.
    pub(super) async fn start_sh(&self, script: &str) -> Verdict<Running> {
        self.start(self.shell(script)?).await
    }

    pub(super) async fn try_start(&self, command: Command) -> Result<Running> {
        let what = format!("run {}", describe(&command));
        self.note(what.clone());
        let (sender, input) = input_channel();
        let events = self.sandbox.exec(command, input).await?;
        Ok(Running::new(what, events, Some(sender)))
    }

    /// Runs a command that must be refused, and gives the refusal, whether it
    /// is the call's answer or its first event.
    pub(super) async fn try_run(&self, command: Command) -> Result<()> {
        self.note(format!("run {}", describe(&command)));
        let (_sender, input) = input_channel();
        let mut events = self.sandbox.exec(command, input).await?;
        match events.next().await {
            Some(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Runs a command to its end, without input.
    pub(super) async fn run(&self, command: Command) -> Verdict<Output> {
        let mut running = self.start(command).await?;
        running.end_input();
        running.finish().await
    }

    /// Runs a line of shell that must exit with 0.
    pub(super) async fn sh(&self, script: &str) -> Verdict<Output> {
        self.sh_with(script, &[]).await
    }

    /// The same with `$1` and so on.
    pub(super) async fn sh_with(&self, script: &str, args: &[&str]) -> Verdict<Output> {
        let mut running = self
            .start(self.script(script, args.iter().copied())?)
            .await?;
        running.end_input();
        running.succeed().await
    }

    /// Skips the case unless the sandbox has all these programs.
    pub(super) async fn needs_programs(&self, programs: &[&str]) -> Verdict {
        for program in programs {
            let probe = self.script(r#"command -v "$1""#, [*program])?;
            if !self.run(probe).await?.status.is_success() {
                return skip(format!("the sandbox has no {program}"));
            }
        }
        Ok(())
    }

    /// Skips the case unless what runs here are processes that `kill` sees.
    pub(super) async fn needs_processes(&self) -> Verdict {
        let probe = self.shell("sleep 60 & kill -0 $! && kill $!")?;
        if self.run(probe).await?.status.is_success() {
            return Ok(());
        }
        skip("commands here are not processes that kill can see")
    }

    /// Those of these processes that live. A zombie does not: whoever should
    /// reap it may be outside the sandbox.
    pub(super) async fn living(&self, pids: &[String]) -> Verdict<Vec<String>> {
        const SCRIPT: &str = r#"
            for pid in "$@"; do
                kill -0 "$pid" 2>/dev/null || continue
                state=$(cat "/proc/$pid/status" 2>/dev/null | while read -r key value rest; do
                    [ "$key" = State: ] && echo "$value"
                done)
                case $state in Z | X) ;; *) echo "$pid" ;; esac
            done"#;
        let pids: Vec<&str> = pids.iter().map(String::as_str).collect();
        Ok(self.sh_with(SCRIPT, &pids).await?.words())
    }

    /// All of these processes are gone before long.
    pub(super) async fn all_die(&self, what: &str, pids: &[String]) -> Verdict {
        super::check::ensure(what, !pids.is_empty(), "process ids", pids)?;
        eventually(
            format!("{what}: processes {pids:?} are gone"),
            Duration::from_secs(10),
            || async { Ok(self.living(pids).await?.is_empty()) },
        )
        .await
    }

    /// All of these processes live.
    pub(super) async fn all_live(&self, what: &str, pids: &[String]) -> Verdict {
        super::check::ensure(what, !pids.is_empty(), "process ids", pids)?;
        super::check::equal(
            format!("{what}: processes that live"),
            self.living(pids).await?,
            pids.to_vec(),
        )
    }

    pub(super) async fn try_stat(&self, at: &str, follow: bool) -> Result<Stat> {
        self.note(format!("stat {at:?}, follow: {follow}"));
        self.sandbox.stat(&SandboxPath::new(at)?, follow).await
    }

    /// Metadata of what a path leads to.
    pub(super) async fn stat(&self, at: &str) -> Verdict<Metadata> {
        let stat = self.try_stat(at, true).await;
        Ok(ok(format!("stat {at:?}"), stat)?.metadata)
    }

    /// Metadata of a link itself.
    pub(super) async fn lstat(&self, at: &str) -> Verdict<Metadata> {
        let stat = self.try_stat(at, false).await;
        Ok(ok(format!("stat {at:?} without following"), stat)?.metadata)
    }

    /// Whether nothing has this name.
    pub(super) async fn is_missing(&self, at: &str) -> Verdict<bool> {
        match self.try_stat(at, false).await {
            Err(error) if error.code() == ErrorCode::NotFound => Ok(true),
            other => ok(format!("stat {at:?}"), other).map(|_| false),
        }
    }

    pub(super) async fn try_list(&self, at: &str) -> Result<Vec<DirEntry>> {
        self.note(format!("list {at:?}"));
        let entries = self.sandbox.list(&SandboxPath::new(at)?).await?;
        entries.try_collect().await
    }

    /// The sorted names in a directory.
    pub(super) async fn names(&self, at: &str) -> Verdict<Vec<String>> {
        let entries = self.try_list(at).await;
        let entries = ok(format!("list {at:?}"), entries)?;
        let mut names: Vec<_> = entries.into_iter().map(|entry| entry.name).collect();
        names.sort();
        Ok(names)
    }

    pub(super) async fn try_read_range(
        &self,
        at: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<(Metadata, Vec<u8>)> {
        self.note(format!(
            "read {at:?} from {offset}, at most {length:?} bytes"
        ));
        let range = ByteRange { offset, length };
        let (metadata, data) = self.sandbox.read(&SandboxPath::new(at)?, range).await?;
        let data = data
            .try_fold(Vec::new(), |mut data, piece| async move {
                data.extend_from_slice(&piece);
                Ok(data)
            })
            .await?;
        Ok((metadata, data))
    }

    pub(super) async fn try_read(&self, at: &str) -> Result<Vec<u8>> {
        Ok(self.try_read_range(at, 0, None).await?.1)
    }

    /// The content of a file.
    pub(super) async fn read(&self, at: &str) -> Verdict<Vec<u8>> {
        let data = self.try_read(at).await;
        ok(format!("read {at:?}"), data)
    }

    pub(super) async fn try_write_stream(
        &self,
        at: &str,
        options: WriteOptions,
        data: ByteStream,
    ) -> Result<Metadata> {
        self.note(format!("write {at:?}, {options:?}"));
        let at = SandboxPath::new(at)?;
        self.sandbox.write(&at, options, data).await
    }

    pub(super) async fn try_write(
        &self,
        at: &str,
        options: WriteOptions,
        data: impl Into<Vec<u8>>,
    ) -> Result<Metadata> {
        let data: Vec<u8> = data.into();
        self.try_write_stream(at, options, bytes(data)).await
    }

    /// Replaces or creates a file.
    pub(super) async fn write(&self, at: &str, data: impl Into<Vec<u8>>) -> Verdict<Metadata> {
        let written = self.try_write(at, WriteOptions::default(), data).await;
        ok(format!("write {at:?}"), written)
    }

    pub(super) async fn try_make_dir(&self, at: &str) -> Result<()> {
        self.note(format!("make the directory {at:?}"));
        self.sandbox.make_dir(&SandboxPath::new(at)?).await
    }

    pub(super) async fn make_dir(&self, at: &str) -> Verdict {
        let made = self.try_make_dir(at).await;
        ok(format!("make the directory {at:?}"), made)
    }

    pub(super) async fn try_remove(&self, at: &str, recursive: bool) -> Result<()> {
        self.note(format!("remove {at:?}, recursive: {recursive}"));
        let at = SandboxPath::new(at)?;
        self.sandbox.remove(&at, recursive).await
    }

    pub(super) async fn remove(&self, at: &str, recursive: bool) -> Verdict {
        let removed = self.try_remove(at, recursive).await;
        ok(format!("remove {at:?}"), removed)
    }

    pub(super) async fn try_rename(&self, from: &str, to: &str) -> Result<()> {
        self.note(format!("rename {from:?} to {to:?}"));
        let (from, to) = (SandboxPath::new(from)?, SandboxPath::new(to)?);
        self.sandbox.rename(&from, &to).await
    }

    pub(super) async fn rename(&self, from: &str, to: &str) -> Verdict {
        let renamed = self.try_rename(from, to).await;
        ok(format!("rename {from:?} to {to:?}"), renamed)
    }

    pub(super) async fn destroy(&self) -> Verdict {
        self.note("destroy the sandbox".to_owned());
        ok("destroy the sandbox", self.sandbox.destroy().await)
    }

    /// A link made by a command, because the file API makes none.
    pub(super) async fn link(&self, target: &str, at: &str) -> Verdict {
        self.sh_with(r#"ln -s -- "$1" "$2""#, &[target, at]).await?;
        Ok(())
    }
}

fn describe(command: &Command) -> String {
    let mut text = show(command.argv().join(" ").as_bytes());
    if let Some(cwd) = command.working_dir() {
        text = format!("{text} in {:?}", cwd.as_str());
    }
    text
}
