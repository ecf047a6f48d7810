//! Configuration: what was typed and set, resolved once into what it means.
//!
//! `flag > environment > config file > default`, for every setting alone. The
//! config file is `config.toml` in the data directory; its keys are the names
//! of the variables in lower case without `STIGMER_` (`sandbox_root_dir`,
//! `port`).
//!
//! | module | owns |
//! | --- | --- |
//! | `settings` | the table of everything that can be set, and where a value came from |
//! | `llm` | which model is asked, where, and with which key |
//! | `agent` | what agents may do, unless somebody says otherwise |
//! | `file` | the config file as text |
//! | `values` | the grammar of single values |
//! | `lookup` | one setting: what somebody wrote for it, by precedence |
//! | `resolve` | the pure function from all of these to a [`Config`] |
//! | `check` | what only the file system can say |
//!
//! Rules that hold throughout:
//! - Everything wrong is reported at once, each in one sentence that names the
//!   flag, variable or key, its value, and what is allowed. A secret's value is
//!   in none of them.
//! - A variable that is set to nothing counts as not set, because that is what
//!   `${NAME:-}` in a compose file gives; only an empty `SANDBOX_ROOT_DIR` is an
//!   error, since the current directory is what somebody may think it means. An
//!   empty flag or key is always one.
//! - A variable that begins with `STIGMER_` and means nothing is an error,
//!   except `STIGMER_SANDBOX_ID`, which every command in a sandbox has, and what
//!   Kubernetes adds for a service called `stigmer`.
//! - A credential configures, and never selects.

mod agent;
mod check;
mod file;
mod llm;
mod lookup;
mod resolve;
mod settings;
mod values;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use agent::{AgentPolicy, Answer, ApprovalRule, Approve, TOOLS};
pub use check::load;
pub use file::ConfigFile;
pub use llm::{BaseUrl, Llm, Provider};
pub(crate) use resolve::LOCAL_KEY;
pub use resolve::{Inputs, resolve};
pub use settings::{Row, Source};

/// What was typed on the command line; `None` was not.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--mode`
    pub mode: Option<String>,
    /// `--sandbox`
    pub sandbox: Option<String>,
    /// `--root`
    pub root: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--endpoint`
    pub endpoint: Option<String>,
    /// `--port`
    pub port: Option<String>,
    /// `--log-level`
    pub log_level: Option<String>,
    /// `--log-format`
    pub log_format: Option<String>,
    /// `--metrics`
    pub metrics: Option<String>,
    /// `--provider`
    pub provider: Option<String>,
    /// `--model`
    pub model: Option<String>,
}

/// Which default `MODE` has, and what of the file system must be in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The daemon started by hand: cloud, as it always was.
    Daemon,
    /// The agent runner started by hand: cloud too. Sandboxes are the daemon's
    /// business, so neither their backend nor its key is judged.
    Runner,
    /// Every other command: local.
    Local,
}

/// The infrastructure. Never mixed up with dev, staging and prod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything is on this machine.
    Local,
    /// The platform's backend, with authentication.
    Cloud,
}

impl Mode {
    /// As `MODE` spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Cloud => "cloud",
        }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A value that is never shown, and overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut std::mem::take(&mut self.0).into_bytes());
    }
}

/// Overwrites what is not needed any more, so that whatever comes by this
/// memory later does not find it.
pub(crate) fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    // Nobody reads these zeros, which would be reason enough to leave them out.
    std::hint::black_box(bytes);
}

/// Whether the variable of this name is a secret.
#[must_use]
pub fn is_secret(variable: &str) -> bool {
    settings::ALL
        .iter()
        .any(|setting| setting.secret && setting.variable == variable)
}

impl Secret {
    /// Wraps it.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for whoever has to send it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Every limit and timeout of the host, in one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of a command whose caller names no timeout.
    pub default_timeout: Duration,
    /// The most a caller may ask for; 0 in a request means none.
    pub max_timeout: Duration,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Of any other operation; of a stream of data, the time without progress.
    pub operation_timeout: Duration,
    /// Of each stream in the answer to a unary exec.
    pub inline_bytes: u64,
    /// Of a captured output file.
    pub capture_bytes: u64,
    /// Of output kept for a background process.
    pub keep_bytes: u64,
    /// Of one gRPC message.
    pub message_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A cold build of a large project takes less; a hung one should not
            // hold an agent for longer.
            default_timeout: Duration::from_secs(30 * 60),
            // What runs for longer than a day is a background process, and
            // those have no timeout unless asked for.
            max_timeout: Duration::from_secs(24 * 60 * 60),
            // Enough for a test runner to write its report or a server to
            // finish a request, and no more than a person waits after Ctrl-C.
            grace: Duration::from_secs(5),
            // Far above what a slow disk or a cloud's API needs for one answer,
            // and short enough that a hung mount is noticed. It is the time
            // without progress, so that it cuts no large file.
            operation_timeout: Duration::from_secs(60),
            // Three times what agents read of one output, so that nearly all
            // comes whole; a hundred commands at once stay under 100 MiB.
            inline_bytes: 256 * 1024,
            // A captured file is for searching, not for keeping. Frameworks ask
            // for the same number.
            capture_bytes: 10 * 1024 * 1024,
            // Some ten thousand lines of a server's log, for each process.
            keep_bytes: 1024 * 1024,
            // Clients upload 10 MiB in one message, and gRPC's own default of
            // 4 MiB refuses that; larger files go as streams.
            message_bytes: 16 * 1024 * 1024,
        }
    }
}

/// The event bus of cloud mode. Local mode has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// `REDIS_HOST`
    pub host: String,
    /// `REDIS_PORT`
    pub port: u16,
    /// `REDIS_PASSWORD`
    pub password: Option<Secret>,
}

/// What the Daytona backend needs, if it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Daytona {
    /// `DAYTONA_API_KEY`
    pub api_key: Option<Secret>,
    /// `DAYTONA_API_URL`; `None`: Daytona's own cloud.
    pub api_url: Option<String>,
    /// `DAYTONA_DEV_TOOLS_SNAPSHOT_ID`: what new sandboxes start from.
    pub snapshot: Option<String>,
}

/// What everything above means.
#[derive(Clone, Debug)]
pub struct Config {
    /// The infrastructure.
    pub mode: Mode,
    /// A backend's name.
    pub sandbox: String,
    /// Absolute. Of no meaning in cloud mode.
    pub root: PathBuf,
    /// Absolute.
    pub data_dir: PathBuf,
    /// Where clients find the daemon, or the daemon the platform: `host:port`,
    /// `unix:/path`, `http://…` or `https://…`.
    pub endpoint: String,
    /// Nobody set the endpoint: clients try the Unix socket of the data
    /// directory first.
    pub endpoint_is_default: bool,
    /// Where the daemon listens on loopback. 0: any that is free.
    pub port: u16,
    /// What every call carries.
    pub api_key: Secret,
    /// Directives for the log filter: `info`, or `warn,stigmer=debug`.
    pub log_level: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Where metrics are served; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Every limit and timeout.
    pub limits: Limits,
    /// Variables that no caller may set for a command: names, or beginnings
    /// that end in `*`.
    pub deny_env: Vec<String>,
    /// In cloud mode only.
    pub redis: Option<Redis>,
    /// For the backend of that name.
    pub daytona: Daytona,
    /// The model that agents ask, and the keys.
    pub llm: Llm,
    /// What agents may do, unless somebody says otherwise.
    pub agents: AgentPolicy,
    /// A program that runs as the agent runner instead of the built-in one. Absolute.
    pub agent_runner: Option<PathBuf>,
    /// Every setting with its value and where that came from, in the order of
    /// the table, secrets masked.
    pub sources: Vec<Row>,
}

impl Config {
    /// `<data dir>/stigmer.sock`.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.data_dir.join("stigmer.sock")
    }

    /// Whether somebody set a secret, which makes this process the holder of one.
    #[must_use]
    pub fn holds_secrets(&self) -> bool {
        self.sources
            .iter()
            .any(|row| row.secret && !row.value.is_empty() && row.source != Source::Default)
    }

    /// Every setting with its value and where that came from.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        self.sources.clone()
    }
}

/// The environment, read once, in `main`.
pub type Env = BTreeMap<String, String>;

/// One thing that is wrong, as a user reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(pub String);

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
