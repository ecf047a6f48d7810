//! The daemon's two listeners, and who is in the way when they cannot be had.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use stigmer_sdk::{Error, ErrorCode, Result};
use tokio::net::{TcpListener, UnixListener};

use crate::local::port_owner;

/// `sun_path` has 108 bytes, the last of them NUL.
const MAX_SOCKET_PATH: usize = 107;

/// The Unix socket's file, removed in the end.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // If it is gone already, so much the better.
        drop(std::fs::remove_file(&self.0));
    }
}

/// Listens on the Unix socket. Only for whoever holds the data directory's
/// lock: then a file that is there is what a daemon left that was killed.
pub(super) fn unix(path: &Path) -> Result<(UnixListener, SocketFile)> {
    let length = path.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!(
                "the socket's path {} has {length} bytes, and the system allows {MAX_SOCKET_PATH}; \
                 set STIGMER_DATA_DIR to a shorter one",
                path.display()
            ),
        ));
    }
    let failed = |error: std::io::Error| {
        Error::internal(format!("cannot listen on {}", path.display()), error)
    };
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let file = SocketFile(path.to_owned());
    // Until this, the directory's own permissions keep others out.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok((listener, file))
}

/// Listens on loopback.
pub(super) async fn tcp(port: u16) -> Result<(TcpListener, SocketAddr)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let holder = port_owner::of(port).unwrap_or_else(|| "another process".to_owned());
            return Err(Error::new(
                ErrorCode::Unavailable,
                format!(
                    "{address} is in use by {holder}; stop it, or choose another port with --port (0: any that is free)"
                ),
            ));
        }
        Err(error) => {
            return Err(Error::new(
                ErrorCode::Unavailable,
                format!("cannot listen on {address}"),
            )
            .with_source(error));
        }
    };
    let address = listener
        .local_addr()
        .map_err(|error| Error::internal("cannot tell the port that was given", error))?;
    Ok((listener, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_is_an_error_that_says_by_whom() {
        let (_held, address) = tcp(0).await.unwrap();
        let error = tcp(address.port()).await.unwrap_err();
        let holder = format!("in use by process {} (", std::process::id());
        assert!(error.message().contains(&holder), "{error}");
        assert!(error.message().contains("--port"), "{error}");
        assert!(error.message().contains(&address.to_string()), "{error}");
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_ours_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stigmer.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (listener, file) = unix(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        drop((listener, file));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_an_error_that_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = unix(&dir.path().join("x".repeat(108))).unwrap_err();
        assert!(error.message().contains("107"), "{error}");
        assert!(error.message().contains("STIGMER_DATA_DIR"), "{error}");
    }
}
