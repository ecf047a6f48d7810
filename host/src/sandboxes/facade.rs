//! The manager as a backend, for those who speak the backend contract to the
//! daemon. What they create is known like everything else.

use std::sync::Arc;

use stigmer_sdk::{
    Backend, Description, Error, Feature, Result, Sandbox, SandboxId, SandboxSpec, SnapshotId,
    Snapshots, async_trait,
};

use super::{Create, Manager};

/// The default backend under the host's policy and accounting. Ids are the
/// host's, so sandboxes of the other backends can be attached as well.
#[derive(Debug)]
pub struct Facade {
    manager: Arc<Manager>,
    default: Arc<dyn Backend>,
}

impl Facade {
    /// # Errors
    /// If there is no default backend.
    pub fn new(manager: Arc<Manager>) -> Result<Self> {
        let default = manager.registry().get(None)?;
        Ok(Self { manager, default })
    }

    async fn created(&self, request: Create) -> Result<Arc<dyn Sandbox>> {
        let (known, _) = self.manager.create(request).await?;
        Ok(self.manager.handle(&known.record.id).await?.as_dyn())
    }
}

#[async_trait]
impl Backend for Facade {
    /// The policy searches for backends that do not.
    fn describe(&self) -> Description {
        let mut description = self.default.describe();
        description.features.insert(Feature::Search);
        description
    }

    async fn health(&self) -> Result<()> {
        self.default.health().await
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        self.created(Create {
            spec,
            ..Create::default()
        })
        .await
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        let known = self.manager.attach(id.as_str()).await?;
        Ok(self.manager.handle(&known.record.id).await?.as_dyn())
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        self.default
            .describe()
            .has(Feature::Snapshots)
            .then_some(self as &dyn Snapshots)
    }
}

#[async_trait]
impl Snapshots for Facade {
    async fn take(&self, id: &SandboxId, name: &str) -> Result<SnapshotId> {
        let snapshot = self.manager.take_snapshot(id.as_str(), name).await?;
        SnapshotId::new(snapshot)
            .map_err(|error| Error::internal("the snapshot's id is too long", error))
    }

    async fn restore(&self, id: &SnapshotId, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        self.created(Create {
            spec,
            snapshot: Some(id.as_str().to_owned()),
            ..Create::default()
        })
        .await
    }

    async fn delete(&self, id: &SnapshotId) -> Result<()> {
        self.manager.delete_snapshot(id.as_str()).await
    }
}
