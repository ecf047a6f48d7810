//! Windows of lines in a file.
//!
//! Rules, in this order:
//! 1. What cannot be read is the error of [`Sandbox::read`].
//! 2. An empty file is an empty window, whatever was asked for.
//! 3. A file is binary if the caller says so, or if its first
//!    8,192 bytes are not UTF-8; it comes whole or not at all.
//! 4. No lines asked for is an empty window.
//! 5. A window that begins past the end is an error that says where that is.
//! 6. Lines end at `\n`, `\r\n` or `\r`, and are joined with `\n`, without one
//!    at the end. What is not UTF-8 becomes U+FFFD.
//!
//! No more of a file is read than the window needs, except that up to
//! 1 MiB all lines are counted.

mod window;

use bytes::Bytes;
use futures_util::TryStreamExt;
use stigmer_sdk::{
    ByteRange, ByteStream, Error, ErrorCode, Metadata, Result, Sandbox, SandboxPath,
};

use window::Window;

/// What tells text from binary.
const SNIFFED_BYTES: usize = 8192;

/// Files up to this size are read to their end for the number of lines: under
/// a millisecond.
const COUNTED_BYTES: u64 = 1024 * 1024;

/// Which files are text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextPolicy {
    /// Those that begin with UTF-8.
    Detect,
    /// None: the caller knows by its name.
    Binary,
    /// Those that begin with UTF-8, and the others are `NotText`.
    Require,
}

/// Which lines to read.
#[derive(Clone, Debug)]
pub struct TextRequest {
    /// Lines to skip.
    pub offset: u64,
    /// Lines; 0: none.
    pub limit: u64,
    /// Of text. Cut between characters; a line that is cut is not counted, but
    /// at least one always is.
    pub max_bytes: u64,
    /// Which files are text.
    pub policy: TextPolicy,
    /// Of a binary file, which comes whole or not at all.
    pub max_binary_bytes: u64,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The lines of the window.
    Text(String),
    /// The whole file.
    Binary(Bytes),
}

/// The lines that were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextWindow {
    /// What was read.
    pub content: Content,
    /// Of the file.
    pub metadata: Metadata,
    /// Counts from one; 0 if no line is shown.
    pub start_line: u64,
    /// The last line that is shown and counted; 0 if none is.
    pub end_line: u64,
    /// If known: the end was seen, or the file is no larger than 1 MiB.
    pub total_lines: Option<u64>,
    /// For the next request, if there is more.
    pub next_offset: Option<u64>,
    /// `max_bytes` cut the last line.
    pub cut: bool,
    /// Something was not UTF-8 and is U+FFFD here.
    pub lossy: bool,
}

/// Reads a window of lines, or a binary file whole.
///
/// # Errors
/// Those of [`Sandbox::read`]; `OutOfRange` with the number of lines, `TooLarge`
/// with the limit for a binary file, `NotText`.
pub async fn read_text(
    sandbox: &dyn Sandbox,
    path: &SandboxPath,
    request: TextRequest,
) -> Result<TextWindow> {
    let (metadata, mut data) = sandbox.read(path, ByteRange::default()).await?;
    let mut start = Vec::new();
    while start.len() < SNIFFED_BYTES {
        match data.try_next().await? {
            Some(bytes) => start.extend_from_slice(&bytes),
            None => break,
        }
    }
    if start.is_empty() {
        return Ok(empty(metadata, Some(0)));
    }
    let is_text = is_text(&start);
    match request.policy {
        TextPolicy::Require if !is_text => {
            return Err(Error::new(ErrorCode::NotText, "the file is not UTF-8 text")
                .with_path(path.as_str()));
        }
        TextPolicy::Detect if !is_text => {}
        TextPolicy::Binary => {}
        TextPolicy::Detect | TextPolicy::Require => {
            return read_lines(path, metadata, start, data, &request).await;
        }
    }
    let content = read_whole(path, start, data, metadata.size, request.max_binary_bytes).await?;
    Ok(TextWindow {
        content: Content::Binary(content),
        ..empty(metadata, None)
    })
}

async fn read_lines(
    path: &SandboxPath,
    metadata: Metadata,
    start: Vec<u8>,
    mut data: ByteStream,
    request: &TextRequest,
) -> Result<TextWindow> {
    if request.limit == 0 {
        return Ok(empty(metadata, None));
    }
    let count_all = metadata.size <= COUNTED_BYTES;
    let mut window = Window::new(request.offset, request.limit, request.max_bytes);
    let mut piece = Some(Bytes::from(start));
    while let Some(bytes) = piece {
        window.push(&bytes);
        if window.is_full() && !count_all {
            return Ok(window.finish(metadata, false));
        }
        piece = data.try_next().await?;
    }
    window.end();
    if request.offset >= window.lines() {
        let lines = window.lines();
        let offset = request.offset;
        return Err(Error::new(
            ErrorCode::OutOfRange,
            format!("line offset {offset} exceeds the file's {lines} lines"),
        )
        .with_path(path.as_str())
        .with_count(lines));
    }
    Ok(window.finish(metadata, true))
}

/// All of the file, unless it is larger than `max`, by its size or in fact.
async fn read_whole(
    path: &SandboxPath,
    start: Vec<u8>,
    mut data: ByteStream,
    size: u64,
    max: u64,
) -> Result<Bytes> {
    let too_large = || {
        Error::new(
            ErrorCode::TooLarge,
            format!("a binary file of more than {max} bytes is not shown"),
        )
        .with_path(path.as_str())
        .with_count(max)
    };
    let mut whole = start;
    loop {
        if size.max(whole.len() as u64) > max {
            return Err(too_large());
        }
        match data.try_next().await? {
            Some(bytes) => whole.extend_from_slice(&bytes),
            None => return Ok(whole.into()),
        }
    }
}

/// Whether the beginning is UTF-8, where a character that the limit cuts is fine.
fn is_text(start: &[u8]) -> bool {
    let sniffed = &start[..start.len().min(SNIFFED_BYTES)];
    match std::str::from_utf8(sniffed) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && sniffed.len() == SNIFFED_BYTES,
    }
}

fn empty(metadata: Metadata, total_lines: Option<u64>) -> TextWindow {
    TextWindow {
        content: Content::Text(String::new()),
        metadata,
        start_line: 0,
        end_line: 0,
        total_lines,
        next_offset: None,
        cut: false,
        lossy: false,
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
