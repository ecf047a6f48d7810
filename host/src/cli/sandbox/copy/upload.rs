//! Into a sandbox: a walk here, and then batches of files in one call each.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use futures_util::stream;
use indicatif::ProgressBar;
use stigmer_sdk::wire::host::{self, upload_request, upload_result};
use stigmer_sdk::wire::sandbox::{ErrorCode, FileKind, Metadata};
use tokio::sync::mpsc;

use super::{Existing, Report, Source, last_name, progress, target};
use crate::cli::daemon::{CHUNK, Daemon};
use crate::cli::failure::{Failure, Result, describe, has_code};
use crate::cli::output::Output;
use crate::cli::sandbox::files;

/// Files in one call: each has a result in one answer, which must fit a message.
const BATCH: usize = 1000;

/// A file here, and where it goes.
#[derive(Clone, Debug)]
struct Planned {
    from: PathBuf,
    to: String,
    size: u64,
    permissions: u32,
}

pub(super) async fn upload(
    daemon: &Daemon,
    from: &str,
    sandbox: &str,
    to: &str,
    output: &Output,
) -> Result<Report> {
    let source = Path::new(from);
    let cannot = |error: &io::Error| {
        Failure::failed(format!("cannot read '{}'", from.escape_debug())).because(error)
    };
    let metadata = fs::metadata(source).map_err(|error| cannot(&error))?;
    let existing = existing(daemon, sandbox, to).await?;
    let mut walk = Walk::default();
    if metadata.is_dir() {
        let root = fs::canonicalize(source).map_err(|error| cannot(&error))?;
        let to =
            target(Source::Directory(last_name(from)), to, existing).map_err(Failure::failed)?;
        walk.root.clone_from(&root);
        walk.directory(&root, root.clone(), &to);
    } else if metadata.is_file() {
        let name =
            last_name(from).ok_or_else(|| Failure::usage(format!("'{from}' has no name")))?;
        let to = target(Source::File(name), to, existing).map_err(Failure::failed)?;
        walk.file(source.to_owned(), to, &metadata);
    } else {
        return Err(Failure::failed(format!(
            "'{}' is neither a file nor a directory",
            from.escape_debug()
        )));
    }

    let Walk {
        files,
        empty,
        mut report,
        ..
    } = walk;
    for path in empty {
        let request = host::MakeDirRequest {
            sandbox_id: sandbox.to_owned(),
            path: path.clone(),
        };
        if let Err(status) = daemon.files().make_dir(request).await {
            report
                .problems
                .push(Failure::from(status).problems.join(", "));
        }
    }
    let bar = progress(files.iter().map(|file| file.size).sum(), output);
    for batch in files.chunks(BATCH) {
        let sent = send(daemon, sandbox, batch, &bar, &mut report).await;
        sent.inspect_err(|_| bar.finish_and_clear())?;
    }
    bar.finish_and_clear();
    Ok(report)
}

/// What is at the destination, links followed.
async fn existing(daemon: &Daemon, sandbox: &str, path: &str) -> Result<Existing> {
    let path = match path.trim_end_matches('/') {
        "" => "/",
        path => path,
    };
    match files::stat(daemon, sandbox, path, true).await {
        Ok(file) => match file.metadata.as_ref().map(Metadata::kind) {
            Some(FileKind::Directory) => Ok(Existing::Directory),
            _ => Ok(Existing::File),
        },
        Err(status) if has_code(&status, ErrorCode::NotFound) => Ok(Existing::Nothing),
        Err(status) => Err(status.into()),
    }
}

/// A walk over a tree here.
#[derive(Debug, Default)]
struct Walk {
    /// Free of links. What links lead to must be below it.
    root: PathBuf,
    files: Vec<Planned>,
    /// Directories without an entry; the others come with their files.
    empty: Vec<String>,
    /// Those above the present one, free of links, to notice circles.
    above: Vec<PathBuf>,
    report: Report,
}

impl Walk {
    fn file(&mut self, from: PathBuf, to: String, metadata: &fs::Metadata) {
        let permissions = metadata.permissions().mode() & 0o777;
        self.files.push(Planned {
            from,
            to,
            size: metadata.len(),
            permissions,
        });
    }

    /// Walks the directory `from`, which without links is `real`.
    fn directory(&mut self, from: &Path, real: PathBuf, to: &str) {
        let entries =
            fs::read_dir(from).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.problem(from, &error),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        self.report.directories += 1;
        if entries.is_empty() {
            self.empty.push(to.to_owned());
        }
        self.above.push(real.clone());
        for entry in entries {
            let path = entry.path();
            match entry.file_name().to_str() {
                Some(name) => {
                    let to = format!("{}/{name}", to.trim_end_matches('/'));
                    if let Err(error) = self.entry(&path, real.join(name), to) {
                        self.problem(&path, &error);
                    }
                }
                None => self
                    .report
                    .problems
                    .push(format!("{}: the name is not UTF-8", quoted(&path))),
            }
        }
        self.above.pop();
    }

    fn entry(&mut self, path: &Path, mut real: PathBuf, to: String) -> io::Result<()> {
        let mut metadata = fs::symlink_metadata(path)?;
        if metadata.is_symlink() {
            // One that leads nowhere, or in a circle, cannot be followed.
            let followed = fs::canonicalize(path).and_then(|real| Ok((fs::metadata(path)?, real)));
            match followed {
                Ok((led, at)) if at.starts_with(&self.root) && !self.above.contains(&at) => {
                    (metadata, real) = (led, at);
                }
                _ => {
                    self.report.links += 1;
                    return Ok(());
                }
            }
        }
        if metadata.is_dir() {
            self.directory(path, real, &to);
        } else if metadata.is_file() {
            self.file(path.to_owned(), to, &metadata);
        } else {
            self.report.others += 1;
        }
        Ok(())
    }

    fn problem(&mut self, path: &Path, error: &io::Error) {
        self.report
            .problems
            .push(format!("{}: {error}", quoted(path)));
    }
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().escape_debug())
}

async fn send(
    daemon: &Daemon,
    sandbox: &str,
    batch: &[Planned],
    bar: &ProgressBar,
    report: &mut Report,
) -> Result<()> {
    let (parts, requests) = mpsc::channel(4);
    let start = upload_request::Part::Start(host::UploadStart {
        sandbox_id: sandbox.to_owned(),
    });
    let (planned, bar) = (batch.to_vec(), bar.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let send = |part| {
            parts
                .blocking_send(host::UploadRequest { part: Some(part) })
                .is_ok()
        };
        let mut failed = Vec::new();
        let mut going = send(start);
        for file in planned {
            if !going {
                break;
            }
            match read(&file, &send, &bar) {
                Ok(went) => going = went,
                Err(error) => failed.push((file.to, format!("{}: {error}", quoted(&file.from)))),
            }
        }
        failed
    });
    let requests = stream::unfold(requests, |mut requests| async move {
        requests.recv().await.map(|request| (request, requests))
    });
    let answer = daemon.files().upload(requests).await?.into_inner();
    let failed = reading
        .await
        .map_err(|error| Failure::failed("reading broke off").because(&error))?;
    let given_up: HashSet<&str> = failed.iter().map(|(to, _)| to.as_str()).collect();
    for result in answer.results {
        match result.outcome {
            Some(upload_result::Outcome::Metadata(metadata)) => {
                report.files += 1;
                report.bytes += metadata.size;
            }
            // Told already, with what went wrong here.
            _ if given_up.contains(result.path.as_str()) => {}
            Some(upload_result::Outcome::Error(error)) => report.problems.push(describe(&error)),
            None => report.problems.push(format!(
                "'{}': the daemon does not say what became of it",
                result.path.escape_debug()
            )),
        }
    }
    report
        .problems
        .extend(failed.into_iter().map(|(_, problem)| problem));
    Ok(())
}

/// Sends one file. After an error its `end` is missing, and so it is given up.
/// `false`: nobody takes it any more.
fn read(
    file: &Planned,
    send: &impl Fn(upload_request::Part) -> bool,
    bar: &ProgressBar,
) -> io::Result<bool> {
    use upload_request::{End, Part};
    let mut source = File::open(&file.from)?;
    let open = host::UploadFile {
        path: file.to.clone(),
        mode: 0,
        permissions: Some(file.permissions),
    };
    if !send(Part::File(open)) {
        return Ok(false);
    }
    loop {
        let mut chunk =
            Vec::with_capacity(CHUNK.min(usize::try_from(file.size).unwrap_or(CHUNK) + 1));
        let length = source.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
        if length == 0 {
            return Ok(send(Part::End(End {})));
        }
        if !send(Part::Data(chunk.into())) {
            return Ok(false);
        }
        bar.inc(length as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn walk(root: &Path) -> Walk {
        let root = fs::canonicalize(root).unwrap();
        let mut walk = Walk {
            root: root.clone(),
            ..Walk::default()
        };
        walk.directory(&root, root.clone(), "to");
        walk
    }

    #[test]
    fn links_are_followed_within_the_tree_only() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("lib/empty")).unwrap();
        fs::write(at("lib/a"), "a").unwrap();
        symlink("lib/a", at("file")).unwrap();
        symlink("lib", at("lib64")).unwrap();
        symlink("..", at("lib/up")).unwrap();
        symlink("/etc/hostname", at("out")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        let walk = walk(dir.path());
        let to: Vec<_> = walk.files.iter().map(|file| file.to.as_str()).collect();
        assert_eq!(to, ["to/file", "to/lib/a", "to/lib64/a"]);
        assert_eq!(walk.empty, ["to/lib/empty", "to/lib64/empty"]);
        // `out`, `dangling`, and `up` by both of its ways.
        assert_eq!(walk.report.links, 4);
        assert!(walk.report.problems.is_empty());
    }

    #[test]
    fn special_files_are_counted_and_never_opened() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let walk = walk(dir.path());
        assert_eq!((walk.files.len(), walk.report.others), (0, 1));
    }

    #[test]
    fn a_name_that_is_not_text_is_a_problem_and_not_a_crash() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
        let walk = walk(dir.path());
        assert_eq!(walk.report.problems.len(), 1);
        assert!(walk.report.problems[0].ends_with("the name is not UTF-8"));
    }
}
