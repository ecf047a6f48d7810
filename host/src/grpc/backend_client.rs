//! A backend that is reached over gRPC: the other half of
//! [`BackendService`](super::backend_server::BackendService).

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use stigmer_sdk::wire::sandbox::{self as pb, exec_request, read_response};
use stigmer_sdk::wire::{self, required};
use stigmer_sdk::{
    Backend, ByteRange, ByteStream, Command, Description, DirEntry, EntryStream, Error, ErrorCode,
    EventStream, Feature, GlobQuery, GlobResults, GrepQuery, GrepResults, InputStream, Metadata,
    Result, Sandbox, SandboxId, SandboxInfo, SandboxPath, SandboxSpec, Search, SnapshotId,
    Snapshots, Stat, WriteOptions, async_trait,
};

use super::calls::{cancellable, events, requests, understood, write_requests};
use super::channel::Keyed;
use super::generated::sandbox::backend_client::BackendClient;
use super::status::from_status;
use super::tuning;

/// A backend at the other end of a connection.
#[derive(Clone, Debug)]
pub struct RemoteBackend {
    client: BackendClient<Keyed>,
    /// Asked for once: it is the same for a backend's whole life.
    description: Arc<Description>,
}

impl RemoteBackend {
    /// Asks the backend behind this channel what it is.
    ///
    /// # Errors
    /// `Unavailable` if it does not answer, `Internal` if the answer makes no
    /// sense.
    pub async fn open(channel: Keyed) -> Result<Self> {
        let mut client = BackendClient::new(channel)
            .max_decoding_message_size(tuning::BACKEND_MESSAGE)
            .max_encoding_message_size(tuning::BACKEND_MESSAGE);
        let description = client
            .describe(pb::DescribeRequest {})
            .await
            .map_err(from_status)?;
        let description = understood(description.into_inner().try_into())?;
        Ok(Self {
            client,
            description: Arc::new(description),
        })
    }

    fn sandbox(&self, info: Option<pb::SandboxInfo>) -> Result<Arc<dyn Sandbox>> {
        let info = understood(required("sandbox", info).and_then(SandboxInfo::try_from))?;
        Ok(Arc::new(RemoteSandbox {
            backend: self.clone(),
            info,
        }))
    }
}

#[async_trait]
impl Backend for RemoteBackend {
    fn describe(&self) -> Description {
        Description::clone(&self.description)
    }

    async fn health(&self) -> Result<()> {
        self.client
            .clone()
            .health(pb::HealthRequest {})
            .await
            .map_err(from_status)?;
        Ok(())
    }

    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        let request = pb::CreateRequest {
            spec: Some(spec.into()),
        };
        let response = self
            .client
            .clone()
            .create(request)
            .await
            .map_err(from_status)?;
        self.sandbox(response.into_inner().sandbox)
    }

    async fn attach(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>> {
        let request = pb::AttachRequest {
            sandbox_id: id.as_str().to_owned(),
        };
        let response = self
            .client
            .clone()
            .attach(request)
            .await
            .map_err(from_status)?;
        self.sandbox(response.into_inner().sandbox)
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        self.description
            .has(Feature::Snapshots)
            .then_some(self as &dyn Snapshots)
    }
}

#[async_trait]
impl Snapshots for RemoteBackend {
    async fn take(&self, id: &SandboxId, name: &str) -> Result<SnapshotId> {
        let request = pb::TakeSnapshotRequest {
            sandbox_id: id.as_str().to_owned(),
            name: name.to_owned(),
        };
        let response = self
            .client
            .clone()
            .take_snapshot(request)
            .await
            .map_err(from_status)?;
        understood(SnapshotId::new(response.into_inner().snapshot_id))
    }

    async fn restore(&self, id: &SnapshotId, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>> {
        let request = pb::RestoreSnapshotRequest {
            snapshot_id: id.as_str().to_owned(),
            spec: Some(spec.into()),
        };
        let response = self
            .client
            .clone()
            .restore_snapshot(request)
            .await
            .map_err(from_status)?;
        self.sandbox(response.into_inner().sandbox)
    }

    async fn delete(&self, id: &SnapshotId) -> Result<()> {
        let request = pb::DeleteSnapshotRequest {
            snapshot_id: id.as_str().to_owned(),
        };
        self.client
            .clone()
            .delete_snapshot(request)
            .await
            .map_err(from_status)?;
        Ok(())
    }
}

/// A sandbox of a [`RemoteBackend`]: its id, and the connection.
#[derive(Debug)]
struct RemoteSandbox {
    backend: RemoteBackend,
    info: SandboxInfo,
}

impl RemoteSandbox {
    /// Clients are handles on one connection; cloning one is what tonic expects.
    fn client(&self) -> BackendClient<Keyed> {
        self.backend.client.clone()
    }

    fn id(&self) -> String {
        self.info.id.as_str().to_owned()
    }
}

#[async_trait]
impl Sandbox for RemoteSandbox {
    fn info(&self) -> &SandboxInfo {
        &self.info
    }

    async fn exec(&self, command: Command, input: InputStream) -> Result<EventStream> {
        let start = pb::ExecStart {
            sandbox_id: self.id(),
            command: Some(command.into()),
        };
        let start = pb::ExecRequest {
            input: Some(exec_request::Input::Start(start)),
        };
        let requests = stream::iter([start]).chain(input.flat_map(requests));
        let (request, cancel) = cancellable(requests.boxed());
        let responses = self.client().exec(request).await.map_err(from_status)?;
        Ok(events(responses.into_inner(), cancel))
    }

    async fn stat(&self, path: &SandboxPath, follow: bool) -> Result<Stat> {
        let request = pb::StatRequest {
            sandbox_id: self.id(),
            path: path.as_str().to_owned(),
            follow,
        };
        let response = self.client().stat(request).await.map_err(from_status)?;
        understood(response.into_inner().try_into())
    }

    async fn list(&self, path: &SandboxPath) -> Result<EntryStream> {
        let request = pb::ListRequest {
            sandbox_id: self.id(),
            path: path.as_str().to_owned(),
        };
        let responses = self
            .client()
            .list(request)
            .await
            .map_err(from_status)?
            .into_inner();
        let entries = responses
            .map_err(from_status)
            .map_ok(|response| {
                let entries = response
                    .entries
                    .into_iter()
                    .map(|entry| understood(DirEntry::try_from(entry)));
                stream::iter(entries)
            })
            .try_flatten();
        Ok(entries.boxed())
    }

    async fn read(&self, path: &SandboxPath, range: ByteRange) -> Result<(Metadata, ByteStream)> {
        let request = pb::ReadRequest {
            sandbox_id: self.id(),
            path: path.as_str().to_owned(),
            offset: range.offset,
            length: range.length,
        };
        let mut responses = self
            .client()
            .read(request)
            .await
            .map_err(from_status)?
            .into_inner();
        let first = responses.message().await.map_err(from_status)?;
        let metadata = match first.and_then(|response| response.part) {
            Some(read_response::Part::Metadata(metadata)) => understood(metadata.try_into())?,
            Some(read_response::Part::Data(_)) | None => {
                return Err(Error::new(
                    ErrorCode::Internal,
                    "the backend sent a file without its metadata",
                ));
            }
        };
        let data = responses.map(|response| match response.map_err(from_status)?.part {
            Some(read_response::Part::Data(bytes)) => Ok(bytes),
            Some(read_response::Part::Metadata(_)) | None => Err(Error::new(
                ErrorCode::Internal,
                "the backend sent something else in the middle of a file",
            )),
        });
        Ok((metadata, data.boxed()))
    }

    async fn write(
        &self,
        path: &SandboxPath,
        options: WriteOptions,
        data: ByteStream,
    ) -> Result<Metadata> {
        let (mode, if_version, permissions) = options.into_wire();
        let open = pb::WriteOpen {
            sandbox_id: self.id(),
            path: path.as_str().to_owned(),
            mode,
            if_version,
            permissions,
        };
        let broken = Arc::new(Mutex::new(None));
        let requests = write_requests(open, data, Arc::clone(&broken));
        let (request, cancel) = cancellable(requests);
        let response = self.client().write(request).await;
        drop(cancel);
        // The other side only knows that the write was given up; this one knows why.
        if let Some(error) = broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        let metadata = response.map_err(from_status)?.into_inner().metadata;
        understood(required("metadata", metadata).and_then(Metadata::try_from))
    }

    async fn make_dir(&self, path: &SandboxPath) -> Result<()> {
        let request = pb::MakeDirRequest {
            sandbox_id: self.id(),
            path: path.as_str().to_owned(),
        };
        self.client().make_dir(request).await.map_err(from_status)?;
        Ok(())
    }

    async fn remove(&self, path: &SandboxPath, recursive: bool) -> Result<()> {
        let request = pb::RemoveRequest {
            sandbox_id: self.id(),
            path: path.as_str().to_owned(),
            recursive,
        };
        self.client().remove(request).await.map_err(from_status)?;
        Ok(())
    }

    async fn rename(&self, from: &SandboxPath, to: &SandboxPath) -> Result<()> {
        let request = pb::RenameRequest {
            sandbox_id: self.id(),
            from_path: from.as_str().to_owned(),
            to_path: to.as_str().to_owned(),
        };
        self.client().rename(request).await.map_err(from_status)?;
        Ok(())
    }

    async fn destroy(&self) -> Result<()> {
        let request = pb::DestroyRequest {
            sandbox_id: self.id(),
        };
        self.client().destroy(request).await.map_err(from_status)?;
        Ok(())
    }

    fn search(&self) -> Option<&dyn Search> {
        self.backend
            .description
            .has(Feature::Search)
            .then_some(self as &dyn Search)
    }
}

#[async_trait]
impl Search for RemoteSandbox {
    async fn glob(&self, query: GlobQuery) -> Result<GlobResults> {
        let request = wire::glob_request(&self.info.id, query);
        let mut responses = self
            .client()
            .glob(request)
            .await
            .map_err(from_status)?
            .into_inner();
        let mut results = GlobResults::default();
        while let Some(response) = responses.message().await.map_err(from_status)? {
            understood(results.add_wire(response))?;
        }
        Ok(results)
    }

    async fn grep(&self, query: GrepQuery) -> Result<GrepResults> {
        let request = wire::grep_request(&self.info.id, query);
        let mut responses = self
            .client()
            .grep(request)
            .await
            .map_err(from_status)?
            .into_inner();
        let mut results = GrepResults::default();
        while let Some(response) = responses.message().await.map_err(from_status)? {
            understood(results.add_wire(response))?;
        }
        Ok(results)
    }
}
