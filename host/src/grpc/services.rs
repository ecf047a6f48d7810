//! All services as one, and which of them a path belongs to.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use stigmer_sdk::{Error, Result};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService;
use tower::Service;
use tower::util::BoxCloneSyncService;

use super::DESCRIPTORS;
use super::agents::{ExecutionsService, RunnersService, SessionsService};
use super::backend_server::BackendService;
use super::commands::CommandsService;
use super::files::FilesService;
use super::generated::agent::executions_server::ExecutionsServer;
use super::generated::agent::runners_server::RunnersServer;
use super::generated::agent::sessions_server::SessionsServer;
use super::generated::host::commands_server::CommandsServer;
use super::generated::host::daemon_server::DaemonServer;
use super::generated::host::files_server::FilesServer;
use super::generated::host::sandboxes_server::SandboxesServer;
use super::generated::sandbox::backend_server::BackendServer;
use super::sandboxes::{DaemonService, SandboxesService};
use super::serve::{Health, Served};
use crate::sandboxes::Facade;

type Reflection = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Every service of the daemon. tonic's own router would do, at the price of
/// another HTTP framework; a path has just two parts.
#[derive(Clone, Debug)]
pub(super) struct Services {
    daemon: DaemonServer<DaemonService>,
    sandboxes: SandboxesServer<SandboxesService>,
    commands: CommandsServer<CommandsService>,
    files: FilesServer<FilesService>,
    backend: BackendServer<BackendService>,
    sessions: SessionsServer<SessionsService>,
    executions: ExecutionsServer<ExecutionsService>,
    runners: RunnersServer<RunnersService>,
    health: HealthServer<HealthService>,
    reflection_v1: Reflection,
    reflection_v1alpha: Reflection,
}

impl Services {
    pub(super) fn new(served: Served, health: Health) -> Result<Self> {
        let Served {
            config,
            manager,
            agents,
            about,
        } = served;
        let facade = Arc::new(Facade::new(Arc::clone(&manager))?);
        let message = config.limits.message_bytes;
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let unreadable =
            |error| Error::internal("cannot read the descriptors for reflection", error);
        Ok(Self {
            daemon: DaemonServer::new(DaemonService {
                manager: Arc::clone(&manager),
                config,
                agents: Arc::clone(&agents),
                about,
            }),
            sandboxes: SandboxesServer::new(SandboxesService {
                manager: Arc::clone(&manager),
            })
            .max_decoding_message_size(message)
            .max_encoding_message_size(message),
            commands: CommandsServer::new(CommandsService {
                manager: Arc::clone(&manager),
            })
            .max_decoding_message_size(message)
            .max_encoding_message_size(message),
            files: FilesServer::new(FilesService { manager })
                .max_decoding_message_size(message)
                .max_encoding_message_size(message),
            backend: BackendServer::new(BackendService::new(facade))
                .max_decoding_message_size(message)
                .max_encoding_message_size(message),
            // What they answer with was within bounds when it came in, but a
            // status has all of its messages.
            sessions: SessionsServer::new(SessionsService(Arc::clone(&agents)))
                .max_decoding_message_size(message),
            executions: ExecutionsServer::new(ExecutionsService(Arc::clone(&agents)))
                .max_decoding_message_size(message),
            runners: RunnersServer::new(RunnersService(agents)).max_decoding_message_size(message),
            health: HealthServer::new(HealthService::from_health_reporter(health.0)),
            reflection_v1: BoxCloneSyncService::new(reflection().build_v1().map_err(unreadable)?),
            reflection_v1alpha: BoxCloneSyncService::new(
                reflection().build_v1alpha().map_err(unreadable)?,
            ),
        })
    }
}

impl Service<Request<Body>> for Services {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    /// They always are: what limits calls is the connection.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = request.uri().path().split('/').nth(1).unwrap_or_default();
        match service {
            <CommandsServer<CommandsService> as NamedService>::NAME => self.commands.call(request),
            <FilesServer<FilesService> as NamedService>::NAME => self.files.call(request),
            <SandboxesServer<SandboxesService> as NamedService>::NAME => {
                self.sandboxes.call(request)
            }
            <DaemonServer<DaemonService> as NamedService>::NAME => self.daemon.call(request),
            <BackendServer<BackendService> as NamedService>::NAME => self.backend.call(request),
            <SessionsServer<SessionsService> as NamedService>::NAME => self.sessions.call(request),
            <ExecutionsServer<ExecutionsService> as NamedService>::NAME => {
                self.executions.call(request)
            }
            <RunnersServer<RunnersService> as NamedService>::NAME => self.runners.call(request),
            <HealthServer<HealthService> as NamedService>::NAME => self.health.call(request),
            "grpc.reflection.v1.ServerReflection" => self.reflection_v1.call(request),
            "grpc.reflection.v1alpha.ServerReflection" => self.reflection_v1alpha.call(request),
            unknown => {
                let shown: String = unknown.chars().take(80).collect();
                let status = Status::unimplemented(format!(
                    "there is no service '{}'",
                    shown.escape_debug()
                ));
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}
