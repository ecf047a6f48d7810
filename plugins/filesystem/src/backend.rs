//! The backend: creates sandboxes, and finds them again.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Deserialize;
use stigmer_sdk::{
    Backend, Description, Error, ErrorCode, Feature, Isolation, Network, Result, Sandbox,
    SandboxId, SandboxInfo, SandboxPath, SandboxSpec,
};
use tokio::task::AbortHandle;

use crate::files::Workspace;
use crate::manifest::{Manifest, Store};
use crate::protocol::StartSupervisor;
use crate::recover;
use crate::sandbox::{FilesystemSandbox, no_sandbox};
use crate::supervise::{Launcher, Supervisor};

/// A sandbox that runs nothing for this long lets its processes go. The next
/// command starts them again, in half a millisecond.
const REST_AFTER: Duration = Duration::from_secs(60);
/// The least memory limit: below it, the supervisor itself could not live.
const LEAST_MEMORY: u64 = 16 << 20;
/// The variable that tells a command which sandbox it is in.
pub const SANDBOX_ID_VARIABLE: &str = "STIGMER_SANDBOX_ID";
/// What the environment of every command starts from, unless the host was
/// started with values of its own for these.
const DEFAULT_ENV: [(&str, &str); 4] = [
    ("HOME", "/"),
    ("LANG", "C.UTF-8"),
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("SHELL", "/bin/sh"),
];
/// The variables that a command gets from the host's own environment, if they
/// are set there. None of them is a secret; all others stay out.
pub const INHERITED_VARIABLES: [&str; 10] = [
    "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER",
];

/// What the backend needs to know of its host.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where sandboxes are written down, and private workspaces are. Created
    /// when the first sandbox is that survives its host.
    pub data_dir: PathBuf,
    /// The program whose `main` begins with [`run_if_asked`](crate::run_if_asked).
    pub launcher: PathBuf,
    /// The host's environment, of which commands see [`INHERITED_VARIABLES`].
    pub env: BTreeMap<String, String>,
}

/// The native backend: real processes in a directory of this machine.
#[derive(Debug)]
pub struct Filesystem {
    sandboxes: Arc<Sandboxes>,
    launcher: Arc<Launcher>,
    env: Vec<(String, String)>,
    janitor: Mutex<Option<AbortHandle>>,
}

/// What only this backend understands of a spec.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    /// Nothing is written down: the sandbox ends with the host that created
    /// it, and leaves nothing but its workspace. Needs a `source`.
    ephemeral: bool,
}

impl Filesystem {
    /// Opens the backend. Nothing is started or written before it is needed.
    #[must_use]
    pub fn open(config: Config) -> Arc<Self> {
        let env = DEFAULT_ENV
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .filter(|(name, _)| !config.env.contains_key(name))
            .chain(
                config
                    .env
                    .clone()
                    .into_iter()
                    .filter(|(name, _)| INHERITED_VARIABLES.contains(&name.as_str())),
            )
            .collect();
        Arc::new(Self {
            sandboxes: Arc::new(Sandboxes {
                store: Store::new(&config.data_dir),
                open: Mutex::default(),
            }),
            launcher: Arc::new(Launcher::new(config.launcher, raise_open_files())),
            env,
            janitor: Mutex::new(None),
        })
    }

    /// Cleans up after a host that was killed: its processes, and what it left
    /// half made or half deleted. Only for whoever has the data directory to
    /// itself. Returns the ids of the sandboxes there are.
    ///
    /// # Errors
    /// If the data directory cannot be read or cleaned.
    pub async fn recover(&self) -> Result<Vec<SandboxId>> {
        let store = self.sandboxes.store.clone();
        blocking(move || {
            let ids = store.recover()?;
            recover::kill_orphans(&ids);
            Ok(ids)
        })
        .await
    }

    fn sandbox(
        &self,
        id: SandboxId,
        workspace: &Path,
        spec: &Manifest,
    ) -> Result<Arc<FilesystemSandbox>> {
        let files = Workspace::open(workspace)?;
        let info = SandboxInfo {
            workspace: SandboxPath::new(files.path())?,
            shell: vec!["/bin/sh".to_owned(), "-c".to_owned()],
            id,
        };
        let mut env: BTreeMap<String, String> = self.env.iter().cloned().collect();
        env.extend(spec.env.clone());
        env.insert(SANDBOX_ID_VARIABLE.to_owned(), info.id.as_str().to_owned());
        let supervisor = Supervisor::new(
            Arc::clone(&self.launcher),
            StartSupervisor {
                memory_bytes: spec.memory_bytes,
                file_bytes: spec.file_bytes,
            },
        );
        let env = env.into_iter().collect();
        let sandbox =
            FilesystemSandbox::new(info, files, env, supervisor, Arc::clone(&self.sandboxes));
        self.start_janitor();
        Ok(Arc::new(sandbox))
    }

    /// Starts the task that lets idle sandboxes rest, unless it runs.
    fn start_janitor(&self) {
        let mut janitor = lock(&self.janitor);
        if janitor.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let sandboxes = Arc::downgrade(&self.sandboxes);
        #[expect(
            clippy::disallowed_methods,
            reason = "owned by `Filesystem`, which aborts it"
        )]
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(REST_AFTER / 2).await;
                let Some(sandboxes) = sandboxes.upgrade() else {
                    return;
                };
                let open: Vec<_> = lock(&sandboxes.open).values().cloned().collect();
                for sandbox in open {
                    sandbox.rest(REST_AFTER).await;
                }
            }
        });
        *janitor = Some(task.abort_handle());
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        if let Some(janitor) = lock(&self.janitor).take() {
            janitor.abort();
        }
    }
}

#[async_trait]
impl Backend for Filesystem {
    fn describe(&self) -> Description {
        Description {
            name: "filesystem".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: [Feature::Terminal, Feature::Search, Feature::KillGuarantee].into(),
            isolation: Isolation::None,
            notice: "commands are not confined: they can read, change and reach whatever your user can; \
                     only the file API is held to the workspace"
                .to_owned(),
        }
    }

    async fn health(&self) -> Result<()> {
        self.launcher.check()
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        let (manifest, options) = read_spec(spec)?;
        let id = SandboxId::new(new_id()?)?;
        if options.ephemeral {
            let Some(workspace) = manifest.workspace.clone() else {
                return Err(Error::new(
                    ErrorCode::InvalidArgument,
                    "an ephemeral sandbox needs a directory as its source",
                ));
            };
            let sandbox = self.sandbox(id.clone(), &workspace, &manifest)?;
            lock(&self.sandboxes.open).insert(id, Arc::clone(&sandbox));
            return Ok(sandbox);
        }
        let store = self.sandboxes.store.clone();
        let workspace = manifest
            .workspace
            .clone()
            .unwrap_or_else(|| store.workspace(&id));
        let (written, in_store) = (manifest.clone(), id.clone());
        blocking(move || store.create(&in_store, &written)).await?;
        let sandbox = match self.sandbox(id.clone(), &workspace, &manifest) {
            Ok(sandbox) => sandbox,
            Err(error) => {
                self.sandboxes.forget(&id).await?;
                return Err(error);
            }
        };
        lock(&self.sandboxes.open).insert(id, Arc::clone(&sandbox));
        Ok(sandbox)
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        if let Some(sandbox) = lock(&self.sandboxes.open).get(id) {
            return Ok(Arc::clone(sandbox) as Arc<dyn Sandbox>);
        }
        let store = self.sandboxes.store.clone();
        let wanted = id.clone();
        let Some(manifest) = blocking(move || store.load(&wanted)).await? else {
            return Err(no_sandbox(id.as_str()));
        };
        let workspace = manifest
            .workspace
            .clone()
            .unwrap_or_else(|| self.sandboxes.store.workspace(id));
        let sandbox = self.sandbox(id.clone(), &workspace, &manifest)?;
        // Whoever came first made the sandbox that everybody shares.
        let sandbox = Arc::clone(
            lock(&self.sandboxes.open)
                .entry(id.clone())
                .or_insert(sandbox),
        );
        Ok(sandbox)
    }
}

/// The sandboxes that are open, and those that are written down.
#[derive(Debug)]
pub(crate) struct Sandboxes {
    store: Store,
    open: Mutex<HashMap<SandboxId, Arc<FilesystemSandbox>>>,
}

impl Sandboxes {
    /// Forgets a sandbox and deletes what was its own.
    pub(crate) async fn forget(&self, id: &SandboxId) -> Result<()> {
        lock(&self.open).remove(id);
        let (store, id) = (self.store.clone(), id.clone());
        blocking(move || store.delete(&id)).await
    }
}

/// Checks a spec, and turns it into what is written down.
fn read_spec(spec: SandboxSpec) -> Result<(Manifest, Options)> {
    // By way of a map, because a struct could also be read from an array.
    let options: Result<serde_json::Map<_, _>, _> = serde_json::from_str(&spec.options);
    let options = options.and_then(|map| serde_json::from_value(map.into()));
    let options: Options = options.map_err(|error: serde_json::Error| {
        Error::new(
            ErrorCode::InvalidArgument,
            format!("the options of a filesystem sandbox are not valid: {error}"),
        )
    })?;
    match spec.network {
        None | Some(Network::Unrestricted) => {}
        Some(Network::None | Network::Hosts(_)) => {
            return Err(Error::unsupported("restricting the network"));
        }
    }
    if spec.limits.cpu_millis.is_some() {
        return Err(Error::unsupported("a processor limit"));
    }
    if spec.limits.processes.is_some() {
        return Err(Error::unsupported("a limit on the number of processes"));
    }
    let memory_bytes = spec.limits.memory_bytes.map(std::num::NonZeroU64::get);
    if let Some(bytes) = memory_bytes.filter(|&bytes| bytes < LEAST_MEMORY) {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("a memory limit of {bytes} bytes is below the least, {LEAST_MEMORY}"),
        ));
    }
    let manifest = Manifest {
        workspace: spec.source.map(|source| workspace(&source)).transpose()?,
        env: spec
            .env
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.as_str().to_owned()))
            .collect(),
        memory_bytes,
        file_bytes: spec.limits.disk_bytes.map(std::num::NonZeroU64::get),
    };
    Ok((manifest, options))
}

/// The directory that somebody named as the workspace, made if it is missing.
fn workspace(source: &str) -> Result<PathBuf> {
    let path = PathBuf::from(source);
    let invalid = |why: String| Error::new(ErrorCode::InvalidArgument, why).with_path(source);
    if !path.is_absolute() {
        return Err(invalid(
            "the directory of a sandbox must be given by an absolute path".to_owned(),
        ));
    }
    std::fs::create_dir_all(&path).map_err(|error| {
        invalid(match error.kind() {
            std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotADirectory => {
                "the workspace of a sandbox must be a directory".to_owned()
            }
            _ => format!("cannot make the workspace: {error}"),
        })
    })?;
    Ok(path)
}

/// 80 random bits as 16 letters and digits.
fn new_id() -> Result<String> {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::internal("cannot make up an id", error))?;
    Ok(random
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
        .collect())
}

/// Raises this process's soft limit of open files to the hard one, since an
/// open sandbox holds a few, and returns what it was, for the commands.
fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Without it, there are fewer sandboxes at a time.
    setrlimit(Resource::Nofile, raised).ok();
    limit.current.unwrap_or(1024)
}

/// Runs what may wait for a disk where waiting is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("a file operation was cut off", error))?
}

/// As in `supervise`: plain data, whole between statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
