//! How sandboxes come to be, and how they end.

use std::sync::{Arc, PoisonError, Weak};

use stigmer_sdk::{Error, ErrorCode, Result, SandboxId, SnapshotId};

use super::store::Record;
use super::{Create, Known, Manager};

impl Manager {
    /// Creates a sandbox. If the name is taken, the answer is the one that has
    /// it, and `true`.
    ///
    /// It runs to its end even if nobody waits for it any more: a sandbox that
    /// exists and that nobody knows could never be destroyed.
    pub async fn create(self: &Arc<Self>, request: Create) -> Result<(Known, bool)> {
        if let Some(name) = &request.name {
            check_name(name)?;
        }
        let manager = Arc::clone(self);
        self.to_the_end(async move {
            let Some(name) = request.name.clone() else {
                return Ok((manager.create_now(request).await?, false));
            };
            let naming = manager.naming(&name);
            let _held = naming.lock().await;
            match manager.handle(&name).await {
                Ok(handle) => {
                    let taken = manager.get(handle.info.id.as_str()).await?;
                    Ok((taken, true))
                }
                Err(error) if error.code() == ErrorCode::NoSandbox => {
                    Ok((manager.create_now(request).await?, false))
                }
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn create_now(self: &Arc<Self>, request: Create) -> Result<Known> {
        let name = request.name.clone().unwrap_or_default();
        let created = self.create_unaudited(request);
        self.guard
            .audited_create(&name, created, |known| known.record.id.as_str())
            .await
    }

    async fn create_unaudited(self: &Arc<Self>, request: Create) -> Result<Known> {
        let mut spec = request.spec;
        self.guard.check_env(spec.env.keys())?;
        // The host keeps these two itself, whatever the backend can do: a
        // sandbox that vanished by another clock would have to be discovered.
        let lifetime_ms = spec.limits.lifetime.take().map(millis);
        let idle_ms = spec.limits.idle.take().map(millis);
        let labels = spec.labels.clone();
        let (backend, inner) = match request.snapshot {
            None => {
                let backend = self.registry.get(request.backend.as_deref())?;
                (backend.describe().name, backend.create(spec).await?)
            }
            Some(snapshot) => {
                let (name, id) = self.snapshot(&snapshot)?;
                if request.backend.is_some_and(|wanted| wanted != name) {
                    return Err(Error::new(
                        ErrorCode::InvalidArgument,
                        format!(
                            "snapshot_id: the snapshot is one of the backend '{name}', and only it can restore it"
                        ),
                    ));
                }
                let backend = self.registry.get(Some(&name))?;
                let snapshots = backend
                    .snapshots()
                    .ok_or_else(|| Error::unsupported("a snapshot"))?;
                let sandbox = snapshots.restore(&id, spec).await?;
                (name, sandbox)
            }
        };
        let now_ms = self.now_ms();
        let record = Record {
            id: host_id(&backend, &inner.info().id)?.as_str().to_owned(),
            backend,
            name: request.name,
            workspace: inner.info().workspace.as_str().to_owned(),
            shell: inner.info().shell.clone(),
            labels,
            created_ms: now_ms,
            used_ms: now_ms,
            lifetime_ms,
            idle_ms,
            gone_ms: None,
        };
        if let Err(error) = self.store.insert(record.clone()).await {
            // Without its row nobody would find it again.
            if let Err(left) = inner.destroy().await {
                tracing::error!(error = %left, sandbox = record.id, "a sandbox that could not be recorded is left behind");
            }
            return Err(error);
        }
        self.admit(&record, inner)?;
        Ok(self.known(record))
    }

    /// Destroys a sandbox, by id or name. Of one that is not there it is a
    /// success. Like [`create`](Self::create), it runs to its end.
    pub async fn destroy(self: &Arc<Self>, id_or_name: &str) -> Result<()> {
        let manager = Arc::clone(self);
        let wanted = id_or_name.to_owned();
        self.to_the_end(async move {
            let id = match manager.store.find(&wanted).await? {
                Some(record) => record.id,
                None => wanted,
            };
            let destroyed = match manager.handle(&id).await {
                Ok(handle) => handle.as_dyn().destroy().await,
                // Not known here, but perhaps to its backend.
                Err(error) if error.code() == ErrorCode::NoSandbox => match manager.split(&id) {
                    Ok((backend, backend_id)) => match backend.attach(&backend_id).await {
                        Ok(sandbox) => sandbox.destroy().await,
                        Err(error) => Err(error),
                    },
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            match destroyed {
                Err(error) if error.code() != ErrorCode::NoSandbox => Err(error),
                Ok(()) | Err(_) => manager.forget(&id).await,
            }
        })
        .await
    }

    /// Copies a sandbox. The id of the copy is the host's.
    pub async fn take_snapshot(self: &Arc<Self>, id_or_name: &str, name: &str) -> Result<String> {
        let handle = self.handle(id_or_name).await?;
        let (backend, id) = self.split(handle.info.id.as_str())?;
        let snapshots = backend
            .snapshots()
            .ok_or_else(|| Error::unsupported("a snapshot"))?;
        let snapshot = snapshots.take(&id, name).await?;
        Ok(format!("{}:{snapshot}", handle.backend))
    }

    /// Deletes a copy, by the host's id.
    pub async fn delete_snapshot(&self, snapshot: &str) -> Result<()> {
        let (name, id) = self.snapshot(snapshot)?;
        let backend = self.registry.get(Some(&name))?;
        backend
            .snapshots()
            .ok_or_else(|| Error::unsupported("a snapshot"))?
            .delete(&id)
            .await
    }

    fn snapshot(&self, host_id: &str) -> Result<(String, SnapshotId)> {
        let (backend, id) = host_id.split_once(':').ok_or_else(|| {
            Error::new(
                ErrorCode::NotFound,
                format!("no snapshot '{}'", host_id.escape_debug()),
            )
        })?;
        Ok((backend.to_owned(), SnapshotId::new(id)?))
    }

    fn naming(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = naming.get(name).and_then(Weak::upgrade) {
            return lock;
        }
        naming.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        naming.insert(name.to_owned(), Arc::downgrade(&lock));
        lock
    }

    /// Runs this also when the caller goes away.
    async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.guard.tasks.spawn(work).await {
            Ok(result) => result,
            Err(error) => Err(Error::internal("the operation panicked", error)),
        }
    }
}

fn host_id(backend: &str, id: &SandboxId) -> Result<SandboxId> {
    SandboxId::new(format!("{backend}:{id}")).map_err(|error| {
        Error::internal(
            format!("the backend '{backend}' gave an id that is too long"),
            error,
        )
    })
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A name is never taken for an id, which has a colon.
fn check_name(name: &str) -> Result<()> {
    let well_formed = name.len() <= 128
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if well_formed {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(Error::new(
        ErrorCode::InvalidArgument,
        format!(
            "name: '{}' is not 1 to 128 letters, digits, '-', '_' and '.', with a letter or digit first",
            shown.escape_debug()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_be_mistaken_for_ids() {
        #[track_caller]
        fn check(name: &str, valid: bool) {
            assert_eq!(check_name(name).is_ok(), valid, "{name}");
        }
        check("a", true);
        check("My.app_1-x", true);
        check("", false);
        check("fs:a", false);
        check("-a", false);
        check("a b", false);
        check("ż", false);
        check(&"a".repeat(128), true);
        check(&"a".repeat(129), false);
    }
}
