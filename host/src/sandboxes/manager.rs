//! The one who keeps account.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use stigmer_sdk::{Backend, Error, ErrorCode, Result, Sandbox, SandboxId, SandboxInfo};

use super::store::{Filter, Record, Store};
use super::tracked::{Tracked, Usage};
use super::{Clock, Counts, Handle, Known, State};
use crate::guard::Guard;
use crate::processes::Processes;
use crate::registry::Registry;

#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) by_id: HashMap<String, Arc<Handle>>,
    names: HashMap<String, String>,
}

/// Keeps account of sandboxes.
#[derive(Debug)]
pub struct Manager {
    pub(super) registry: Registry,
    pub(super) guard: Arc<Guard>,
    pub(super) store: Store,
    clock: Clock,
    pub(super) started_ms: u64,
    /// A std mutex, because nothing awaits while it is held.
    pub(super) open: Mutex<Open>,
    /// Held while a name is being taken, so that two who ask for the same get
    /// the same. One that nobody holds is dropped with its last user.
    pub(super) naming: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Manager {
    /// Opens the registry of a data directory, which the caller has locked.
    ///
    /// # Errors
    /// `Internal` if the file cannot be used.
    pub fn open(
        data_dir: &Path,
        registry: Registry,
        guard: Arc<Guard>,
        clock: Clock,
    ) -> Result<Arc<Self>> {
        let store = Store::open(&data_dir.join("stigmer.db"))?;
        Ok(Arc::new(Self {
            registry,
            guard,
            store,
            started_ms: clock.now_ms(),
            clock,
            open: Mutex::default(),
            naming: Mutex::default(),
        }))
    }

    /// The backends there are.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The policy.
    #[must_use]
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// Milliseconds since 1970, by the clock that sandboxes expire by.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// What is known of a sandbox, by id or name, without asking its backend.
    pub async fn get(&self, id_or_name: &str) -> Result<Known> {
        match self.store.find(id_or_name).await? {
            Some(record) => Ok(self.known(record)),
            None => Err(unknown(id_or_name)),
        }
    }

    /// Sandboxes in the order of their creation.
    pub async fn list(&self, filter: Filter) -> Result<Vec<Known>> {
        let records = self.store.list(filter).await?;
        Ok(records
            .into_iter()
            .map(|record| self.known(record))
            .collect())
    }

    /// The handle on a sandbox, by id or name. Its first use attaches it.
    ///
    /// # Errors
    /// `NoSandbox` if it is not known, or no more; `Unavailable` if its
    /// backend does not answer.
    pub async fn handle(self: &Arc<Self>, id_or_name: &str) -> Result<Arc<Handle>> {
        if let Some(handle) = self.opened(id_or_name) {
            return Ok(handle);
        }
        let record = self
            .store
            .find(id_or_name)
            .await?
            .ok_or_else(|| unknown(id_or_name))?;
        if record.gone_ms.is_some() {
            return Err(Error::new(
                ErrorCode::NoSandbox,
                format!("the sandbox {} is no more", record.id),
            ));
        }
        let (backend, id) = self.split(&record.id)?;
        match backend.attach(&id).await {
            Ok(inner) => self.admit(&record, inner),
            Err(error) => {
                if error.code() == ErrorCode::NoSandbox {
                    self.store.mark_gone(&record.id, self.now_ms());
                }
                Err(error)
            }
        }
    }

    /// Makes sure that a sandbox is there, and knows it from then on.
    pub async fn attach(self: &Arc<Self>, id_or_name: &str) -> Result<Known> {
        let record = match self.store.find(id_or_name).await? {
            Some(record) => record,
            None => {
                let (backend, id) = self.split(id_or_name)?;
                let info = backend.attach(&id).await?.info().clone();
                let now_ms = self.now_ms();
                Record {
                    id: id_or_name.to_owned(),
                    backend: backend.describe().name,
                    name: None,
                    workspace: info.workspace.as_str().to_owned(),
                    shell: info.shell,
                    labels: Default::default(),
                    created_ms: now_ms,
                    used_ms: now_ms,
                    lifetime_ms: None,
                    idle_ms: None,
                    gone_ms: None,
                }
            }
        };
        let (backend, id) = self.split(&record.id)?;
        let inner = match backend.attach(&id).await {
            Ok(inner) => inner,
            Err(error) => {
                if error.code() == ErrorCode::NoSandbox {
                    self.gone(&record.id);
                }
                return Err(error);
            }
        };
        // Its backend may bring back what was gone, or have moved it.
        let record = Record {
            workspace: inner.info().workspace.as_str().to_owned(),
            shell: inner.info().shell.clone(),
            gone_ms: None,
            ..record
        };
        self.store.insert(record.clone()).await?;
        self.admit(&record, inner)?;
        Ok(self.known(record))
    }

    /// Compares what is known with what a backend found when it started: what
    /// it does not have any more is gone, and what was created and never
    /// recorded, because the daemon was killed in between, is known again.
    pub async fn reconcile(self: &Arc<Self>, backend: &str, found: &[SandboxId]) -> Result<()> {
        let found: HashSet<String> = found.iter().map(|id| format!("{backend}:{id}")).collect();
        let known: HashSet<String> = self.store.live_ids(backend).await?.into_iter().collect();
        for id in known.difference(&found) {
            self.gone(id);
        }
        for id in found.difference(&known) {
            // One that cannot be opened is not worth a daemon that does not start.
            if let Err(error) = self.attach(id).await {
                tracing::warn!(%error, sandbox = id, "cannot open a sandbox that was found");
            }
        }
        Ok(())
    }

    /// How many there are of what.
    pub async fn counts(&self) -> Result<Counts> {
        let known = self.store.count().await?;
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Counts {
            known,
            open: open.by_id.len() as u64,
            running: open
                .by_id
                .values()
                .map(|handle| u64::from(handle.usage.running()))
                .sum(),
        })
    }

    /// Every sandbox that is open.
    #[must_use]
    pub fn handles(&self) -> Vec<Arc<Handle>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.by_id.values().cloned().collect()
    }

    pub(super) fn opened(&self, id_or_name: &str) -> Option<Arc<Handle>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let id = open
            .names
            .get(id_or_name)
            .map_or(id_or_name, String::as_str);
        open.by_id.get(id).cloned()
    }

    /// Opens a sandbox, or finds that somebody else just did: all of its users
    /// share one handle, because it owns the background processes.
    pub(super) fn admit(
        self: &Arc<Self>,
        record: &Record,
        inner: Arc<dyn Sandbox>,
    ) -> Result<Arc<Handle>> {
        let info = SandboxInfo {
            id: SandboxId::new(record.id.as_str())?,
            ..inner.info().clone()
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = open.by_id.get(&record.id) {
            return Ok(Arc::clone(handle));
        }
        let usage = Arc::new(Usage::since(record.used_ms));
        let tracked = Tracked {
            inner,
            info: info.clone(),
            usage: Arc::clone(&usage),
            manager: Arc::downgrade(self),
        };
        let handle = Arc::new(Handle {
            sandbox: self.guard.sandbox(&record.id, Arc::new(tracked)),
            info,
            processes: Processes::default(),
            name: record.name.clone(),
            backend: record.backend.clone(),
            usage,
        });
        if let Some(name) = &record.name {
            open.names.insert(name.clone(), record.id.clone());
        }
        open.by_id.insert(record.id.clone(), Arc::clone(&handle));
        Ok(handle)
    }

    fn close(&self, id: &str) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = open.by_id.remove(id)
            && let Some(name) = &handle.name
            && open.names.get(name).is_some_and(|named| named == id)
        {
            open.names.remove(name);
        }
    }

    /// The backend says that this sandbox is no more.
    pub(super) fn gone(&self, id: &str) {
        self.close(id);
        self.store.mark_gone(id, self.now_ms());
    }

    /// The sandbox was destroyed.
    pub(super) async fn forget(&self, id: &str) -> Result<()> {
        self.close(id);
        self.store.delete(id).await
    }

    pub(super) fn known(&self, mut record: Record) -> Known {
        let handle = self.opened(&record.id);
        let unreachable = handle
            .as_ref()
            .is_some_and(|handle| handle.usage.is_unreachable());
        if let Some(handle) = handle {
            record.used_ms = record.used_ms.max(handle.usage.used_ms());
        }
        // A backend that is not loaded any more cannot say what it contains.
        let description = self
            .registry
            .get(Some(&record.backend))
            .ok()
            .map(|backend| backend.describe());
        let state = match (record.gone_ms, &description) {
            (Some(_), _) => State::Gone,
            (None, Some(_)) if !unreachable => State::Ready,
            (None, _) => State::Unreachable,
        };
        Known {
            record,
            state,
            isolation: description
                .as_ref()
                .map(|description| description.isolation),
            notice: description
                .map(|description| description.notice)
                .unwrap_or_default(),
        }
    }

    pub(super) fn split(&self, host_id: &str) -> Result<(Arc<dyn Backend>, SandboxId)> {
        let (backend, id) = host_id.split_once(':').ok_or_else(|| unknown(host_id))?;
        let backend = self.registry.get(Some(backend)).map_err(|error| {
            Error::new(
                ErrorCode::NoSandbox,
                format!("no sandbox '{}'", host_id.escape_debug()),
            )
            .with_source(error)
        })?;
        Ok((backend, SandboxId::new(id)?))
    }
}

fn unknown(id_or_name: impl fmt::Display) -> Error {
    let shown: String = id_or_name.to_string().chars().take(80).collect();
    Error::new(
        ErrorCode::NoSandbox,
        format!("there is no sandbox '{}'", shown.escape_debug()),
    )
}
