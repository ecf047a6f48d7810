//! The two traits, and their optional groups.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::stream::BoxStream;

use crate::{
    ByteRange, Command, DirEntry, Event, GlobQuery, GlobResults, GrepQuery, GrepResults, Input,
    Metadata, Result, SandboxId, SandboxInfo, SandboxPath, SandboxSpec, SnapshotId, Stat,
    WriteOptions,
};

/// Bytes on their way. After an error nothing follows.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;
/// The entries of a directory on their way. After an error nothing follows.
pub type EntryStream = BoxStream<'static, Result<DirEntry>>;
/// What a command sends back. Its last item is [`Event::Exit`] or an error.
pub type EventStream = BoxStream<'static, Result<Event>>;
/// What the host sends to a command. Its end closes stdin. A backend takes from
/// it also while nobody takes the command's output.
pub type InputStream = BoxStream<'static, Input>;

/// Something that not every backend can do.
///
/// Asked for what it did not declare, a backend answers
/// [`ErrorCode::Unsupported`](crate::ErrorCode::Unsupported), and the
/// conformance suite checks that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Feature {
    /// Commands may have a terminal.
    Terminal,
    /// Commands may run as another user.
    Users,
    /// Commands may be kept from the network altogether.
    NetworkNone,
    /// Commands may be held to a list of hosts.
    NetworkHosts,
    /// [`Sandbox::search`] is there.
    Search,
    /// [`Backend::snapshots`] is there.
    Snapshots,
    /// Every descendant of a command is killed with it, also those that moved
    /// to another session or were orphaned. Without it, only those that the
    /// backend can find.
    KillGuarantee,
}

impl Feature {
    /// Every feature there is.
    pub const ALL: [Self; 7] = [
        Self::Terminal,
        Self::Users,
        Self::NetworkNone,
        Self::NetworkHosts,
        Self::Search,
        Self::Snapshots,
        Self::KillGuarantee,
    ];

    /// The name used in JSON and tables, in `snake_case`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Terminal => "terminal",
            Self::Users => "users",
            Self::NetworkNone => "network_none",
            Self::NetworkHosts => "network_hosts",
            Self::Search => "search",
            Self::Snapshots => "snapshots",
            Self::KillGuarantee => "kill_guarantee",
        }
    }
}

/// What a sandbox keeps its commands from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isolation {
    /// Nothing: a command can read, write and reach what its user can.
    None,
    /// Writes stay in the workspace; the home directory, other processes and
    /// loopback are out of sight.
    Workspace,
    /// The same, with an allow-list of what can be read or reached, and no
    /// fence missing.
    Strict,
}

impl Isolation {
    /// The name used in JSON and tables: `none`, `workspace`, `strict`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Workspace => "workspace",
            Self::Strict => "strict",
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a backend says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// What `SANDBOX_TYPE` calls it: lower case, `[a-z][a-z0-9-]*`.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// What it can do beyond the least.
    pub features: BTreeSet<Feature>,
    /// What its sandboxes keep their commands from.
    pub isolation: Isolation,
    /// One plain sentence for people on what is not contained; empty if there
    /// is nothing to say.
    pub notice: String,
}

impl Description {
    /// Whether it declares this.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }
}

/// A provider of sandboxes.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync {
    /// Says what this backend is. The same for its whole life.
    fn describe(&self) -> Description;

    /// Succeeds when [`create`](Self::create) could. Cheap, and called often.
    async fn health(&self) -> Result<()>;

    /// Creates a sandbox.
    ///
    /// # Errors
    /// `InvalidArgument` for a spec that makes no sense, `Unsupported` for one
    /// that this backend cannot hold to, `Exhausted` and `Unavailable`.
    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>>;

    /// Opens a sandbox that exists, whoever created it, also before a restart.
    ///
    /// # Errors
    /// `NoSandbox` if there is none with this id.
    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>>;

    /// Copies of whole sandboxes, if this backend makes them.
    fn snapshots(&self) -> Option<&dyn Snapshots> {
        None
    }
}

/// One live environment with a workspace.
///
/// Every handle on a sandbox is as good as another. Dropping one leaves the
/// sandbox alone; once one has destroyed it, all answer `NoSandbox`.
///
/// Links are followed while they stay within the sandbox's roots, except where
/// a method says otherwise; what leads out, by whatever trick or race, is
/// `InvalidPath`. What is neither a regular file nor a directory is `NotAFile`
/// at once, and never opened in a way that could wait.
#[async_trait]
pub trait Sandbox: fmt::Debug + Send + Sync {
    /// Its id, its workspace and its shell.
    fn info(&self) -> &SandboxInfo;

    /// Runs a command: a session and a process group of its own, and an
    /// environment of the documented minimum, the sandbox's variables and the
    /// command's, in that order.
    ///
    /// The exit is the program's own, not that of its pipes: what a background
    /// child still writes is passed on for 250 ms at most, and the child lives
    /// on, owned by the sandbox. Dropping the events before the exit kills
    /// every process the command started; after it, nothing. Output that
    /// nobody takes makes the command wait, and never the backend grow.
    ///
    /// A program that is missing or cannot be executed is an exit of 127 or
    /// 126, with a line of why on stderr.
    ///
    /// # Errors
    /// `NoSandbox`; `NotFound`, `NotADirectory` or `InvalidPath` for the
    /// working directory; `Unsupported` for a terminal or a user.
    async fn exec(&self, command: Command, input: InputStream) -> Result<EventStream>;

    /// Metadata of a link itself, or of what it leads to if `follow`.
    async fn stat(&self, path: &SandboxPath, follow: bool) -> Result<Stat>;

    /// The entries of one directory, in no particular order, without `.` and `..`.
    ///
    /// # Errors
    /// `NotADirectory` if it is not one.
    async fn list(&self, path: &SandboxPath) -> Result<EntryStream>;

    /// The content of a regular file.
    ///
    /// # Errors
    /// `IsDirectory` or `NotAFile` if it is something else.
    async fn read(&self, path: &SandboxPath, range: ByteRange) -> Result<(Metadata, ByteStream)>;

    /// Writes a regular file, with its missing parents. Nothing is visible
    /// until `data` ends, and then all of it; an error in `data`, or dropping
    /// the future, leaves what was there. A link is written through.
    ///
    /// # Errors
    /// `Conflict`, `AlreadyExists` as [`WriteMode`](crate::WriteMode) says;
    /// `IsDirectory`, `NotAFile`; the error that `data` brought.
    async fn write(
        &self,
        path: &SandboxPath,
        options: WriteOptions,
        data: ByteStream,
    ) -> Result<Metadata>;

    /// Creates a directory and its parents. Succeeds if it exists.
    ///
    /// # Errors
    /// `NotADirectory` if a parent is something else, `AlreadyExists` if the
    /// path itself is.
    async fn make_dir(&self, path: &SandboxPath) -> Result<()>;

    /// Removes a file or a link; a directory only if `recursive`, with
    /// everything under it.
    ///
    /// # Errors
    /// `IsDirectory` without `recursive`; `PermissionDenied` for the workspace
    /// and what contains it.
    async fn remove(&self, path: &SandboxPath, recursive: bool) -> Result<()>;

    /// Moves within the sandbox. Replaces a file but not a directory, which is
    /// `AlreadyExists`. Links are moved, not followed.
    async fn rename(&self, from: &SandboxPath, to: &SandboxPath) -> Result<()>;

    /// Deletes the sandbox and everything in it that is its own, commands
    /// first. Idempotent: of a sandbox that is gone it is a success.
    async fn destroy(&self) -> Result<()>;

    /// A search that is faster than the host's over `list` and `read`, with
    /// the same results.
    fn search(&self) -> Option<&dyn Search> {
        None
    }
}

/// Optional, for backends that search faster than the host can.
#[async_trait]
pub trait Search: Send + Sync {
    /// Finds files by name.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory` or `InvalidPath` for the root;
    /// `InvalidPattern`.
    async fn glob(&self, query: GlobQuery) -> Result<GlobResults>;

    /// Finds lines by content.
    ///
    /// # Errors
    /// `NotFound`, `NotAFile` or `InvalidPath` for the root; `InvalidPattern`.
    async fn grep(&self, query: GrepQuery) -> Result<GrepResults>;
}

/// Optional, for backends that copy whole sandboxes.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// Copies a sandbox and leaves it running.
    async fn take(&self, id: &SandboxId, name: &str) -> Result<SnapshotId>;

    /// Creates a sandbox that starts where the snapshot was taken.
    async fn restore(&self, id: &SnapshotId, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>>;

    /// Deletes a snapshot. Idempotent.
    async fn delete(&self, id: &SnapshotId) -> Result<()>;
}
