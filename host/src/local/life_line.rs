//! The pipe from the daemon to a process that may not outlive it.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;

use stigmer_sdk::{Error, Result};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

/// Is over when the other end of stdin is closed, be it that whoever holds it
/// has died. A notice by the kernel of a parent's death would follow one
/// thread of it, and could be missed by a process that starts just then.
///
/// # Errors
/// If stdin is no pipe.
pub fn life_line() -> Result<impl Future<Output = ()> + Send + 'static> {
    let failed = |error: io::Error| Error::internal("stdin is no pipe from a daemon", error);
    let stdin: OwnedFd = rustix::stdio::stdin()
        .try_clone_to_owned()
        .map_err(failed)?;
    let mut pipe = Receiver::from_owned_fd(stdin).map_err(failed)?;
    Ok(async move {
        // Nothing is said on it any more; whatever comes is not for us.
        let mut buffer = [0; 64];
        while matches!(pipe.read(&mut buffer).await, Ok(1..)) {}
    })
}
