//! Who may use a daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use stigmer_sdk::wire::host;
use stigmer_tests::{Cli, Daemon, Home, binary, skip};
use tonic::Code;

use crate::client::{Client, LOCAL_KEY};

#[test]
fn over_tcp_the_key_counts() {
    let home = Home::new();
    let daemon = home.daemon();
    let endpoint = daemon.tcp().to_string();
    let list = |key: &str| {
        home.stigmer(["--endpoint", &endpoint, "sandbox", "list"])
            .env("STIGMER_API_KEY", key)
            .run()
    };
    list(LOCAL_KEY).ok();
    let refused = list("wrong-key");
    refused.fails(1, "hint: the daemon takes the key in STIGMER_API_KEY");
    assert!(!refused.complaint().contains("wrong-key"), "{refused}");
    daemon.stop();
}

#[tokio::test]
async fn every_service_asks_for_the_key() {
    let home = Home::new();
    let daemon = home.daemon();
    for endpoint in [
        daemon.tcp().to_string(),
        format!("unix:{}", daemon.socket().display()),
    ] {
        let client = Client::connect_with(&endpoint, "wrong-key").await;
        let request = host::ListSandboxesRequest::default();
        let listed = client.sandboxes().list(request).await.map(|_| ());
        let run = client
            .commands()
            .exec(host::ExecRequest::default())
            .await
            .map(|_| ());
        let read = client
            .files()
            .read_text(host::ReadTextRequest::default())
            .await
            .map(|_| ());
        for answer in [listed, run, read] {
            assert_eq!(
                answer.unwrap_err().code(),
                Code::Unauthenticated,
                "{endpoint}"
            );
        }
    }
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{}", daemon.tcp())).unwrap();
    let mut bare = stigmer::grpc::generated::host::daemon_client::DaemonClient::connect(channel)
        .await
        .unwrap();
    let answer = bare.info(host::InfoRequest {}).await;
    assert_eq!(answer.unwrap_err().code(), Code::Unauthenticated);
    tokio::task::spawn_blocking(|| daemon.stop()).await.unwrap();
}

/// `stigmer` as a user who is not us, or a reason why that cannot be.
fn as_another(home: &Home, args: &[&str]) -> Result<Cli, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root can become another user".to_owned());
    }
    let build = |args: &[&str]| {
        let mut command = home.command("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(binary::path())
            .args(args)
            .env("HOME", "/")
            .env_remove("STIGMER_DATA_DIR")
            .env_remove("SANDBOX_ROOT_DIR")
            .current_dir("/");
        command
    };
    match build(&["--version"]).output() {
        Ok(output) if output.status.success() => Ok(Cli::new(build(args))),
        Ok(output) => Err(format!(
            "another user cannot run the program: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => Err(format!("there is no setpriv: {error}")),
    }
}

#[test]
fn another_user_is_refused_over_tcp() {
    let home = Home::new();
    let daemon = home.daemon();
    let endpoint = daemon.tcp().to_string();
    refused(&home, &daemon, &endpoint);
}

#[test]
fn another_user_is_refused_on_the_socket() {
    let home = Home::new();
    let daemon = home.daemon();
    // Whatever the permissions of the path say: they are not the only fence.
    for (path, mode) in [
        (home.path(""), 0o755),
        (home.data(), 0o755),
        (daemon.socket().to_owned(), 0o666),
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let endpoint = format!("unix:{}", daemon.socket().display());
    refused(&home, &daemon, &endpoint);
}

/// Lists sandboxes as somebody else with the right key, and is refused.
fn refused(home: &Home, daemon: &Daemon, endpoint: &str) {
    match as_another(home, &["--endpoint", endpoint, "sandbox", "list"]) {
        Ok(cli) => {
            let output = cli.run();
            output.fails(1, "error: ");
            assert_eq!(output.text(), "", "{output}");
            assert!(
                !output.complaint().contains("cannot connect"),
                "it got there: {output}"
            );
        }
        Err(reason) => skip("another user", &reason),
    }
    // Ourselves it still serves.
    home.stigmer(["sandbox", "list"]).ok();
    assert!(daemon.pid() > 0);
}
