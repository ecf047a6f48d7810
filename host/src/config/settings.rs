//! The table of everything that can be set, and where a value came from.

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;

use super::{Flags, Mode};

/// A setting and its value, as `stigmer config show` prints them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The variable, or the key of what only the config file can say.
    pub name: &'static str,
    /// What it means in the end; `***` for a secret, empty if there is none.
    pub value: String,
    /// Where it came from.
    pub source: Source,
    /// Whether the value is masked.
    pub secret: bool,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// This flag.
    Flag(&'static str),
    /// This variable.
    Environment(&'static str),
    /// This line of the config file.
    File {
        /// The file.
        path: PathBuf,
        /// Counts from one.
        line: usize,
    },
    /// Nobody set it.
    Default,
    /// Nobody set it, and there is no default.
    Unset,
    /// This mode does not read it.
    Unread(Mode),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File { path, line } => write!(f, "config file {}:{line}", path.display()),
            Self::Default => f.write_str("default"),
            Self::Unset => f.write_str("not set"),
            Self::Unread(mode) => write!(f, "not read in {mode} mode"),
        }
    }
}

/// How a flag is called, and where its value is.
type Flag = (&'static str, fn(&Flags) -> Option<&OsStr>);

/// Something that can be set.
#[derive(Debug)]
pub(super) struct Setting {
    /// Its environment variable.
    pub(super) variable: &'static str,
    pub(super) flag: Option<Flag>,
    pub(super) secret: bool,
}

impl Setting {
    const fn new(variable: &'static str) -> Self {
        Self {
            variable,
            flag: None,
            secret: false,
        }
    }

    const fn secret(variable: &'static str) -> Self {
        Self {
            secret: true,
            ..Self::new(variable)
        }
    }

    const fn with_flag(
        variable: &'static str,
        flag: &'static str,
        value: fn(&Flags) -> Option<&OsStr>,
    ) -> Self {
        Self {
            flag: Some((flag, value)),
            ..Self::new(variable)
        }
    }

    /// Its key in the config file. The data directory has none, because the
    /// file is found through it.
    pub(super) fn key(&self) -> Option<String> {
        (self.variable != DATA_DIR.variable).then(|| {
            let name = self.variable;
            name.strip_prefix("STIGMER_")
                .unwrap_or(name)
                .to_ascii_lowercase()
        })
    }
}

macro_rules! settings {
    ($($name:ident = $setting:expr;)*) => {
        $(pub(super) static $name: Setting = $setting;)*
        /// Every setting, in the order in which they are shown.
        pub(super) static ALL: &[&Setting] = &[$(&$name),*];
    };
}

settings! {
    MODE = Setting::with_flag("MODE", "--mode", |flags| flags.mode.as_deref().map(OsStr::new));
    SANDBOX_TYPE = Setting::with_flag("SANDBOX_TYPE", "--sandbox", |flags| flags.sandbox.as_deref().map(OsStr::new));
    SANDBOX_ROOT_DIR = Setting::with_flag("SANDBOX_ROOT_DIR", "--root", |flags| flags.root.as_deref().map(OsStr::new));
    DATA_DIR = Setting::with_flag("STIGMER_DATA_DIR", "--data-dir", |flags| flags.data_dir.as_deref().map(OsStr::new));
    BACKEND_ENDPOINT = Setting::with_flag("STIGMER_BACKEND_ENDPOINT", "--endpoint", |flags| flags.endpoint.as_deref().map(OsStr::new));
    API_KEY = Setting::secret("STIGMER_API_KEY");
    PORT = Setting::with_flag("STIGMER_PORT", "--port", |flags| flags.port.as_deref().map(OsStr::new));
    LOG_LEVEL = Setting::with_flag("STIGMER_LOG_LEVEL", "--log-level", |flags| flags.log_level.as_deref().map(OsStr::new));
    LOG_FORMAT = Setting::with_flag("STIGMER_LOG_FORMAT", "--log-format", |flags| flags.log_format.as_deref().map(OsStr::new));
    METRICS = Setting::with_flag("STIGMER_METRICS", "--metrics", |flags| flags.metrics.as_deref().map(OsStr::new));
    DEFAULT_TIMEOUT = Setting::new("STIGMER_DEFAULT_TIMEOUT");
    MAX_TIMEOUT = Setting::new("STIGMER_MAX_TIMEOUT");
    DENY_ENV = Setting::new("STIGMER_DENY_ENV");
    AGENT_RUNNER_SCRIPT = Setting::new("STIGMER_AGENT_RUNNER_SCRIPT");
    LLM_PROVIDER = Setting::with_flag("STIGMER_LLM_PROVIDER", "--provider", |flags| flags.provider.as_deref().map(OsStr::new));
    LLM_MODEL = Setting::with_flag("STIGMER_LLM_MODEL", "--model", |flags| flags.model.as_deref().map(OsStr::new));
    ANTHROPIC_API_KEY = Setting::secret("ANTHROPIC_API_KEY");
    ANTHROPIC_BASE_URL = Setting::new("ANTHROPIC_BASE_URL");
    OPENAI_API_KEY = Setting::secret("OPENAI_API_KEY");
    OPENAI_BASE_URL = Setting::new("OPENAI_BASE_URL");
    OLLAMA_BASE_URL = Setting::new("OLLAMA_BASE_URL");
    APPROVE = Setting::new("STIGMER_APPROVE");
    MAX_TURNS = Setting::new("STIGMER_MAX_TURNS");
    MAX_TOKENS = Setting::new("STIGMER_MAX_TOKENS");
    EXECUTION_TIMEOUT = Setting::new("STIGMER_EXECUTION_TIMEOUT");
    MAX_COST = Setting::new("STIGMER_MAX_COST");
    REDIS_HOST = Setting::new("REDIS_HOST");
    REDIS_PORT = Setting::new("REDIS_PORT");
    REDIS_PASSWORD = Setting::secret("REDIS_PASSWORD");
    DAYTONA_API_KEY = Setting::secret("DAYTONA_API_KEY");
    DAYTONA_API_URL = Setting::new("DAYTONA_API_URL");
    DAYTONA_DEV_TOOLS_SNAPSHOT_ID = Setting::new("DAYTONA_DEV_TOOLS_SNAPSHOT_ID");
}

/// The name among `names` that somebody who wrote `written` meant, if one is
/// near enough: a third of it wrong at most.
pub(super) fn nearest<'a>(
    written: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    names
        .into_iter()
        .map(|name| {
            (
                distance(&written.to_lowercase(), &name.to_lowercase()),
                name,
            )
        })
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Characters to insert, delete or replace, or neighbours to swap, to get from
/// one to the other.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_variable_without_our_prefix() {
        assert_eq!(PORT.key().as_deref(), Some("port"));
        assert_eq!(SANDBOX_ROOT_DIR.key().as_deref(), Some("sandbox_root_dir"));
        assert_eq!(DATA_DIR.key(), None);
        let mut keys: Vec<_> = ALL.iter().filter_map(|setting| setting.key()).collect();
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    #[test]
    fn what_was_meant_is_near() {
        #[track_caller]
        fn check(written: &str, meant: Option<&str>) {
            assert_eq!(
                nearest(written, ["filesystem", "wasi", "daytona"]),
                meant,
                "{written}"
            );
        }
        check("filesytem", Some("filesystem"));
        check("Filesystem", Some("filesystem"));
        check("wasm", Some("wasi"));
        check("wsai", Some("wasi"));
        check("daytona2", Some("daytona"));
        check("docker", None);
        check("", None);
    }
}
