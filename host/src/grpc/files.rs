//! The service `Files`: one call for each operation that an agent thinks of as
//! one.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use stigmer_sdk::wire::host::{self as pb, read_file_response, read_text_response};
use stigmer_sdk::wire::{self, invalid};
use stigmer_sdk::{
    ByteRange, Error, ErrorCode, GlobQuery, GrepQuery, Result, Sandbox, Version, WriteOptions,
};
use tonic::{Request, Response, Status, Streaming};

use super::convert::{below, file, root};
use super::generated::host::files_server::Files;
use super::status::{checked, to_status};
use super::streams::{Responses, chunks};
use super::transfer;
use crate::config::Limits;
use crate::ops::edit::{self, Edit, EditRequest};
use crate::ops::search;
use crate::ops::text::{self, Content, TextPolicy, TextRequest};
use crate::sandboxes::Manager;

/// Lines that a request for text gets, if it does not say.
const TEXT_LINES: u64 = 2000;
/// Results of a search, if the request does not say.
const SEARCH_RESULTS: u32 = 1000;
/// And at most: a search answers once it is complete, so this bounds memory.
const MAX_SEARCH_RESULTS: u32 = 100_000;
/// Entries of a directory in one message.
const LIST_BATCH: usize = 512;
/// Room in a message for all that is not content.
const MESSAGE_MARGIN: u64 = 64 * 1024;

/// Files in any sandbox the manager knows.
#[derive(Debug)]
pub(super) struct FilesService {
    pub(super) manager: Arc<Manager>,
}

impl FilesService {
    fn limits(&self) -> &Limits {
        &self.manager.guard().limits
    }

    fn content_bytes(&self) -> u64 {
        (self.limits().message_bytes as u64).saturating_sub(MESSAGE_MARGIN)
    }

    async fn sandbox(&self, id: &str) -> Result<Arc<dyn Sandbox>> {
        Ok(self.manager.handle(id).await?.as_dyn())
    }

    /// The budget of a search.
    fn budget(&self, results: Option<u32>, ms: Option<u32>) -> Result<(NonZeroU32, Duration)> {
        let results = results.unwrap_or(SEARCH_RESULTS).min(MAX_SEARCH_RESULTS);
        let results =
            NonZeroU32::new(results).ok_or_else(|| invalid("max_results", "must be above 0"))?;
        let most = self.limits().operation_timeout;
        let time = ms.map_or(most, |ms| Duration::from_millis(ms.into()).min(most));
        Ok((results, time))
    }

    async fn text(&self, request: pb::ReadTextRequest) -> Result<pb::ReadTextResponse> {
        let path = wire::path("path", request.path)?;
        let policy = match pb::TextPolicy::try_from(request.policy) {
            Ok(pb::TextPolicy::Unspecified) => TextPolicy::Detect,
            Ok(pb::TextPolicy::Binary) => TextPolicy::Binary,
            Ok(pb::TextPolicy::Require) => TextPolicy::Require,
            Err(_) => {
                return Err(invalid(
                    "policy",
                    format_args!("{} is not one of its values", request.policy),
                ));
            }
        };
        let wanted = TextRequest {
            offset: request.offset,
            limit: request.limit.unwrap_or(TEXT_LINES),
            max_bytes: request
                .max_bytes
                .unwrap_or(self.limits().inline_bytes)
                .min(self.content_bytes()),
            policy,
            max_binary_bytes: request
                .max_binary_bytes
                .unwrap_or(u64::MAX)
                .min(self.content_bytes()),
        };
        let sandbox = self.sandbox(&request.sandbox_id).await?;
        let window = text::read_text(&*sandbox, &path, wanted).await?;
        Ok(pb::ReadTextResponse {
            content: Some(match window.content {
                Content::Text(text) => read_text_response::Content::Text(text),
                Content::Binary(bytes) => read_text_response::Content::Binary(bytes),
            }),
            metadata: Some(window.metadata.into()),
            start_line: window.start_line,
            end_line: window.end_line,
            total_lines: window.total_lines,
            next_offset: window.next_offset,
            cut: window.cut,
            lossy: window.lossy,
        })
    }

    async fn write(&self, request: pb::WriteFileRequest) -> Result<pb::WriteFileResponse> {
        let path = wire::path("path", request.path.as_str())?;
        let options =
            WriteOptions::from_wire(request.mode, request.if_version, request.permissions)?;
        let sandbox = self.sandbox(&request.sandbox_id).await?;
        let data = stream::iter([Ok(request.data)]).boxed();
        let metadata = sandbox.write(&path, options, data).await?;
        Ok(pb::WriteFileResponse {
            file: Some(file(&request.path, metadata)),
        })
    }

    async fn edit(&self, request: pb::EditFileRequest) -> Result<pb::EditFileResponse> {
        let path = wire::path("path", request.path.as_str())?;
        let edits = request.edits.into_iter().map(|edit| Edit {
            old_text: edit.old_text,
            new_text: edit.new_text,
            replace_all: edit.replace_all,
        });
        let wanted = EditRequest {
            edits: edits.collect(),
            exact_newlines: request.exact_newlines,
            if_version: request.if_version.map(Version::new),
        };
        let sandbox = self.sandbox(&request.sandbox_id).await?;
        let (counts, metadata) = edit::edit(&*sandbox, &path, wanted).await?;
        Ok(pb::EditFileResponse {
            counts,
            file: Some(file(&request.path, metadata)),
        })
    }

    async fn find(&self, request: pb::GlobRequest) -> Result<Vec<pb::GlobResponse>> {
        let (max_results, max_time) = self.budget(request.max_results, request.max_ms)?;
        let query = GlobQuery {
            root: root(&request.root)?,
            pattern: request.pattern,
            directories: request.directories,
            exclude: request.exclude,
            gitignore: request.gitignore,
            max_results,
            max_time,
        };
        let mut results = search::glob(self.sandbox(&request.sandbox_id).await?, query).await?;
        for (path, _) in &mut results.files {
            *path = below(&request.root, path);
        }
        let responses = wire::glob_responses(results);
        Ok(responses
            .map(|part| pb::GlobResponse {
                files: part.files,
                truncation: part.truncation,
            })
            .collect())
    }

    async fn search(&self, request: pb::GrepRequest) -> Result<Vec<pb::GrepResponse>> {
        let (max_results, max_time) = self.budget(request.max_results, request.max_ms)?;
        let exclude = if request.exclude.is_empty() {
            vec![".git".to_owned()]
        } else {
            request.exclude
        };
        let query = GrepQuery {
            root: root(&request.root)?,
            patterns: request.patterns,
            regex: request.regex,
            ignore_case: request.ignore_case,
            files: request.files,
            exclude,
            gitignore: request.gitignore,
            before: request.before,
            after: request.after,
            max_results,
            max_time,
        };
        let mut results = search::grep(self.sandbox(&request.sandbox_id).await?, query).await?;
        for found in &mut results.matches {
            found.path = below(&request.root, &found.path);
        }
        let responses = wire::grep_responses(results);
        Ok(responses
            .map(|part| pb::GrepResponse {
                matches: part.matches,
                truncation: part.truncation,
            })
            .collect())
    }
}

#[tonic::async_trait]
impl Files for FilesService {
    async fn stat(
        &self,
        request: Request<pb::StatRequest>,
    ) -> Result<Response<pb::StatResponse>, Status> {
        let request = request.into_inner();
        let path = checked(wire::path("path", request.path))?;
        let sandbox = checked(self.sandbox(&request.sandbox_id).await)?;
        let stat = checked(sandbox.stat(&path, request.follow).await)?;
        Ok(Response::new(pb::StatResponse {
            file: Some(file(stat.path.as_str(), stat.metadata)),
        }))
    }

    type ListDirStream = Responses<pb::ListDirResponse>;

    async fn list_dir(
        &self,
        request: Request<pb::ListDirRequest>,
    ) -> Result<Response<Self::ListDirStream>, Status> {
        let request = request.into_inner();
        let path = checked(wire::path("path", request.path.as_str()))?;
        let sandbox = checked(self.sandbox(&request.sandbox_id).await)?;
        let entries = checked(sandbox.list(&path).await)?;
        let responses = entries.ready_chunks(LIST_BATCH).map(move |batch| {
            let files = batch
                .into_iter()
                .map(|entry| {
                    entry.map(|entry| file(&below(&request.path, &entry.name), entry.metadata))
                })
                .collect::<Result<_>>();
            checked(files.map(|files| pb::ListDirResponse { files }))
        });
        Ok(Response::new(responses.boxed()))
    }

    async fn read_text(
        &self,
        request: Request<pb::ReadTextRequest>,
    ) -> Result<Response<pb::ReadTextResponse>, Status> {
        checked(self.text(request.into_inner()).await).map(Response::new)
    }

    type ReadFileStream = Responses<pb::ReadFileResponse>;

    async fn read_file(
        &self,
        request: Request<pb::ReadFileRequest>,
    ) -> Result<Response<Self::ReadFileStream>, Status> {
        let request = request.into_inner();
        let path = checked(wire::path("path", request.path.as_str()))?;
        let range = ByteRange {
            offset: request.offset,
            length: request.length,
        };
        let sandbox = checked(self.sandbox(&request.sandbox_id).await)?;
        let (metadata, data) = checked(sandbox.read(&path, range).await)?;
        let there = metadata
            .size
            .saturating_sub(range.offset)
            .min(range.length.unwrap_or(u64::MAX));
        checked(small_enough(&request.path, there, request.max_bytes))?;
        let part = |part| pb::ReadFileResponse { part: Some(part) };
        let first = part(read_file_response::Part::Metadata(metadata.into()));
        let rest = chunks(data).map(move |chunk| match chunk {
            Ok(bytes) => Ok(part(read_file_response::Part::Data(bytes))),
            Err(error) => Err(to_status(&error)),
        });
        Ok(Response::new(stream::iter([Ok(first)]).chain(rest).boxed()))
    }

    async fn write_file(
        &self,
        request: Request<pb::WriteFileRequest>,
    ) -> Result<Response<pb::WriteFileResponse>, Status> {
        checked(self.write(request.into_inner()).await).map(Response::new)
    }

    async fn edit_file(
        &self,
        request: Request<pb::EditFileRequest>,
    ) -> Result<Response<pb::EditFileResponse>, Status> {
        checked(self.edit(request.into_inner()).await).map(Response::new)
    }

    async fn make_dir(
        &self,
        request: Request<pb::MakeDirRequest>,
    ) -> Result<Response<pb::MakeDirResponse>, Status> {
        let request = request.into_inner();
        let path = checked(wire::path("path", request.path))?;
        let sandbox = checked(self.sandbox(&request.sandbox_id).await)?;
        checked(sandbox.make_dir(&path).await)?;
        Ok(Response::new(pb::MakeDirResponse {}))
    }

    async fn remove(
        &self,
        request: Request<pb::RemoveRequest>,
    ) -> Result<Response<pb::RemoveResponse>, Status> {
        let request = request.into_inner();
        let path = checked(wire::path("path", request.path))?;
        let sandbox = checked(self.sandbox(&request.sandbox_id).await)?;
        match sandbox.remove(&path, request.recursive).await {
            Err(error) if request.missing_ok && error.code() == ErrorCode::NotFound => {}
            other => checked(other)?,
        }
        Ok(Response::new(pb::RemoveResponse {}))
    }

    async fn rename(
        &self,
        request: Request<pb::RenameRequest>,
    ) -> Result<Response<pb::RenameResponse>, Status> {
        let request = request.into_inner();
        let from = checked(wire::path("from_path", request.from_path))?;
        let to = checked(wire::path("to_path", request.to_path))?;
        let sandbox = checked(self.sandbox(&request.sandbox_id).await)?;
        checked(sandbox.rename(&from, &to).await)?;
        Ok(Response::new(pb::RenameResponse {}))
    }

    type GlobStream = Responses<pb::GlobResponse>;

    async fn glob(
        &self,
        request: Request<pb::GlobRequest>,
    ) -> Result<Response<Self::GlobStream>, Status> {
        let parts = checked(self.find(request.into_inner()).await)?;
        Ok(Response::new(
            stream::iter(parts.into_iter().map(Ok)).boxed(),
        ))
    }

    type GrepStream = Responses<pb::GrepResponse>;

    async fn grep(
        &self,
        request: Request<pb::GrepRequest>,
    ) -> Result<Response<Self::GrepStream>, Status> {
        let parts = checked(self.search(request.into_inner()).await)?;
        Ok(Response::new(
            stream::iter(parts.into_iter().map(Ok)).boxed(),
        ))
    }

    async fn upload(
        &self,
        request: Request<Streaming<pb::UploadRequest>>,
    ) -> Result<Response<pb::UploadResponse>, Status> {
        let mut requests = request.into_inner();
        let start = transfer::start(&mut requests).await?;
        let sandbox = checked(self.sandbox(&start.sandbox_id).await)?;
        let results = checked(transfer::upload(&*sandbox, requests).await)?;
        Ok(Response::new(pb::UploadResponse { results }))
    }

    type DownloadStream = Responses<pb::DownloadResponse>;

    async fn download(
        &self,
        request: Request<pb::DownloadRequest>,
    ) -> Result<Response<Self::DownloadStream>, Status> {
        let request = request.into_inner();
        let sandbox = checked(self.sandbox(&request.sandbox_id).await)?;
        Ok(Response::new(transfer::download(
            sandbox,
            request.paths,
            request.max_bytes,
        )))
    }
}

/// # Errors
/// `TooLarge`, with the limit, if there is more than was asked for at most.
pub(super) fn small_enough(path: &str, bytes: u64, max_bytes: Option<u64>) -> Result<()> {
    match max_bytes {
        Some(max) if bytes > max => Err(Error::new(
            ErrorCode::TooLarge,
            format!("it has {bytes} bytes, and {max} were asked for at most"),
        )
        .with_path(path)
        .with_count(max)),
        Some(_) | None => Ok(()),
    }
}
