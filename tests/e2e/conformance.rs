//! The native backend keeps the contract: on its own, and at the far end of
//! the daemon's gRPC.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use stigmer::grpc::backend_client::RemoteBackend;
use stigmer_filesystem::{Config, Filesystem};
use stigmer_sdk::Backend;
use stigmer_sdk::conformance::{Options, Report, run};
use stigmer_tests::{Daemon, Home, binary, note};

use crate::client::Client;

#[tokio::test(flavor = "multi_thread")]
async fn the_native_backend_keeps_the_contract() {
    let home = Home::new();
    let config = Config {
        data_dir: home.data(),
        launcher: binary::path().to_owned(),
        env: BTreeMap::from([
            ("HOME".to_owned(), home.path("home").display().to_string()),
            ("ANTHROPIC_API_KEY".to_owned(), "never seen".to_owned()),
        ]),
    };
    let mut options = Options::new(Filesystem::open(config.clone()));
    options.reopen = Some(Arc::new(move || {
        let config = config.clone();
        Box::pin(async move {
            let backend = Filesystem::open(config);
            backend.recover().await?;
            Ok(backend as Arc<dyn Backend>)
        })
    }));
    judge(&run(options).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_keeps_the_contract_over_grpc() {
    let home = Arc::new(Home::new());
    let daemon = home.daemon();
    let mut options = Options::new(remote(&daemon).await);
    let daemon = Arc::new(Mutex::new(Some(daemon)));
    options.reopen = Some(Arc::new(move || {
        let (daemon, home) = (Arc::clone(&daemon), Arc::clone(&home));
        Box::pin(async move {
            let before = daemon.lock().expect("one at a time").take();
            let restart = move || {
                before.expect("a daemon").kill();
                home.daemon()
            };
            let fresh = tokio::task::spawn_blocking(restart)
                .await
                .expect("a daemon");
            let backend = remote(&fresh).await;
            *daemon.lock().expect("one at a time") = Some(fresh);
            Ok(backend)
        })
    }));
    judge(&run(options).await);
}

async fn remote(daemon: &Daemon) -> Arc<dyn Backend> {
    let client = Client::connect(daemon).await;
    Arc::new(
        RemoteBackend::open(client.channel)
            .await
            .expect("a backend"),
    )
}

#[track_caller]
fn judge(report: &Report) {
    note(&report.to_string());
    assert!(report.is_success(), "{report}");
    assert_eq!(report.not_run(), [""; 0]);
}
