//! The services `Daemon` and `Sandboxes`.

use std::sync::Arc;

use stigmer_sdk::wire::host as pb;
use stigmer_sdk::wire::{invalid, sandbox};
use stigmer_sdk::{Result, SandboxSpec};
use tonic::{Request, Response, Status};

use super::convert::{known_out, millis};
use super::generated::host::{daemon_server, sandboxes_server};
use super::status::checked;
use crate::agents::Agents;
use crate::config::{Config, Mode};
use crate::local::pid_file::Identity;
use crate::local::supervisor::{self, State};
use crate::sandboxes::store::Filter;
use crate::sandboxes::{Create, Manager};
use crate::server::about::About;

/// Sandboxes on a page, if the request does not say.
const PAGE: u32 = 100;
/// And at most: some 500 KiB.
const MAX_PAGE: u32 = 1000;

/// What the daemon says of itself.
#[derive(Debug)]
pub(super) struct DaemonService {
    pub(super) manager: Arc<Manager>,
    pub(super) config: Arc<Config>,
    pub(super) agents: Arc<Agents>,
    pub(super) about: About,
}

#[tonic::async_trait]
impl daemon_server::Daemon for DaemonService {
    async fn info(
        &self,
        _: Request<pb::InfoRequest>,
    ) -> Result<Response<pb::InfoResponse>, Status> {
        let limits = &self.config.limits;
        Ok(Response::new(pb::InfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: self.config.mode.to_string(),
            default_backend: self.manager.registry().default.clone(),
            max_message_bytes: limits.message_bytes as u64,
            default_timeout_ms: millis(limits.default_timeout),
            max_timeout_ms: millis(limits.max_timeout),
        }))
    }

    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let (config, about) = (&self.config, &self.about);
        let work = checked(self.agents.counts().await)?;
        let counts = checked(self.manager.counts().await)?;
        let sandbox_root = match config.mode {
            Mode::Local => config.root.display().to_string(),
            Mode::Cloud => String::new(),
        };
        Ok(Response::new(pb::StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_ms: about.started_ms,
            mode: config.mode.to_string(),
            tcp: about.listening.tcp.to_string(),
            socket: about.listening.socket.display().to_string(),
            data_dir: config.data_dir.display().to_string(),
            sandbox_type: self.manager.registry().default.clone(),
            sandbox_root,
            runner: about
                .runner
                .as_ref()
                .map(|runner| runner_out(&runner.borrow())),
            registered: self.agents.registered(),
            sandboxes: counts.known,
            sessions: work.sessions,
            executions_pending: work.pending,
            executions_in_progress: work.in_progress,
        }))
    }

    async fn list_plugins(
        &self,
        _: Request<pb::ListPluginsRequest>,
    ) -> Result<Response<pb::ListPluginsResponse>, Status> {
        let mut plugins = Vec::new();
        for (name, backend) in &self.manager.registry().backends {
            let description = sandbox::DescribeResponse::from(backend.describe());
            let (state, error) = match backend.health().await {
                Ok(()) => (pb::PluginState::Ready, None),
                Err(error) => (pb::PluginState::Unhealthy, Some((&error).into())),
            };
            plugins.push(pb::Plugin {
                name: name.clone(),
                version: description.version,
                carrier: pb::Carrier::BuiltIn.into(),
                isolated: false,
                state: state.into(),
                features: description.features,
                digest: String::new(),
                error,
                restarts: 0,
                isolation: description.isolation,
                notice: description.notice,
            });
        }
        Ok(Response::new(pb::ListPluginsResponse { plugins }))
    }
}

fn runner_out(runner: &supervisor::Status) -> pb::RunnerStatus {
    let state = match runner.state {
        State::Starting => pb::ComponentState::Starting,
        State::Ready => pb::ComponentState::Ready,
        State::BackingOff => pb::ComponentState::BackingOff,
        State::Failed => pb::ComponentState::Failed,
        State::Stopped => pb::ComponentState::Stopped,
    };
    let process = runner.process.as_ref();
    let script = runner.script.as_ref();
    pb::RunnerStatus {
        state: state.into(),
        pid: process.map(|process| process.pid),
        started_ms: process.map(Identity::started_ms),
        restarts: runner.restarts,
        last_failure: runner.last_failure.clone(),
        script: script.map_or_else(String::new, |script| script.display().to_string()),
        provider: runner.provider.clone(),
        model: runner.model.clone(),
    }
}

/// The manager, over the wire.
#[derive(Debug)]
pub(super) struct SandboxesService {
    pub(super) manager: Arc<Manager>,
}

#[tonic::async_trait]
impl sandboxes_server::Sandboxes for SandboxesService {
    async fn create(
        &self,
        request: Request<pb::CreateSandboxRequest>,
    ) -> Result<Response<pb::CreateSandboxResponse>, Status> {
        let request = request.into_inner();
        let spec =
            checked(request.spec.map(SandboxSpec::try_from).transpose())?.unwrap_or_default();
        let create = Create {
            backend: request.backend,
            spec,
            name: request.name,
            snapshot: request.snapshot_id,
        };
        let (known, existed) = checked(self.manager.create(create).await)?;
        Ok(Response::new(pb::CreateSandboxResponse {
            sandbox: Some(known_out(known)),
            existed,
        }))
    }

    async fn get(
        &self,
        request: Request<pb::GetSandboxRequest>,
    ) -> Result<Response<pb::GetSandboxResponse>, Status> {
        let known = checked(self.manager.get(&request.into_inner().sandbox_id).await)?;
        Ok(Response::new(pb::GetSandboxResponse {
            sandbox: Some(known_out(known)),
        }))
    }

    async fn list(
        &self,
        request: Request<pb::ListSandboxesRequest>,
    ) -> Result<Response<pb::ListSandboxesResponse>, Status> {
        let request = request.into_inner();
        let page_size = match request.page_size {
            0 => PAGE,
            size => size.min(MAX_PAGE),
        };
        let filter = Filter {
            labels: request.labels.into_iter().collect(),
            backend: request.backend,
            after: checked(cursor(&request.page_token))?,
            // One more than is shown says whether there is another page.
            limit: page_size + 1,
        };
        let mut page = checked(self.manager.list(filter).await)?;
        let more = page.len() > page_size as usize;
        page.truncate(page_size as usize);
        let next_page_token = match page.last() {
            Some(last) if more => format!("{}.{}", last.record.created_ms, last.record.id),
            _ => String::new(),
        };
        let sandboxes = page.into_iter().map(known_out).collect();
        Ok(Response::new(pb::ListSandboxesResponse {
            sandboxes,
            next_page_token,
        }))
    }

    async fn attach(
        &self,
        request: Request<pb::AttachSandboxRequest>,
    ) -> Result<Response<pb::AttachSandboxResponse>, Status> {
        let known = checked(self.manager.attach(&request.into_inner().sandbox_id).await)?;
        Ok(Response::new(pb::AttachSandboxResponse {
            sandbox: Some(known_out(known)),
        }))
    }

    async fn destroy(
        &self,
        request: Request<pb::DestroySandboxRequest>,
    ) -> Result<Response<pb::DestroySandboxResponse>, Status> {
        checked(self.manager.destroy(&request.into_inner().sandbox_id).await)?;
        Ok(Response::new(pb::DestroySandboxResponse {}))
    }

    async fn take_snapshot(
        &self,
        request: Request<pb::TakeSnapshotRequest>,
    ) -> Result<Response<pb::TakeSnapshotResponse>, Status> {
        let request = request.into_inner();
        let snapshot_id = checked(
            self.manager
                .take_snapshot(&request.sandbox_id, &request.name)
                .await,
        )?;
        Ok(Response::new(pb::TakeSnapshotResponse { snapshot_id }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<pb::DeleteSnapshotRequest>,
    ) -> Result<Response<pb::DeleteSnapshotResponse>, Status> {
        checked(
            self.manager
                .delete_snapshot(&request.into_inner().snapshot_id)
                .await,
        )?;
        Ok(Response::new(pb::DeleteSnapshotResponse {}))
    }
}

/// The last sandbox of the page before: its creation and its id.
fn cursor(token: &str) -> Result<Option<(u64, String)>> {
    if token.is_empty() {
        return Ok(None);
    }
    let parsed = token
        .split_once('.')
        .and_then(|(created_ms, id)| Some((created_ms.parse().ok()?, id.to_owned())));
    match parsed {
        Some(cursor) => Ok(Some(cursor)),
        None => Err(invalid("page_token", "is not one that this daemon gave")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_tokens_come_back_as_they_were_given() {
        assert_eq!(cursor("").unwrap(), None);
        assert_eq!(
            cursor("12.fs:a.b").unwrap(),
            Some((12, "fs:a.b".to_owned()))
        );
        for token in ["x", ".", "-1.a", "x.a"] {
            assert!(
                cursor(token).unwrap_err().message().contains("page_token"),
                "{token}"
            );
        }
    }
}
