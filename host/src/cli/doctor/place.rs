//! Where Stigmer keeps things and serves them: directories, the port, the daemon.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Access, access, statvfs};
use stigmer_sdk::wire::host::{InfoRequest, InfoResponse};

use super::Check;
use crate::cli::daemon::Daemon;
use crate::cli::failure::{Failure, Result};
use crate::cli::output;
use crate::config::Config;

/// How long a daemon has to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Less space than this is worth a word.
const LITTLE: u64 = 1 << 30;

pub(super) async fn checks(config: &Config) -> Vec<Check> {
    let daemon = ask(config).await;
    vec![
        directory(
            "data directory",
            &config.data_dir,
            "choose another with --data-dir or STIGMER_DATA_DIR",
        ),
        directory(
            "workspace",
            &config.root,
            "choose another with --root or SANDBOX_ROOT_DIR",
        ),
        port(config.port, daemon.is_ok()),
        daemon_check(daemon),
    ]
}

/// Whether a directory can be written to, or created.
fn directory(name: &'static str, path: &Path, remedy: &str) -> Check {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => {
            Check::fail(name, format!("{shown} is not a directory"), remedy)
        }
        Ok(_) => writable(name, path, path, remedy),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = path
                .ancestors()
                .skip(1)
                .find(|above| above.exists())
                .unwrap_or(Path::new("/"));
            if above.is_dir() {
                writable(name, path, above, remedy)
            } else {
                Check::fail(
                    name,
                    format!("{shown} cannot be created: {} is a file", above.display()),
                    remedy,
                )
            }
        }
        Err(error) => Check::fail(name, format!("{shown}: {error}"), remedy),
    }
}

fn writable(name: &'static str, path: &Path, there: &Path, remedy: &str) -> Check {
    let shown = path.display();
    if access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return Check::fail(
            name,
            format!("{shown}: no permission to write in {}", there.display()),
            remedy,
        );
    }
    let created = if path == there {
        ""
    } else {
        ", created when needed"
    };
    match statvfs(there).map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize)) {
        Ok(free) if free < LITTLE => Check::warn(
            name,
            format!("{shown}: only {} free", output::bytes(free)),
            "make room on that file system",
        ),
        Ok(free) => Check::ok(
            name,
            format!("{shown}{created}, {} free", output::bytes(free)),
        ),
        Err(error) => Check::warn(
            name,
            format!("{shown}: free space unknown: {error}"),
            remedy,
        ),
    }
}

fn port(port: u16, ours_answers: bool) -> Check {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Check::ok("port", format!("{port} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && ours_answers => Check::ok(
            "port",
            format!("{port} is taken, as it should be while the daemon runs"),
        ),
        Err(error) => Check::warn(
            "port",
            format!("{port} cannot be used: {error}"),
            format!(
                "see who has it with: ss -ltnp 'sport = :{port}', or choose another with --port"
            ),
        ),
    }
}

async fn ask(config: &Config) -> Result<InfoResponse, String> {
    let info = async {
        let daemon = Daemon::connect(config).await?;
        Result::<_, Failure>::Ok(daemon.daemon().info(InfoRequest {}).await?.into_inner())
    };
    match tokio::time::timeout(PATIENCE, info).await {
        Ok(Ok(info)) => Ok(info),
        Ok(Err(failure)) => Err([failure.problems, failure.causes].concat().join(": ")),
        Err(_) => Err("it does not answer".to_owned()),
    }
}

fn daemon_check(daemon: Result<InfoResponse, String>) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    match daemon {
        Ok(info) if info.version == own => {
            Check::ok("daemon", format!("running, {} mode", info.mode))
        }
        Ok(info) => Check::warn(
            "daemon",
            format!("version {} is running, and this is {own}", info.version),
            "stop it and start it again",
        ),
        Err(problem) => Check::warn(
            "daemon",
            problem,
            "start it with: stigmer local start (stigmer exec needs none)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn a_directory_must_be_one_or_become_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let fails = |path: &Path| directory("workspace", path, "mend it").status == Status::Fail;
        assert!(!fails(dir.path()));
        assert!(!fails(&dir.path().join("a/b")));
        assert!(fails(&file));
        assert!(fails(&file.join("below")));
    }

    #[test]
    fn a_port_that_is_taken_is_fine_if_it_is_ours() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let number = taken.local_addr().unwrap().port();
        assert_eq!(port(number, true).status, Status::Ok);
        assert_eq!(port(number, false).status, Status::Warn);
    }

    #[test]
    fn another_version_is_a_warning() {
        let info = |version: &str| InfoResponse {
            version: version.to_owned(),
            mode: "local".to_owned(),
            ..InfoResponse::default()
        };
        assert_eq!(
            daemon_check(Ok(info(env!("CARGO_PKG_VERSION")))).status,
            Status::Ok
        );
        assert_eq!(daemon_check(Ok(info("0.0.0"))).status, Status::Warn);
        assert_eq!(daemon_check(Err("gone".to_owned())).status, Status::Warn);
    }
}
