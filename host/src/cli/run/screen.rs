//! Writes pieces in their order, without ever making its owner wait.

use tokio::task::JoinHandle;

use super::render::Piece;
use crate::cli::failure::{Failure, Result};
use crate::cli::output::RawStream;

#[derive(Debug)]
pub(super) struct Screen {
    stdout: RawStream,
    stderr: RawStream,
    /// On a thread that may block as long as a reader is slow.
    writing: Option<JoinHandle<Result<()>>>,
}

impl Screen {
    pub(super) fn new(stdout: RawStream, stderr: RawStream) -> Self {
        Self {
            stdout,
            stderr,
            writing: None,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.writing.is_none()
    }

    /// Begins to write. Only when idle.
    pub(super) fn write(&mut self, pieces: Vec<Piece>) {
        let (stdout, stderr) = (self.stdout.clone(), self.stderr.clone());
        self.writing = Some(tokio::task::spawn_blocking(move || {
            for piece in pieces {
                match piece {
                    Piece::Out(text) => stdout.write(text.as_bytes())?,
                    Piece::Err(text) => {
                        // A stderr that is closed leaves nobody to tell.
                        let _unwritable = stderr.write(text.as_bytes());
                    }
                }
            }
            Ok(())
        }));
    }

    /// The end of a write, if there is one.
    pub(super) async fn written(&mut self) -> Result<()> {
        let Some(writing) = &mut self.writing else {
            return std::future::pending().await;
        };
        let written = writing.await;
        self.writing = None;
        written.unwrap_or_else(|error| Err(Failure::failed("a write broke off").because(&error)))
    }
}
