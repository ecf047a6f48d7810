//! What the host says to the processes that run commands for it, and back.
//!
//! ```text
//! host ──▶ launcher            one per backend: forks supervisors
//! host ──▶ └─ supervisor       one per sandbox: forks runners, owns what they leave behind
//! host ──▶    └─ runner        one per command at a time: starts it, waits, kills its tree
//! host ◀──       └─ command    output goes straight to the host, by pipes that it made
//! ```
//!
//! Each arrow from the host is a socket of its own, so that the end of the host
//! is the end of every one of them at once. A frame is a length and a
//! `postcard` message; descriptors travel beside the first byte.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The most bytes of a frame. The kernel takes no more than 6 MiB of arguments
/// and environment, so nothing that could run is refused.
const MAX_FRAME: usize = 8 << 20;
/// The most descriptors beside a frame.
const MAX_FDS: usize = 4;

/// To the launcher, beside one descriptor: the supervisor's end of its socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StartSupervisor {
    /// `RLIMIT_DATA` of every process of the sandbox.
    pub(crate) memory_bytes: Option<u64>,
    /// `RLIMIT_FSIZE` of every process of the sandbox.
    pub(crate) file_bytes: Option<u64>,
}

/// To a supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToSupervisor {
    /// Beside one descriptor: the runner's end of its socket.
    StartRunner,
    /// End, unless something that a command left behind is still running.
    LeaveIfIdle,
}

/// From a supervisor, when asked to leave while it cannot.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StillBusy;

/// To a runner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToRunner {
    /// Beside four descriptors: working directory, stdin, stdout, stderr.
    Start(Start),
    Signal {
        /// The number that `Start` gave. A signal that comes late is for
        /// nobody, and not for the next command.
        command: u64,
        /// As `signal(7)` has it on Linux.
        signal: i32,
        /// The foreground group of its terminal, where there is one.
        group: Option<i32>,
    },
}

/// A command to start.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) command: u64,
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// The path of the terminal that is to control it.
    pub(crate) terminal: Option<String>,
}

/// From a runner: exactly one for each `Start`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromRunner {
    /// It did not start. The code is 126 or 127.
    NotStarted { code: u8, reason: String },
    Exited {
        status: Status,
        /// Whether processes of its tree live on. The runner then ends, and
        /// they are the supervisor's.
        survivors: bool,
    },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Status {
    Code(u8),
    Signal(i32),
}

/// A blocking end of one of the sockets, for processes without a runtime.
#[derive(Debug)]
pub(crate) struct Channel(UnixStream);

impl Channel {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = UnixStream::from(socket);
        socket.set_nonblocking(false)?;
        Ok(Self(socket))
    }

    /// Lets go of this end, in a forked child to which it does not belong.
    pub(crate) fn replace(&mut self, with: OwnedFd) -> io::Result<()> {
        self.0 = UnixStream::from(with);
        Ok(())
    }

    pub(crate) fn send(&self, message: &impl Serialize) -> io::Result<()> {
        (&self.0).write_all(&encode(message)?)
    }

    /// The next message and what came beside it; `None` when the host is gone.
    pub(crate) fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let mut length = [0; 4];
        let mut fds = Vec::new();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut buffers = [IoSliceMut::new(&mut length)];
            match recvmsg(
                &self.0,
                &mut buffers,
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                received => break received?,
            }
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "descriptors were cut off",
            ));
        }
        (&self.0).read_exact(&mut length[received.bytes..])?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "frame is too long",
            ));
        }
        let mut body = vec![0; length];
        (&self.0).read_exact(&mut body)?;
        Ok(Some((decode(&body)?, fds)))
    }
}

impl std::os::fd::AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A message as a frame.
pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = postcard::to_extend(message, vec![0; 4]).map_err(io::Error::other)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(rustix::io::Errno::TOOBIG.into());
    }
    let length = u32::try_from(length).map_err(io::Error::other)?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// The first frame in `buffer` and its length with its header, if it is whole.
pub(crate) fn decode_frame<M: DeserializeOwned>(buffer: &[u8]) -> io::Result<Option<(M, usize)>> {
    let Some((length, rest)) = buffer.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "frame is too long",
        ));
    }
    match rest.get(..length) {
        Some(body) => Ok(Some((decode(body)?, length + 4))),
        None => Ok(None),
    }
}

/// Sends as much of `bytes` as fits, with `fds` beside the first.
pub(crate) fn send_with(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors for one frame"));
    }
    Ok(sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?)
}

fn decode<M: DeserializeOwned>(body: &[u8]) -> io::Result<M> {
    postcard::from_bytes(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn frames_carry_messages_and_descriptors() {
        let (here, there) = UnixStream::pair().unwrap();
        let frame = encode(&ToSupervisor::StartRunner).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(
            send_with(here.as_fd(), &frame, &[null.as_fd()]).unwrap(),
            frame.len()
        );
        let channel = Channel::new(there.into()).unwrap();
        let (message, fds) = channel.receive::<ToSupervisor>().unwrap().unwrap();
        assert!(matches!(message, ToSupervisor::StartRunner));
        assert_eq!(fds.len(), 1);
        drop(here);
        assert!(channel.receive::<ToSupervisor>().unwrap().is_none());
    }

    #[test]
    fn garbage_is_an_error_and_no_allocation() {
        let (here, there) = UnixStream::pair().unwrap();
        (&here).write_all(&[0xff; 64]).unwrap();
        assert!(
            Channel::new(there.into())
                .unwrap()
                .receive::<ToRunner>()
                .is_err()
        );
        assert!(decode_frame::<FromRunner>(&[0xff; 64]).is_err());
        assert!(
            decode_frame::<FromRunner>(&[9, 0, 0, 0, 1])
                .unwrap()
                .is_none()
        );
    }
}
