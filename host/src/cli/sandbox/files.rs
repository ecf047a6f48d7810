//! Files in a sandbox of the daemon.

use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use futures_util::stream;
use serde::Serialize;
use stigmer_sdk::wire::host::{self, read_file_response, upload_request, upload_result};
use stigmer_sdk::wire::sandbox as contract;

use crate::cli::daemon::{CHUNK, Daemon, incomplete};
use crate::cli::exit::Outcome;
use crate::cli::failure::{Failure, Result, describe, has_code};
use crate::cli::output::{Output, RawStream, count, table, time};
use crate::cli::value;

#[derive(Args, Debug)]
pub(in crate::cli) struct LsArgs {
    /// The sandbox
    sandbox: String,

    /// The directory
    #[arg(default_value = ".", value_parser = value::path)]
    path: String,

    /// Permissions, sizes and times, too
    #[arg(short, long)]
    long: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct CatArgs {
    /// The sandbox
    sandbox: String,

    /// The file
    #[arg(value_parser = value::path)]
    path: String,

    /// Bytes to skip
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    offset: u64,

    /// Bytes to print at most
    #[arg(long, value_name = "BYTES")]
    length: Option<u64>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct WriteArgs {
    /// The sandbox
    sandbox: String,

    /// The file
    #[arg(value_parser = value::path)]
    path: String,

    /// Take the content from this file instead of stdin
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,

    /// Add to the end
    #[arg(long, conflicts_with_all = ["create_new", "if_version"])]
    append: bool,

    /// Fail if the file exists
    #[arg(long, conflicts_with = "if_version")]
    create_new: bool,

    /// Fail unless the file still has this version (see: sandbox ls --json)
    #[arg(long, value_name = "VERSION")]
    if_version: Option<String>,

    /// Permissions in octal; a file that is replaced keeps its own
    // Not `--mode`, which is everybody's and names the infrastructure.
    #[arg(long, value_name = "OCTAL", value_parser = value::mode)]
    permissions: Option<u32>,
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true), group = clap::ArgGroup::new("by").required(true))]
pub(in crate::cli) struct EditArgs {
    /// The sandbox
    sandbox: String,

    /// The file
    #[arg(value_parser = value::path)]
    path: String,

    /// The text to replace, which must be there exactly once
    #[arg(long, value_name = "TEXT", group = "what", allow_hyphen_values = true)]
    old: Option<String>,

    /// The same, from a file
    #[arg(long, value_name = "FILE", group = "what")]
    old_file: Option<PathBuf>,

    /// The text to put there
    #[arg(long, value_name = "TEXT", group = "by", allow_hyphen_values = true)]
    new: Option<String>,

    /// The same, from a file
    #[arg(long, value_name = "FILE", group = "by")]
    new_file: Option<PathBuf>,

    /// Replace it wherever it is
    #[arg(long)]
    all: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct MvArgs {
    /// The sandbox
    sandbox: String,

    /// What to move
    #[arg(value_parser = value::path)]
    from: String,

    /// Its new path
    #[arg(value_parser = value::path)]
    to: String,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct RmArgs {
    /// The sandbox
    sandbox: String,

    /// What to remove
    #[arg(required = true, value_name = "PATH", value_parser = value::path)]
    paths: Vec<String>,

    /// Directories too, with everything under them
    #[arg(short, long)]
    recursive: bool,

    /// What is missing is no failure
    #[arg(short, long)]
    force: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct MkdirArgs {
    /// The sandbox
    sandbox: String,

    /// The directories
    #[arg(required = true, value_name = "PATH", value_parser = value::path)]
    paths: Vec<String>,
}

/// A file as JSON has it.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    path: &'a str,
    kind: &'static str,
    size: u64,
    permissions: Option<String>,
    modified_ms: Option<u64>,
    version: Option<&'a str>,
    target: Option<&'a str>,
}

impl<'a> Shown<'a> {
    pub(super) fn of(file: &'a contract::File) -> Self {
        let metadata = file.metadata.as_ref();
        Self {
            path: &file.path,
            kind: kind(file),
            size: metadata.map_or(0, |metadata| metadata.size),
            permissions: metadata
                .and_then(|metadata| metadata.permissions)
                .map(|mode| format!("{mode:04o}")),
            modified_ms: metadata.and_then(|metadata| metadata.modified_ms),
            version: metadata.and_then(|metadata| metadata.version.as_deref()),
            target: metadata.and_then(|metadata| metadata.target.as_deref()),
        }
    }
}

fn kind(file: &contract::File) -> &'static str {
    match file.metadata.as_ref().map(contract::Metadata::kind) {
        Some(contract::FileKind::File) => "file",
        Some(contract::FileKind::Directory) => "directory",
        Some(contract::FileKind::Symlink) => "symlink",
        Some(contract::FileKind::Other) => "other",
        Some(contract::FileKind::Unspecified) | None => "unknown",
    }
}

/// The entries of a directory.
pub(super) async fn list_dir(
    daemon: &Daemon,
    sandbox: &str,
    path: &str,
) -> Result<Vec<contract::File>, tonic::Status> {
    let request = host::ListDirRequest {
        sandbox_id: sandbox.to_owned(),
        path: path.to_owned(),
    };
    let mut pages = daemon.files().list_dir(request).await?.into_inner();
    let mut files = Vec::new();
    while let Some(page) = pages.message().await? {
        files.extend(page.files);
    }
    Ok(files)
}

/// What is at a path.
pub(super) async fn stat(
    daemon: &Daemon,
    sandbox: &str,
    path: &str,
    follow: bool,
) -> Result<contract::File, tonic::Status> {
    let request = host::StatRequest {
        sandbox_id: sandbox.to_owned(),
        path: path.to_owned(),
        follow,
    };
    let file = daemon.files().stat(request).await?.into_inner().file;
    file.ok_or_else(|| tonic::Status::internal("the answer to Stat has no file"))
}

pub(super) async fn ls(args: &LsArgs, daemon: &Daemon, output: &Output) -> Result<Outcome> {
    let mut files = match list_dir(daemon, &args.sandbox, &args.path).await {
        Ok(files) => files,
        Err(status) if has_code(&status, contract::ErrorCode::NotADirectory) => {
            vec![contract::File {
                path: args.path.clone(),
                ..stat(daemon, &args.sandbox, &args.path, false).await?
            }]
        }
        Err(status) => return Err(status.into()),
    };
    files.sort_by(|a, b| a.path.cmp(&b.path));
    if args.json {
        output.json(&files.iter().map(Shown::of).collect::<Vec<_>>())?;
    } else if args.long {
        let rows: Vec<_> = files
            .iter()
            .map(|file| long(file, &args.path, output))
            .collect();
        output.text(table(&["MODE", "SIZE", "MODIFIED", "NAME"], &rows))?;
    } else {
        let mut text = String::new();
        for file in &files {
            text.push_str(&output.shown(name(&file.path, &args.path)));
            text.push('\n');
        }
        output.bytes(text.as_bytes())?;
    }
    Ok(Outcome::Success)
}

/// The path without the directory it was asked for in.
pub(super) fn name<'a>(path: &'a str, directory: &str) -> &'a str {
    match path
        .strip_prefix(directory.trim_end_matches('/'))
        .and_then(|rest| rest.strip_prefix('/'))
    {
        Some(name) if !name.is_empty() => name,
        _ => path,
    }
}

fn long(file: &contract::File, directory: &str, output: &Output) -> Vec<String> {
    let shown = Shown::of(file);
    let permissions = file
        .metadata
        .as_ref()
        .and_then(|metadata| metadata.permissions);
    let mut name = output.shown(name(&file.path, directory)).into_owned();
    if let Some(target) = shown.target {
        name.push_str(" -> ");
        name.push_str(&output.shown(target));
    }
    let size = if shown.kind == "file" {
        shown.size.to_string()
    } else {
        "-".to_owned()
    };
    vec![
        mode_text(shown.kind, permissions),
        size,
        shown.modified_ms.map_or_else(|| "-".to_owned(), time),
        name,
    ]
}

/// `drwxr-x---`, as `ls -l` has it.
fn mode_text(kind: &str, permissions: Option<u32>) -> String {
    let mut text = String::from(match kind {
        "directory" => "d",
        "symlink" => "l",
        "file" => "-",
        _ => "?",
    });
    match permissions {
        Some(mode) => {
            text.extend(
                "rwxrwxrwx"
                    .chars()
                    .enumerate()
                    .map(|(bit, c)| if mode & (0o400 >> bit) != 0 { c } else { '-' }),
            );
        }
        None => text.push_str("?????????"),
    }
    text
}

pub(super) async fn cat(args: &CatArgs, daemon: &Daemon) -> Result<Outcome> {
    use read_file_response::Part;
    let request = host::ReadFileRequest {
        sandbox_id: args.sandbox.clone(),
        path: args.path.clone(),
        offset: args.offset,
        length: args.length,
        max_bytes: None,
    };
    let mut parts = daemon.files().read_file(request).await?.into_inner();
    let stdout = RawStream::stdout()?;
    while let Some(response) = parts.message().await? {
        if let Some(Part::Data(bytes)) = response.part {
            stdout.write(&bytes)?;
        }
    }
    Ok(Outcome::Success)
}

pub(super) async fn write(args: &WriteArgs, daemon: &Daemon, output: &Output) -> Result<Outcome> {
    let mut source: Box<dyn Read + Send> = match &args.from {
        Some(path) => {
            Box::new(std::fs::File::open(path).map_err(|error| unreadable(path, &error))?)
        }
        None => Box::new(std::io::stdin()),
    };
    let mode = match (args.append, args.create_new) {
        (true, _) => contract::WriteMode::Append,
        (_, true) => contract::WriteMode::CreateNew,
        _ => contract::WriteMode::Replace,
    };
    let from = args.from.as_deref().unwrap_or(Path::new("stdin"));
    let limit = daemon.max_data();
    let mut data = Vec::new();
    let read = source
        .by_ref()
        .take(limit as u64 + 1)
        .read_to_end(&mut data);
    read.map_err(|error| unreadable(from, &error))?;
    let metadata = if data.len() <= limit {
        let request = host::WriteFileRequest {
            sandbox_id: args.sandbox.clone(),
            path: args.path.clone(),
            data: data.into(),
            mode: mode.into(),
            if_version: args.if_version.clone(),
            permissions: args.permissions,
        };
        let file = daemon.files().write_file(request).await?.into_inner().file;
        file.and_then(|file| file.metadata).ok_or_else(incomplete)?
    } else if args.if_version.is_some() {
        return Err(Failure::failed(format!(
            "with --if-version at most {limit} bytes can be written"
        )));
    } else {
        upload(args, mode, data, source, daemon).await?
    };
    let version = metadata
        .version
        .map(|version| format!(", version {version}"))
        .unwrap_or_default();
    output.note(format!(
        "'{}' has {}{version}",
        args.path.escape_debug(),
        count(metadata.size, "byte")
    ));
    Ok(Outcome::Success)
}

/// Writes more than one message can carry.
async fn upload(
    args: &WriteArgs,
    mode: contract::WriteMode,
    read: Vec<u8>,
    mut rest: Box<dyn Read + Send>,
    daemon: &Daemon,
) -> Result<contract::Metadata> {
    use upload_request::{End, Part};
    let (parts, requests) = tokio::sync::mpsc::channel(4);
    let start = host::UploadStart {
        sandbox_id: args.sandbox.clone(),
    };
    let file = host::UploadFile {
        path: args.path.clone(),
        mode: mode.into(),
        permissions: args.permissions,
    };
    let reading = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
        let read = Bytes::from(read);
        let send = |part| {
            parts
                .blocking_send(host::UploadRequest { part: Some(part) })
                .is_ok()
        };
        let mut going = send(Part::Start(start)) && send(Part::File(file));
        let mut begin = 0;
        while going && begin < read.len() {
            let end = read.len().min(begin + CHUNK);
            going = send(Part::Data(read.slice(begin..end)));
            begin = end;
        }
        while going {
            let mut chunk = Vec::with_capacity(CHUNK);
            if rest.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)? == 0 {
                break;
            }
            going = send(Part::Data(chunk.into()));
        }
        // Without it, as after an error above, the file is given up.
        if going {
            send(Part::End(End {}));
        }
        Ok(())
    });
    let requests = stream::unfold(requests, |mut requests| async move {
        requests.recv().await.map(|request| (request, requests))
    });
    let answer = daemon.files().upload(requests).await;
    if let Ok(Err(error)) = reading.await {
        return Err(unreadable(
            args.from.as_deref().unwrap_or(Path::new("stdin")),
            &error,
        ));
    }
    let result = answer?.into_inner().results.into_iter().next();
    match result.and_then(|result| result.outcome) {
        Some(upload_result::Outcome::Metadata(metadata)) => Ok(metadata),
        Some(upload_result::Outcome::Error(error)) => Err(Failure::failed(describe(&error))),
        None => Err(incomplete()),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot read '{}'", path.display())).because(error)
}

pub(super) async fn edit(args: &EditArgs, daemon: &Daemon, output: &Output) -> Result<Outcome> {
    let edit = host::Edit {
        old_text: text(args.old.as_ref(), args.old_file.as_deref())?,
        new_text: text(args.new.as_ref(), args.new_file.as_deref())?,
        replace_all: args.all,
    };
    let request = host::EditFileRequest {
        sandbox_id: args.sandbox.clone(),
        path: args.path.clone(),
        edits: vec![edit],
        exact_newlines: false,
        if_version: None,
    };
    let answer = daemon.files().edit_file(request).await?.into_inner();
    let places = answer.counts.first().copied().ok_or_else(incomplete)?;
    output.line(format!("replaced {}", count(places, "place")))?;
    Ok(Outcome::Success)
}

fn text(typed: Option<&String>, file: Option<&Path>) -> Result<String> {
    match (typed, file) {
        (Some(text), _) => Ok(text.clone()),
        (None, Some(path)) => {
            let bytes = std::fs::read(path).map_err(|error| unreadable(path, &error))?;
            String::from_utf8(bytes)
                .map_err(|_| Failure::failed(format!("'{}' is not UTF-8 text", path.display())))
        }
        (None, None) => Err(Failure::usage(
            "there is no text to replace, or to put there",
        )),
    }
}

pub(super) async fn mv(args: &MvArgs, daemon: &Daemon) -> Result<Outcome> {
    let request = host::RenameRequest {
        sandbox_id: args.sandbox.clone(),
        from_path: args.from.clone(),
        to_path: args.to.clone(),
    };
    daemon.files().rename(request).await?;
    Ok(Outcome::Success)
}

pub(super) async fn rm(args: &RmArgs, daemon: &Daemon) -> Result<Outcome> {
    for path in &args.paths {
        let request = host::RemoveRequest {
            sandbox_id: args.sandbox.clone(),
            path: path.clone(),
            recursive: args.recursive,
            missing_ok: args.force,
        };
        daemon.files().remove(request).await.map_err(|status| {
            let is_directory = has_code(&status, contract::ErrorCode::IsDirectory);
            let failure = Failure::from(status);
            if is_directory {
                failure.hint("say -r to remove it with everything under it")
            } else {
                failure
            }
        })?;
    }
    Ok(Outcome::Success)
}

pub(super) async fn mkdir(args: &MkdirArgs, daemon: &Daemon) -> Result<Outcome> {
    for path in &args.paths {
        let request = host::MakeDirRequest {
            sandbox_id: args.sandbox.clone(),
            path: path.clone(),
        };
        daemon.files().make_dir(request).await?;
    }
    Ok(Outcome::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_the_directory_that_was_asked_for() {
        #[track_caller]
        fn check(path: &str, directory: &str, expected: &str) {
            assert_eq!(name(path, directory), expected);
        }
        check("./a", ".", "a");
        check("/etc/passwd", "/etc/", "passwd");
        check("/etc", "/", "etc");
        check("src", "src", "src");
        check("srcs/a", "src", "srcs/a");
    }

    #[test]
    fn modes_look_as_in_ls() {
        assert_eq!(mode_text("directory", Some(0o750)), "drwxr-x---");
        assert_eq!(mode_text("file", Some(0o604)), "-rw----r--");
        assert_eq!(mode_text("other", None), "??????????");
    }
}
