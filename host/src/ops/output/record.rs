//! The whole output on its way to a file in the sandbox.

use std::sync::Arc;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use futures_util::StreamExt;
use stigmer_sdk::{Error, Metadata, Result, Sandbox, WriteOptions};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Capture, Captured};

/// Pieces that may wait for the file. Enough to write while the next are read;
/// past it the command waits, and memory does not grow.
const PIECES: usize = 4;

/// Writes a capture file as the pieces come. Not a task: it only moves while
/// its owner waits in one of its methods.
pub(super) struct Recorder {
    sandbox: Arc<dyn Sandbox>,
    capture: Capture,
    bytes: u64,
    truncated: bool,
    state: State,
}

enum State {
    /// Nothing calls for a file yet. What came so far is kept for it.
    Waiting(Vec<u8>),
    /// The write is under way. Without a sender, all of it was sent.
    Writing(
        Option<mpsc::Sender<Result<Bytes>>>,
        BoxFuture<'static, Result<Metadata>>,
    ),
    Done(Result<()>),
}

impl Recorder {
    pub(super) fn new(sandbox: Arc<dyn Sandbox>, capture: Capture) -> Self {
        let mut recorder = Self {
            sandbox,
            capture,
            bytes: 0,
            truncated: false,
            state: State::Waiting(Vec::new()),
        };
        if recorder.capture.always {
            recorder.begin();
        }
        recorder
    }

    /// Begins the file with what was kept, unless it has begun.
    pub(super) fn begin(&mut self) {
        let State::Waiting(kept) = &mut self.state else {
            return;
        };
        let kept = Bytes::from(std::mem::take(kept));
        let (sender, receiver) = mpsc::channel(PIECES);
        let first = (!kept.is_empty()).then_some(Ok(kept));
        let data = futures_util::stream::iter(first).chain(ReceiverStream::new(receiver));
        let (sandbox, path) = (Arc::clone(&self.sandbox), self.capture.path.clone());
        let write = async move {
            sandbox
                .write(&path, WriteOptions::default(), data.boxed())
                .await
        };
        // At the cap already, there is nothing more to send.
        let sender = (!self.truncated).then_some(sender);
        self.state = State::Writing(sender, Box::pin(write));
    }

    /// Goes on writing while `work` is waited for.
    pub(super) async fn alongside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        if let State::Writing(_, write) = &mut self.state {
            tokio::select! {
                biased;
                value = &mut work => return value,
                result = write => self.state = State::Done(result.map(drop)),
            }
        }
        work.await
    }

    /// Adds a piece of the output, or as much of it as the cap allows.
    pub(super) async fn write(&mut self, mut bytes: Bytes) {
        if self.truncated {
            return;
        }
        let room = self.capture.max_bytes - self.bytes;
        self.truncated = bytes.len() as u64 > room;
        bytes.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        self.bytes += bytes.len() as u64;
        let sender = match &mut self.state {
            State::Waiting(kept) => {
                kept.extend_from_slice(&bytes);
                return;
            }
            // The last piece goes with the sender, whose end is the file's.
            State::Writing(sender, _) if self.truncated => sender.take(),
            State::Writing(sender, _) => sender.clone(),
            State::Done(_) => None,
        };
        if let Some(sender) = sender
            && !bytes.is_empty()
        {
            // A write that failed takes no more; its own result says why.
            self.alongside(sender.send(Ok(bytes))).await.ok();
        }
    }

    /// Ends the file. `None` if nothing called for one.
    pub(super) async fn finish(self) -> Option<Result<Captured>> {
        let result = match self.state {
            State::Waiting(_) => return None,
            State::Writing(sender, write) => {
                drop(sender);
                write.await.map(drop)
            }
            State::Done(result) => result,
        };
        Some(result.map(|()| Captured {
            path: self.capture.path,
            bytes: self.bytes,
            truncated: self.truncated,
        }))
    }

    /// Leaves no file, because the output was lost: the write ends with this
    /// error instead of becoming visible.
    pub(super) async fn give_up(mut self, error: Error) {
        if let State::Writing(Some(sender), _) = &mut self.state {
            let sender = sender.clone();
            self.alongside(sender.send(Err(error))).await.ok();
            drop(sender);
            self.finish().await;
        }
    }
}
