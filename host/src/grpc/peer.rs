//! Who is at the other end of a local connection.
//!
//! The kernel says: by `SO_PEERCRED` on a Unix socket, and for loopback TCP by
//! `/proc/net/tcp`, which lists the owner of every socket. Both are asked once
//! per connection, at accept. An answer that is not clear counts as nobody.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tonic::transport::server::Connected;

/// The user at the other end, if the kernel could tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: Option<u32>,
}

/// A connection of either kind, with its peer.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    peer: Peer,
    /// Held for as long as the connection: there are only so many.
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    pub(super) fn unix(stream: UnixStream, permit: OwnedSemaphorePermit) -> Self {
        let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
        Self {
            stream: Stream::Unix(stream),
            peer: Peer { uid },
            _permit: permit,
        }
    }

    /// Reads `/proc`, which takes milliseconds on a machine with a large table
    /// of sockets; hence away from the runtime's workers.
    pub(super) async fn tcp(stream: TcpStream, permit: OwnedSemaphorePermit) -> io::Result<Self> {
        // Small messages would otherwise wait 44 ms for the other side's
        // delayed acknowledgement.
        stream.set_nodelay(true)?;
        let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
        let uid = tokio::task::spawn_blocking(move || owner(local, remote))
            .await
            .unwrap_or_default();
        Ok(Self {
            stream: Stream::Tcp(stream),
            peer: Peer { uid },
            _permit: permit,
        })
    }
}

/// The user who owns the other end of a connection within this machine.
fn owner(local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    // A client may have connected to 127.0.0.1 by an IPv6 socket.
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .find_map(|table| owner_in(&table, remote, local))
}

/// The owner of the socket that is bound to `local` and connected to `remote`,
/// in a table as `/proc/net/tcp` has it.
///
/// A socket that its process has closed is listed without an inode and as
/// root's: that says nothing about who opened it.
fn owner_in(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let (local, remote) = (spellings(local), spellings(remote));
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, from, to, _, _, _, _, uid, _, inode, ..] = fields[..] else {
            return None;
        };
        let ours = local.iter().any(|address| address == from)
            && remote.iter().any(|address| address == to);
        (ours && inode != "0").then(|| uid.parse().ok()).flatten()
    })
}

/// An address as the kernel prints it, in hexadecimal of the machine's own
/// byte order; of IPv4 also as the IPv6 address that stands for it.
fn spellings(address: SocketAddr) -> Vec<String> {
    let words = |octets: &[u8]| -> String {
        octets
            .chunks_exact(4)
            .map(|word| {
                format!(
                    "{:08X}",
                    u32::from_ne_bytes([word[0], word[1], word[2], word[3]])
                )
            })
            .collect()
    };
    let port = address.port();
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => vec![
            format!("{}:{port:04X}", words(&ip.octets())),
            format!("{}:{port:04X}", words(&ip.to_ipv6_mapped().octets())),
        ],
        IpAddr::V6(ip) => vec![format!("{}:{port:04X}", words(&ip.octets()))],
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:C383 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 33001 1 0 100 0 0 10 0
   1: 0100007F:D431 0100007F:C383 01 00000000:00000000 00:00000000 00000000  1001        0 33002 1 0 20 4 30 10 -1
   2: 0100007F:C383 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 33003 1 0 20 4 30 10 -1
   3: 0100007F:D432 0100007F:C383 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0
   4: 0200007F:D433 0100007F:C383 01 00000000:00000000 00:00000000 00000000     0        0 33004 1 0
   5: truncated
";
    const TCP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0000000000000000FFFF00000100007F:D434 0000000000000000FFFF00000100007F:C383 01 00000000:00000000 00:00000000 00000000  1002        0 33005 1 0
   1: 00000000000000000000000001000000:D435 00000000000000000000000001000000:C383 01 00000000:00000000 00:00000000 00000000  1003        0 33006 1 0
";

    #[test]
    fn the_owner_of_the_other_end_is_found() {
        #[track_caller]
        fn check(table: &str, client: &str, server: &str, uid: Option<u32>) {
            let (client, server) = (client.parse().unwrap(), server.parse().unwrap());
            assert_eq!(owner_in(table, client, server), uid);
        }
        // 0xC383 is 50051, 0xD431 is 54321.
        check(TCP, "127.0.0.1:54321", "127.0.0.1:50051", Some(1001));
        // A socket nobody holds any more does not count as root's.
        check(TCP, "127.0.0.1:54322", "127.0.0.1:50051", None);
        check(TCP, "127.0.0.2:54323", "127.0.0.1:50051", Some(0));
        check(TCP, "127.0.0.1:54323", "127.0.0.1:50051", None);
        check(TCP, "127.0.0.1:1", "127.0.0.1:50051", None);
        check("", "127.0.0.1:54321", "127.0.0.1:50051", None);
        check(TCP6, "127.0.0.1:54324", "127.0.0.1:50051", Some(1002));
        check(
            TCP6,
            "[::ffff:127.0.0.1]:54324",
            "127.0.0.1:50051",
            Some(1002),
        );
        check(TCP6, "[::1]:54325", "[::1]:50051", Some(1003));
    }

    #[tokio::test]
    async fn this_process_is_its_own_peer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let permit = std::sync::Arc::new(tokio::sync::Semaphore::new(1))
            .acquire_owned()
            .await
            .unwrap();
        let connection = Connection::tcp(accepted.unwrap().0, permit).await.unwrap();
        let us = rustix::process::getuid().as_raw();
        assert_eq!(connection.connect_info().uid, Some(us));
        drop(client);
    }
}
