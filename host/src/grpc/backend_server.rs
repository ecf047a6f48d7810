//! Any backend as the service `stigmer.sandbox.v1.Backend`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt as _, stream};
use stigmer_sdk::wire::sandbox::{self as pb, exec_request, read_response, write_request};
use stigmer_sdk::wire::{self, invalid, required};
use stigmer_sdk::{
    Backend, ByteRange, ByteStream, Command, Error, ErrorCode, GlobQuery, GrepQuery, Input, Result,
    Sandbox, SandboxId, SandboxSpec, Search, SnapshotId, Snapshots, WriteOptions,
};
use tonic::{Request, Response, Status, Streaming};

use super::generated::sandbox::backend_server::Backend as Service;
use super::status::{checked, from_status, to_status};
use super::streams::{Responses, chunks, fitting, inputs, until_failed};

/// Handles kept. One that is dropped costs an `attach`, and no more than that.
const MAX_HANDLES: usize = 4096;
/// Entries of a directory in one message: some 100 KiB with names of usual length.
const LIST_BATCH: usize = 512;

/// Serves a backend.
#[derive(Debug)]
pub struct BackendService {
    backend: Arc<dyn Backend>,
    /// Requests name a sandbox by its id, and `attach` may be a round trip to
    /// somewhere. A std mutex, because nothing awaits while it is held.
    handles: Mutex<HashMap<SandboxId, Arc<dyn Sandbox>>>,
}

impl BackendService {
    /// Serves this backend.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            handles: Mutex::default(),
        }
    }

    fn keep(&self, sandbox: &Arc<dyn Sandbox>) {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        if handles.len() >= MAX_HANDLES
            && let Some(any) = handles.keys().next().cloned()
        {
            handles.remove(&any);
        }
        handles.insert(sandbox.info().id.clone(), Arc::clone(sandbox));
    }

    fn forget(&self, id: &SandboxId) {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.remove(id);
    }

    async fn sandbox(&self, id: String) -> Result<Arc<dyn Sandbox>, Status> {
        let id = wire::sandbox_id("sandbox_id", id).map_err(|error| to_status(&error))?;
        let known = {
            let handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
            handles.get(&id).cloned()
        };
        match known {
            Some(sandbox) => Ok(sandbox),
            None => {
                let sandbox = self
                    .backend
                    .attach(&id)
                    .await
                    .map_err(|error| to_status(&error))?;
                self.keep(&sandbox);
                Ok(sandbox)
            }
        }
    }

    /// The answer to a request about this sandbox. A handle on one that is gone
    /// is not kept: its id may come back to life in a backend that reuses them.
    fn answer<T>(&self, sandbox: &dyn Sandbox, result: Result<T>) -> Result<T, Status> {
        result.map_err(|error| {
            if error.code() == ErrorCode::NoSandbox {
                self.forget(&sandbox.info().id);
            }
            to_status(&error)
        })
    }

    fn snapshots(&self) -> Result<&dyn Snapshots, Status> {
        self.backend
            .snapshots()
            .ok_or_else(|| to_status(&Error::unsupported("a snapshot")))
    }
}

fn search(sandbox: &dyn Sandbox) -> Result<&dyn Search, Status> {
    sandbox
        .search()
        .ok_or_else(|| to_status(&Error::unsupported("a search")))
}

fn path(field: &str, path: String) -> Result<stigmer_sdk::SandboxPath, Status> {
    wire::path(field, path).map_err(|error| to_status(&error))
}

fn spec(spec: Option<pb::SandboxSpec>) -> Result<SandboxSpec, Status> {
    checked(spec.map(SandboxSpec::try_from).transpose()).map(Option::unwrap_or_default)
}

#[tonic::async_trait]
impl Service for BackendService {
    async fn describe(
        &self,
        _: Request<pb::DescribeRequest>,
    ) -> Result<Response<pb::DescribeResponse>, Status> {
        Ok(Response::new(self.backend.describe().into()))
    }

    /// A backend behind this service was configured by whoever opened it.
    async fn configure(
        &self,
        request: Request<pb::ConfigureRequest>,
    ) -> Result<Response<pb::ConfigureResponse>, Status> {
        let request = request.into_inner();
        if !matches!(request.config.trim(), "" | "{}") {
            return Err(to_status(&invalid(
                "config",
                "this backend has no settings of its own",
            )));
        }
        Ok(Response::new(pb::ConfigureResponse {}))
    }

    async fn health(
        &self,
        _: Request<pb::HealthRequest>,
    ) -> Result<Response<pb::HealthResponse>, Status> {
        checked(self.backend.health().await)?;
        Ok(Response::new(pb::HealthResponse {}))
    }

    async fn create(
        &self,
        request: Request<pb::CreateRequest>,
    ) -> Result<Response<pb::CreateResponse>, Status> {
        let spec = spec(request.into_inner().spec)?;
        let sandbox = checked(self.backend.create(spec).await)?;
        self.keep(&sandbox);
        Ok(Response::new(pb::CreateResponse {
            sandbox: Some(sandbox.info().clone().into()),
        }))
    }

    async fn attach(
        &self,
        request: Request<pb::AttachRequest>,
    ) -> Result<Response<pb::AttachResponse>, Status> {
        let id = checked(wire::sandbox_id(
            "sandbox_id",
            request.into_inner().sandbox_id,
        ))?;
        let sandbox = checked(
            self.backend
                .attach(&id)
                .await
                .inspect_err(|_| self.forget(&id)),
        )?;
        self.keep(&sandbox);
        Ok(Response::new(pb::AttachResponse {
            sandbox: Some(sandbox.info().clone().into()),
        }))
    }

    async fn destroy(
        &self,
        request: Request<pb::DestroyRequest>,
    ) -> Result<Response<pb::DestroyResponse>, Status> {
        let id = checked(wire::sandbox_id(
            "sandbox_id",
            request.into_inner().sandbox_id,
        ))?;
        let destroyed = match self.backend.attach(&id).await {
            Ok(sandbox) => sandbox.destroy().await,
            // It is gone, which is what was asked for.
            Err(error) if error.code() == ErrorCode::NoSandbox => Ok(()),
            Err(error) => Err(error),
        };
        self.forget(&id);
        checked(destroyed)?;
        Ok(Response::new(pb::DestroyResponse {}))
    }

    type ExecStream = Responses<pb::ExecResponse>;

    async fn exec(
        &self,
        request: Request<Streaming<pb::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.input);
        let Some(exec_request::Input::Start(start)) = first else {
            return Err(to_status(&invalid("start", "must come first")));
        };
        let command: Command =
            checked(required("command", start.command).and_then(TryInto::try_into))?;
        let sandbox = self.sandbox(start.sandbox_id).await?;
        let (input, failed) = inputs(requests, Input::try_from);
        let events = self.answer(&*sandbox, sandbox.exec(command, input).await)?;
        let responses = fitting(until_failed(events, failed))
            .map(|event| event.map(Into::into).map_err(|error| to_status(&error)));
        Ok(Response::new(responses.boxed()))
    }

    async fn stat(
        &self,
        request: Request<pb::StatRequest>,
    ) -> Result<Response<pb::StatResponse>, Status> {
        let request = request.into_inner();
        let path = path("path", request.path)?;
        let sandbox = self.sandbox(request.sandbox_id).await?;
        let stat = self.answer(&*sandbox, sandbox.stat(&path, request.follow).await)?;
        Ok(Response::new(stat.into()))
    }

    type ListStream = Responses<pb::ListResponse>;

    async fn list(
        &self,
        request: Request<pb::ListRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let request = request.into_inner();
        let path = path("path", request.path)?;
        let sandbox = self.sandbox(request.sandbox_id).await?;
        let entries = self.answer(&*sandbox, sandbox.list(&path).await)?;
        let responses = entries.ready_chunks(LIST_BATCH).map(|batch| {
            let entries = batch
                .into_iter()
                .map(|entry| entry.map(Into::into))
                .collect::<Result<_>>();
            entries
                .map(|entries| pb::ListResponse { entries })
                .map_err(|error| to_status(&error))
        });
        Ok(Response::new(responses.boxed()))
    }

    type ReadStream = Responses<pb::ReadResponse>;

    async fn read(
        &self,
        request: Request<pb::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let range = ByteRange::from(&request);
        let path = path("path", request.path)?;
        let sandbox = self.sandbox(request.sandbox_id).await?;
        let (metadata, data) = self.answer(&*sandbox, sandbox.read(&path, range).await)?;
        let part = |part| pb::ReadResponse { part: Some(part) };
        let first = part(read_response::Part::Metadata(metadata.into()));
        let rest = chunks(data).map(move |chunk| match chunk {
            Ok(bytes) => Ok(part(read_response::Part::Data(bytes))),
            Err(error) => Err(to_status(&error)),
        });
        Ok(Response::new(
            stream::once(async { Ok(first) }).chain(rest).boxed(),
        ))
    }

    async fn write(
        &self,
        request: Request<Streaming<pb::WriteRequest>>,
    ) -> Result<Response<pb::WriteResponse>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.part);
        let Some(write_request::Part::Open(open)) = first else {
            return Err(to_status(&invalid("open", "must come first")));
        };
        let path = path("path", open.path)?;
        let options = checked(WriteOptions::from_wire(
            open.mode,
            open.if_version,
            open.permissions,
        ))?;
        let sandbox = self.sandbox(open.sandbox_id).await?;
        let metadata = self.answer(
            &*sandbox,
            sandbox.write(&path, options, written(requests)).await,
        )?;
        Ok(Response::new(pb::WriteResponse {
            metadata: Some(metadata.into()),
        }))
    }

    async fn make_dir(
        &self,
        request: Request<pb::MakeDirRequest>,
    ) -> Result<Response<pb::MakeDirResponse>, Status> {
        let request = request.into_inner();
        let path = path("path", request.path)?;
        let sandbox = self.sandbox(request.sandbox_id).await?;
        self.answer(&*sandbox, sandbox.make_dir(&path).await)?;
        Ok(Response::new(pb::MakeDirResponse {}))
    }

    async fn remove(
        &self,
        request: Request<pb::RemoveRequest>,
    ) -> Result<Response<pb::RemoveResponse>, Status> {
        let request = request.into_inner();
        let path = path("path", request.path)?;
        let sandbox = self.sandbox(request.sandbox_id).await?;
        self.answer(&*sandbox, sandbox.remove(&path, request.recursive).await)?;
        Ok(Response::new(pb::RemoveResponse {}))
    }

    async fn rename(
        &self,
        request: Request<pb::RenameRequest>,
    ) -> Result<Response<pb::RenameResponse>, Status> {
        let request = request.into_inner();
        let from = path("from_path", request.from_path)?;
        let to = path("to_path", request.to_path)?;
        let sandbox = self.sandbox(request.sandbox_id).await?;
        self.answer(&*sandbox, sandbox.rename(&from, &to).await)?;
        Ok(Response::new(pb::RenameResponse {}))
    }

    type GlobStream = Responses<pb::GlobResponse>;

    async fn glob(
        &self,
        request: Request<pb::GlobRequest>,
    ) -> Result<Response<Self::GlobStream>, Status> {
        let mut request = request.into_inner();
        let sandbox = self
            .sandbox(std::mem::take(&mut request.sandbox_id))
            .await?;
        let query: GlobQuery = checked(request.try_into())?;
        let results = self.answer(&*sandbox, search(&*sandbox)?.glob(query).await)?;
        Ok(Response::new(
            stream::iter(wire::glob_responses(results).map(Ok)).boxed(),
        ))
    }

    type GrepStream = Responses<pb::GrepResponse>;

    async fn grep(
        &self,
        request: Request<pb::GrepRequest>,
    ) -> Result<Response<Self::GrepStream>, Status> {
        let mut request = request.into_inner();
        let sandbox = self
            .sandbox(std::mem::take(&mut request.sandbox_id))
            .await?;
        let query: GrepQuery = checked(request.try_into())?;
        let results = self.answer(&*sandbox, search(&*sandbox)?.grep(query).await)?;
        Ok(Response::new(
            stream::iter(wire::grep_responses(results).map(Ok)).boxed(),
        ))
    }

    async fn take_snapshot(
        &self,
        request: Request<pb::TakeSnapshotRequest>,
    ) -> Result<Response<pb::TakeSnapshotResponse>, Status> {
        let request = request.into_inner();
        let id = checked(wire::sandbox_id("sandbox_id", request.sandbox_id))?;
        let snapshot = checked(self.snapshots()?.take(&id, &request.name).await)?;
        Ok(Response::new(pb::TakeSnapshotResponse {
            snapshot_id: snapshot.as_str().to_owned(),
        }))
    }

    async fn restore_snapshot(
        &self,
        request: Request<pb::RestoreSnapshotRequest>,
    ) -> Result<Response<pb::RestoreSnapshotResponse>, Status> {
        let request = request.into_inner();
        let id = checked(SnapshotId::new(request.snapshot_id))?;
        let sandbox = checked(self.snapshots()?.restore(&id, spec(request.spec)?).await)?;
        self.keep(&sandbox);
        Ok(Response::new(pb::RestoreSnapshotResponse {
            sandbox: Some(sandbox.info().clone().into()),
        }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<pb::DeleteSnapshotRequest>,
    ) -> Result<Response<pb::DeleteSnapshotResponse>, Status> {
        let id = checked(SnapshotId::new(request.into_inner().snapshot_id))?;
        checked(self.snapshots()?.delete(&id).await)?;
        Ok(Response::new(pb::DeleteSnapshotResponse {}))
    }
}

/// What a client writes. A stream without `end` was given up, and the backend
/// has to hear of it: tonic shows a reset stream as one that ended well.
fn written(requests: Streaming<pb::WriteRequest>) -> ByteStream {
    stream::unfold(Some(requests), |requests| async {
        let mut requests = requests?;
        let problem = match requests.message().await {
            Ok(Some(request)) => match request.part {
                Some(write_request::Part::Data(bytes)) => return Some((Ok(bytes), Some(requests))),
                Some(write_request::Part::End(_)) => return None,
                Some(write_request::Part::Open(_)) => invalid("open", "may only come first"),
                None => invalid("part", "is missing"),
            },
            Ok(None) => Error::new(ErrorCode::Cancelled, "the write was given up"),
            Err(status) => from_status(status),
        };
        Some((Err(problem), None))
    })
    .boxed()
}
