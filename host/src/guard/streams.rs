//! Data on its way through the guard: counted, and not allowed to stand still.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use futures_core::stream::BoxStream;
use stigmer_sdk::{ByteStream, Error, ErrorCode, Result};
use tokio::time::Sleep;

use super::audit::{Audit, Outcome};

/// What a backend sends, with a deadline on each item from when it is waited
/// for: a slow reader is not a backend that stands still.
pub(super) struct Watched<T> {
    items: BoxStream<'static, Result<T>>,
    size: fn(&T) -> u64,
    audit: Audit,
    patience: Duration,
    /// Runs while an item is waited for.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    /// It stood still for too long.
    over: bool,
}

impl<T> Watched<T> {
    pub(super) fn new(
        items: BoxStream<'static, Result<T>>,
        size: fn(&T) -> u64,
        audit: Audit,
        patience: Duration,
    ) -> Self {
        Self {
            items,
            size,
            audit,
            patience,
            timer: None,
            waiting: false,
            over: false,
        }
    }

    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let patience = self.patience;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        if !std::mem::replace(&mut self.waiting, true) {
            timer.as_mut().reset(tokio::time::Instant::now() + patience);
        }
        timer.as_mut().poll(context)
    }
}

impl<T> Stream for Watched<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let Poll::Ready(item) = self.items.as_mut().poll_next(context) else {
            ready!(self.poll_timer(context));
            let error = stalled(self.patience);
            self.audit.end(&Outcome::Error(error.code()));
            self.over = true;
            return Poll::Ready(Some(Err(error)));
        };
        self.waiting = false;
        match &item {
            Some(Ok(item)) => self.audit.bytes += (self.size)(item),
            Some(Err(error)) => self.audit.end(&Outcome::Error(error.code())),
            None => self.audit.end(&Outcome::Ok),
        }
        Poll::Ready(item)
    }
}

/// What a caller sends: counted as the backend takes it.
pub(super) struct Counted {
    data: ByteStream,
    bytes: Arc<AtomicU64>,
}

impl Counted {
    /// The data, and the bytes of it that were taken so far.
    pub(super) fn new(data: ByteStream) -> (Self, Arc<AtomicU64>) {
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Self {
            data,
            bytes: Arc::clone(&bytes),
        };
        (counted, bytes)
    }
}

impl Stream for Counted {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(self.data.as_mut().poll_next(context));
        if let Some(Ok(bytes)) = &item {
            self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(item)
    }
}

/// Runs `work` until it ends or `progress` has not moved for this long: twice
/// it at most, because it is only looked at when the time is over.
pub(super) async fn while_moving<T>(
    patience: Duration,
    progress: &AtomicU64,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut work = std::pin::pin!(work);
    loop {
        let before = progress.load(Ordering::Relaxed);
        match tokio::time::timeout(patience, &mut work).await {
            Ok(result) => return result,
            Err(_) if progress.load(Ordering::Relaxed) == before => return Err(stalled(patience)),
            Err(_) => {}
        }
    }
}

/// The error of an operation that did not end or move in time.
pub(super) fn stalled(patience: Duration) -> Error {
    let patience = humantime::format_duration(patience);
    Error::new(
        ErrorCode::TimedOut,
        format!("the backend made no progress for {patience}"),
    )
}
