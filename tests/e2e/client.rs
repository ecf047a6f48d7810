//! The daemon's services, spoken to directly: for what the command line would
//! not send.

use stigmer::grpc::channel::{Key, Keyed, connect};
use stigmer::grpc::generated::agent::executions_client::ExecutionsClient;
use stigmer::grpc::generated::agent::runners_client::RunnersClient;
use stigmer::grpc::generated::agent::sessions_client::SessionsClient;
use stigmer::grpc::generated::host::commands_client::CommandsClient;
use stigmer::grpc::generated::host::daemon_client::DaemonClient;
use stigmer::grpc::generated::host::files_client::FilesClient;
use stigmer::grpc::generated::host::sandboxes_client::SandboxesClient;
use stigmer_sdk::wire::host;
use stigmer_tests::Daemon;

/// What a local daemon accepts from its own user.
pub(crate) const LOCAL_KEY: &str = "dummy-local-key";
/// More than any message here has.
const MESSAGE_BYTES: usize = 64 << 20;

/// A connection of its own.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) channel: Keyed,
}

impl Client {
    /// Over the Unix socket.
    pub(crate) async fn connect(daemon: &Daemon) -> Self {
        Self::connect_with(&format!("unix:{}", daemon.socket().display()), LOCAL_KEY).await
    }

    pub(crate) async fn connect_with(endpoint: &str, key: &str) -> Self {
        let key = Key::new(key).expect("a key");
        let channel = connect(endpoint, key).await.expect("a daemon");
        Self { channel }
    }

    pub(crate) fn daemon(&self) -> DaemonClient<Keyed> {
        DaemonClient::new(self.channel.clone())
    }

    pub(crate) fn sandboxes(&self) -> SandboxesClient<Keyed> {
        SandboxesClient::new(self.channel.clone())
    }

    pub(crate) fn commands(&self) -> CommandsClient<Keyed> {
        CommandsClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }

    pub(crate) fn files(&self) -> FilesClient<Keyed> {
        FilesClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }

    pub(crate) fn sessions(&self) -> SessionsClient<Keyed> {
        SessionsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES)
    }

    pub(crate) fn executions(&self) -> ExecutionsClient<Keyed> {
        ExecutionsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES)
    }

    pub(crate) fn runners(&self) -> RunnersClient<Keyed> {
        RunnersClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES)
    }

    /// Creates a sandbox with a workspace of its own, and gives its id.
    pub(crate) async fn create(&self, name: &str) -> String {
        let request = host::CreateSandboxRequest {
            name: Some(name.to_owned()),
            ..host::CreateSandboxRequest::default()
        };
        let answer = self.sandboxes().create(request).await;
        let sandbox = answer.expect("a sandbox").into_inner().sandbox;
        sandbox.expect("a sandbox").sandbox_id
    }
}

/// A line of shell in a sandbox.
pub(crate) fn shell(sandbox: &str, line: &str) -> host::Run {
    host::Run {
        sandbox_id: sandbox.to_owned(),
        program: Some(host::run::Program::Shell(line.to_owned())),
        ..host::Run::default()
    }
}
