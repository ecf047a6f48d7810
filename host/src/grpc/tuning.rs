//! How much of HTTP/2 one connection may use, on either side. Every number is
//! here, with its reason.

use std::time::Duration;

/// What a peer may send on one stream before this side has read it, so also
/// the memory that one reader who does not read costs. It must cover what the
/// wire carries while a window update is on its way: at 2 GiB/s and 1 ms of
/// scheduling that is 2 MiB.
pub(super) const STREAM_WINDOW: u32 = 4 * 1024 * 1024;

/// The same for all streams of a connection together. It has to exceed what
/// the streams may hold, or a few commands whose output nobody reads would
/// stop all others on that connection: hence the largest that HTTP/2 has.
pub(super) const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// Streams of one connection at a time, which times [`STREAM_WINDOW`] is the
/// connection's window. More of them wait their turn at the client.
pub(super) const MAX_STREAMS: u32 = 511;

/// One frame. HTTP/2's own 16 KiB cost a quarter of the throughput, and beyond
/// this there is nothing to gain: a frame is buffered until it is complete, and
/// a megabyte does not stay in the processor's cache until it is copied on.
pub(super) const FRAME: u32 = 256 * 1024;

/// Headers of a request or trailers of an answer: a full error trailer, which
/// has a path of 4 KiB and a message of 4 KiB in base64, and its neighbours.
pub(super) const HEADERS: u32 = 32 * 1024;

/// A peer that vanished without closing is noticed after this and the next.
/// Its commands end then. On loopback nobody vanishes; through a forwarded
/// port they do.
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// See [`KEEPALIVE_INTERVAL`].
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Connections at a time. One costs some 50 KiB; a client needs one.
pub(super) const MAX_CONNECTIONS: usize = 1024;

/// One message that a backend may answer with. Ours stay at 1 MiB; one that
/// comes from elsewhere may be generous, but not without bound.
pub(super) const BACKEND_MESSAGE: usize = 16 * 1024 * 1024;
