//! Out of a sandbox: a walk there, and then batches of files in one call each,
//! written [`Beneath`] the destination.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use indicatif::ProgressBar;
use stigmer_sdk::wire::host::{self, download_response};
use stigmer_sdk::wire::sandbox as contract;
use tokio::sync::mpsc;

use super::beneath::{Beneath, is_safe};
use super::{Existing, Report, Source, last_name, progress, target};
use crate::cli::daemon::Daemon;
use crate::cli::failure::{Failure, Result, describe};
use crate::cli::output::Output;
use crate::cli::sandbox::files;

/// Files in one call.
const BATCH: usize = 1000;
/// Entries at most: links to directories can make a small tree endless.
const MAX_ENTRIES: usize = 1_000_000;

/// A file there, and where it goes: names below the destination.
#[derive(Clone, Debug)]
struct Planned {
    from: String,
    to: Vec<String>,
    size: u64,
    permissions: Option<u32>,
}

pub(super) async fn download(
    daemon: &Daemon,
    sandbox: &str,
    from: &str,
    to: &str,
    output: &Output,
) -> Result<Report> {
    let source = files::stat(daemon, sandbox, from, true).await?;
    let metadata = source.metadata.unwrap_or_default();
    let existing = existing(to)?;
    let cannot = |path: &Path, error: &io::Error| {
        Failure::failed(format!("cannot write to '{}'", path.display())).because(error)
    };
    let mut walk = Walk::default();
    let base = match metadata.kind() {
        contract::FileKind::Directory => {
            let to = target(Source::Directory(last_name(from)), to, existing)
                .map_err(Failure::failed)?;
            let to = Path::new(&to).to_owned();
            fs::create_dir_all(&to).map_err(|error| cannot(&to, &error))?;
            walk.tree(daemon, sandbox, from, &source.path).await?;
            to
        }
        contract::FileKind::File => {
            let name =
                last_name(from).ok_or_else(|| Failure::usage(format!("'{from}' has no name")))?;
            let to = target(Source::File(name), to, existing).map_err(Failure::failed)?;
            let to = Path::new(&to);
            let name = to.file_name().and_then(|name| name.to_str());
            let name =
                name.ok_or_else(|| Failure::usage(format!("'{}' has no name", to.display())))?;
            walk.file(from.to_owned(), vec![name.to_owned()], &metadata);
            match to.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
                _ => Path::new(".").to_owned(),
            }
        }
        _ => {
            return Err(Failure::failed(format!(
                "'{}' is neither a file nor a directory",
                from.escape_debug()
            )));
        }
    };

    let Walk {
        files,
        directories,
        mut report,
    } = walk;
    let mut beneath = Beneath::open(&base).map_err(|error| cannot(&base, &error))?;
    for directory in directories {
        if let Err(error) = beneath.make_dir(&directory) {
            report
                .problems
                .push(format!("'{}': {error}", directory.join("/").escape_debug()));
        }
    }
    let bar = progress(files.iter().map(|file| file.size).sum(), output);
    for batch in files.chunks(BATCH) {
        let base = Beneath::open(&base).map_err(|error| cannot(&base, &error))?;
        let received = receive(daemon, sandbox, batch, base, &bar, &mut report).await;
        received.inspect_err(|_| bar.finish_and_clear())?;
    }
    bar.finish_and_clear();
    Ok(report)
}

/// What is at the destination, links followed.
fn existing(path: &str) -> Result<Existing> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(Existing::Directory),
        Ok(_) => Ok(Existing::File),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Existing::Nothing),
        // A file with a `/` after its name.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(Existing::File),
        Err(error) => Err(
            Failure::failed(format!("cannot look at '{}'", path.escape_debug())).because(&error),
        ),
    }
}

/// A walk over a tree there.
#[derive(Debug, Default)]
struct Walk {
    files: Vec<Planned>,
    directories: Vec<Vec<String>>,
    report: Report,
}

/// A directory to be walked.
struct Pending {
    path: String,
    names: Vec<String>,
    /// This one and those above it, free of links, to notice circles.
    chain: Vec<String>,
}

impl Walk {
    fn file(&mut self, from: String, to: Vec<String>, metadata: &contract::Metadata) {
        self.files.push(Planned {
            from,
            to,
            size: metadata.size,
            permissions: metadata.permissions,
        });
    }

    async fn tree(&mut self, daemon: &Daemon, sandbox: &str, path: &str, root: &str) -> Result<()> {
        let mut pending = vec![Pending {
            path: path.to_owned(),
            names: Vec::new(),
            chain: vec![root.to_owned()],
        }];
        while let Some(directory) = pending.pop() {
            let mut entries = match files::list_dir(daemon, sandbox, &directory.path).await {
                Ok(entries) => entries,
                // The tree itself must be there; what is below may go any time.
                Err(status) if directory.names.is_empty() => return Err(status.into()),
                Err(status) => {
                    self.report
                        .problems
                        .push(Failure::from(status).problems.join(", "));
                    continue;
                }
            };
            self.report.directories += 1;
            entries.sort_by(|a, b| b.path.cmp(&a.path));
            if !directory.names.is_empty() {
                self.directories.push(directory.names.clone());
            }
            for entry in entries {
                if self.files.len() + self.directories.len() + pending.len() > MAX_ENTRIES {
                    return Err(Failure::failed(format!(
                        "the tree has more than {MAX_ENTRIES} entries"
                    )));
                }
                let below = self.entry(daemon, sandbox, root, &directory, entry).await?;
                pending.extend(below);
            }
        }
        Ok(())
    }

    /// Plans a file, or returns a directory to walk.
    async fn entry(
        &mut self,
        daemon: &Daemon,
        sandbox: &str,
        root: &str,
        directory: &Pending,
        entry: contract::File,
    ) -> Result<Option<Pending>> {
        let name = files::name(&entry.path, &directory.path);
        if !is_safe(name) {
            let problem = format!(
                "'{}': refused, because of its name",
                entry.path.escape_debug()
            );
            self.report.problems.push(problem);
            return Ok(None);
        }
        let mut names = directory.names.clone();
        names.push(name.to_owned());
        let path = format!("{}/{name}", directory.path.trim_end_matches('/'));
        let mut metadata = entry.metadata.unwrap_or_default();
        let above = directory.chain.last().map_or("", String::as_str);
        let mut real = format!("{}/{name}", above.trim_end_matches('/'));
        if metadata.kind() == contract::FileKind::Symlink {
            match files::stat(daemon, sandbox, &path, true).await {
                Ok(led) if within(&led.path, root) && !directory.chain.contains(&led.path) => {
                    (metadata, real) = (led.metadata.unwrap_or_default(), led.path);
                }
                // Out of the tree, in a circle, or nowhere.
                _ => {
                    self.report.links += 1;
                    return Ok(None);
                }
            }
        }
        match metadata.kind() {
            contract::FileKind::Directory => {
                let mut chain = directory.chain.clone();
                chain.push(real);
                return Ok(Some(Pending { path, names, chain }));
            }
            contract::FileKind::File => self.file(path, names, &metadata),
            contract::FileKind::Symlink => self.report.links += 1,
            contract::FileKind::Other | contract::FileKind::Unspecified => self.report.others += 1,
        }
        Ok(None)
    }
}

/// Whether an absolute path is this directory or below it.
fn within(path: &str, root: &str) -> bool {
    path.strip_prefix(root.trim_end_matches('/'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

async fn receive(
    daemon: &Daemon,
    sandbox: &str,
    batch: &[Planned],
    beneath: Beneath,
    bar: &ProgressBar,
    report: &mut Report,
) -> Result<()> {
    let request = host::DownloadRequest {
        sandbox_id: sandbox.to_owned(),
        paths: batch.iter().map(|file| file.from.clone()).collect(),
        max_bytes: None,
    };
    let mut responses = daemon.files().download(request).await?.into_inner();
    let (parts, received) = mpsc::channel(8);
    let writer = Writer {
        beneath,
        batch: batch.to_vec(),
        bar: bar.clone(),
        current: None,
        report: std::mem::take(report),
    };
    let writing = tokio::task::spawn_blocking(move || writer.run(received));
    let mut broken = None;
    loop {
        match responses.message().await {
            // The writer ends only with us.
            Ok(Some(response)) => {
                if parts.send(response).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(status) => {
                broken = Some(status);
                break;
            }
        }
    }
    drop(parts);
    *report = writing
        .await
        .map_err(|error| Failure::failed("writing broke off").because(&error))?;
    match broken {
        Some(status) => Err(status.into()),
        None => Ok(()),
    }
}

/// The side of a download that writes, on a thread of its own so that the next
/// chunk travels meanwhile.
struct Writer {
    beneath: Beneath,
    batch: Vec<Planned>,
    bar: ProgressBar,
    /// The file that data goes to, with its index.
    current: Option<(usize, File)>,
    report: Report,
}

impl Writer {
    fn run(mut self, mut received: mpsc::Receiver<host::DownloadResponse>) -> Report {
        use download_response::Part;
        while let Some(response) = received.blocking_recv() {
            let index = usize::try_from(response.index).unwrap_or(usize::MAX);
            if index >= self.batch.len() {
                continue;
            }
            match response.part {
                Some(Part::Metadata(_)) => {
                    self.break_off();
                    match self
                        .beneath
                        .create(&self.batch[index].to, self.batch[index].permissions)
                    {
                        Ok(file) => self.current = Some((index, file)),
                        Err(error) => self.problem(index, &error),
                    }
                }
                Some(Part::Data(bytes)) => self.data(index, &bytes),
                Some(Part::End(_)) => {
                    let ended = self.current.take();
                    let whole = ended.is_some_and(|(current, _)| current == index);
                    self.report.files += u64::from(whole);
                }
                Some(Part::Error(error)) => {
                    // The file that is cut short by it needs no second word.
                    self.current = None;
                    self.report.problems.push(describe(&error));
                }
                None => {}
            }
        }
        self.break_off();
        self.report
    }

    fn data(&mut self, index: usize, bytes: &Bytes) {
        // Of a file that could not be created, or broke before, nothing is wanted.
        let Some((current, file)) = self.current.as_mut() else {
            return;
        };
        if *current != index {
            return;
        }
        match file.write_all(bytes) {
            Ok(()) => {
                self.report.bytes += bytes.len() as u64;
                self.bar.inc(bytes.len() as u64);
            }
            Err(error) => {
                self.current = None;
                self.problem(index, &error);
            }
        }
    }

    /// Reports a file whose end never came.
    fn break_off(&mut self) {
        if let Some((index, _)) = self.current.take() {
            self.problem(index, &io::Error::other("it broke off, and is not whole"));
        }
    }

    fn problem(&mut self, index: usize, error: &io::Error) {
        let path = self.batch[index].to.join("/");
        self.report
            .problems
            .push(format!("'{}': {error}", path.escape_debug()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use download_response::{End, Part};

    #[test]
    fn a_tree_contains_itself_and_what_is_below() {
        #[track_caller]
        fn check(path: &str, root: &str, expected: bool) {
            assert_eq!(within(path, root), expected);
        }
        check("/a", "/a", true);
        check("/a/b", "/a", true);
        check("/ab", "/a", false);
        check("/b", "/a", false);
        check("/b", "/", true);
    }

    #[test]
    fn what_breaks_off_is_reported_and_the_rest_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let planned = |name: &str| Planned {
            from: name.to_owned(),
            to: vec![name.to_owned()],
            size: 0,
            permissions: None,
        };
        let writer = Writer {
            beneath: Beneath::open(dir.path()).unwrap(),
            batch: vec![
                planned("whole"),
                planned("cut"),
                planned(".."),
                planned("last"),
            ],
            bar: ProgressBar::hidden(),
            current: None,
            report: Report::default(),
        };
        let (parts, received) = mpsc::channel(32);
        let send = |index, part| {
            parts
                .try_send(host::DownloadResponse {
                    index,
                    part: Some(part),
                })
                .unwrap()
        };
        let data = || Part::Data(Bytes::from_static(b"data"));
        send(0, Part::Metadata(contract::Metadata::default()));
        send(0, data());
        send(0, Part::End(End {}));
        send(1, Part::Metadata(contract::Metadata::default()));
        send(1, data());
        send(2, Part::Metadata(contract::Metadata::default()));
        send(2, data());
        send(9, data());
        send(3, Part::Metadata(contract::Metadata::default()));
        send(3, Part::End(End {}));
        drop(parts);
        let report = writer.run(received);
        assert_eq!((report.files, report.bytes), (2, 8));
        assert_eq!(
            report.problems,
            [
                "'cut': it broke off, and is not whole",
                "'..': it is no name for a file"
            ]
        );
        assert_eq!(fs::read(dir.path().join("whole")).unwrap(), b"data");
        assert!(dir.path().join("last").exists());
    }
}
