//! Many files in one call, each with a result of its own.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use stigmer_sdk::wire::host::{self as pb, download_response, upload_request, upload_result};
use stigmer_sdk::wire::{self, invalid, required};
use stigmer_sdk::{
    ByteRange, ByteStream, Error, ErrorCode, Metadata, Result, Sandbox, WriteOptions,
};
use tokio::sync::oneshot;
use tonic::{Status, Streaming};

use super::files::small_enough;
use super::status::{from_status, to_status};
use super::streams::{Responses, chunks};

/// Files that a download opens ahead of the one it sends.
const OPEN_AHEAD: usize = 4;

/// The first request of an upload.
pub(super) async fn start(
    requests: &mut Streaming<pb::UploadRequest>,
) -> Result<pb::UploadStart, Status> {
    match requests.message().await?.and_then(|request| request.part) {
        Some(upload_request::Part::Start(start)) => Ok(start),
        Some(_) | None => Err(to_status(&invalid("start", "must come first"))),
    }
}

/// Where the reading of an upload is.
struct Incoming {
    requests: Streaming<pb::UploadRequest>,
    /// The next file, if its beginning was read as the end of another.
    next: Option<pb::UploadFile>,
    /// Within a file: `end` or what stands for it has not come.
    in_file: bool,
    /// The call cannot go on.
    broken: Option<Error>,
}

impl Incoming {
    async fn part(&mut self) -> Option<upload_request::Part> {
        let problem = match self.requests.message().await {
            Ok(None) => return None,
            Ok(Some(request)) => match required("part", request.part) {
                Ok(part) => return Some(part),
                Err(problem) => problem,
            },
            Err(status) => from_status(status),
        };
        self.broken = Some(problem);
        None
    }

    /// The next file, past what was not read of the one before.
    async fn file(&mut self) -> Option<pb::UploadFile> {
        while self.in_file {
            // Whoever wrote the file before gave up, and will not read it.
            drop(self.data().await);
        }
        if let Some(file) = self.next.take() {
            self.in_file = true;
            return Some(file);
        }
        match self.part().await? {
            upload_request::Part::File(file) => {
                self.in_file = true;
                Some(file)
            }
            upload_request::Part::Start(_)
            | upload_request::Part::Data(_)
            | upload_request::Part::End(_) => {
                self.broken = Some(invalid("file", "must come before `data` and `end`"));
                None
            }
        }
    }

    /// A piece of the current file; `None` at its end, and an error if it was
    /// given up.
    async fn data(&mut self) -> Option<Result<bytes::Bytes>> {
        let given_up = || Err(Error::new(ErrorCode::Cancelled, "the file was given up"));
        if !self.in_file {
            return None;
        }
        match self.part().await {
            Some(upload_request::Part::Data(bytes)) => return Some(Ok(bytes)),
            Some(upload_request::Part::End(_)) => {
                self.in_file = false;
                return None;
            }
            Some(upload_request::Part::File(next)) => self.next = Some(next),
            Some(upload_request::Part::Start(_)) => {
                self.broken = Some(invalid("start", "may only come first"))
            }
            None => {}
        }
        self.in_file = false;
        Some(given_up())
    }
}

/// Lends the requests to the write of one file, and gets them back when the
/// backend drops its data, at whatever point it does so.
struct Lent {
    incoming: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(incoming), Some(back)) = (self.incoming.take(), self.back.take()) {
            // If nobody is there to take it back, the call is over.
            drop(back.send(incoming));
        }
    }
}

fn lend(incoming: Incoming) -> (ByteStream, oneshot::Receiver<Incoming>) {
    let (back, returned) = oneshot::channel();
    let lent = Lent {
        incoming: Some(incoming),
        back: Some(back),
    };
    let data = stream::unfold(lent, |mut lent| async move {
        let data = lent.incoming.as_mut()?.data().await?;
        Some((data, lent))
    });
    (data.boxed(), returned)
}

/// Writes the files as they come. One that fails does not stop the others; an
/// error of the call itself does.
pub(super) async fn upload(
    sandbox: &dyn Sandbox,
    requests: Streaming<pb::UploadRequest>,
) -> Result<Vec<pb::UploadResult>> {
    let mut incoming = Incoming {
        requests,
        next: None,
        in_file: false,
        broken: None,
    };
    let mut results = Vec::new();
    while let Some(file) = incoming.file().await {
        let path = file.path.clone();
        let (data, returned) = lend(incoming);
        let written = write(sandbox, file, data).await;
        incoming = match returned.await {
            Ok(incoming) => incoming,
            Err(_) => {
                return Err(Error::new(
                    ErrorCode::Internal,
                    "the backend kept a file's data after it had answered",
                ));
            }
        };
        let outcome = match written {
            Ok(metadata) => upload_result::Outcome::Metadata(metadata.into()),
            Err(error) => upload_result::Outcome::Error((&error).into()),
        };
        results.push(pb::UploadResult {
            path,
            outcome: Some(outcome),
        });
    }
    match incoming.broken {
        Some(error) => Err(error),
        None => Ok(results),
    }
}

async fn write(sandbox: &dyn Sandbox, file: pb::UploadFile, data: ByteStream) -> Result<Metadata> {
    let path = wire::path("path", file.path)?;
    let options = WriteOptions::from_wire(file.mode, None, file.permissions)?;
    sandbox.write(&path, options, data).await
}

/// Reads the files in the order asked for.
pub(super) fn download(
    sandbox: Arc<dyn Sandbox>,
    paths: Vec<String>,
    max_bytes: Option<u64>,
) -> Responses<pb::DownloadResponse> {
    let files = (0_u32..).zip(paths).map(move |(index, path)| {
        let sandbox = Arc::clone(&sandbox);
        async move {
            let part = move |part| pb::DownloadResponse {
                index,
                part: Some(part),
            };
            let failed = move |error: &Error| part(download_response::Part::Error(error.into()));
            let (metadata, data) = match open(&*sandbox, &path, max_bytes).await {
                Ok(opened) => opened,
                Err(error) => return stream::iter([failed(&error)]).boxed(),
            };
            let first = part(download_response::Part::Metadata(metadata.into()));
            // A file that breaks off ends with its error instead of `end`.
            let rest = stream::unfold(Some(chunks(data)), move |data| async move {
                let mut data = data?;
                Some(match data.next().await {
                    Some(Ok(bytes)) => (part(download_response::Part::Data(bytes)), Some(data)),
                    Some(Err(error)) => (failed(&error), None),
                    None => (
                        part(download_response::Part::End(download_response::End {})),
                        None,
                    ),
                })
            });
            stream::iter([first]).chain(rest).boxed()
        }
    });
    stream::iter(files)
        .buffered(OPEN_AHEAD)
        .flatten()
        .map(Ok)
        .boxed()
}

async fn open(
    sandbox: &dyn Sandbox,
    path: &str,
    max_bytes: Option<u64>,
) -> Result<(Metadata, ByteStream)> {
    let wanted = wire::path("path", path)?;
    let (metadata, data) = sandbox.read(&wanted, ByteRange::default()).await?;
    small_enough(path, metadata.size, max_bytes)?;
    Ok((metadata, data))
}
