//! `stigmer sandbox cp`: files and trees, in and out, with `docker cp`'s habits.
//!
//! [`upload`] reads here and writes there, [`download`] the other way round.
//! What comes from a sandbox is hostile: [`beneath`] opens every file that is
//! written here below the destination, and follows no link on the way.

mod beneath;
mod download;
mod upload;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use stigmer_sdk::wire::host::GetSandboxRequest;
use stigmer_sdk::wire::sandbox::ErrorCode;

use crate::cli::daemon::Daemon;
use crate::cli::exit::Outcome;
use crate::cli::failure::{Failure, Result, has_code};
use crate::cli::output::{self, Output, count};

pub(super) const HELP: &str = "\
Examples:
  stigmer sandbox cp ./app web:                 becomes web:app
  stigmer sandbox cp ./app/. web:               its content only
  stigmer sandbox cp web:dist/report.html .
  stigmer sandbox cp web:/tmp/log.txt ./log.txt

One side is SANDBOX:PATH; a path without a leading / starts at the workspace.
Write ./a:b for a file here whose name has a colon. Onto a directory that
exists, the copy goes inside it; otherwise it gets the name.

Modes of files are kept. Links cannot be copied as links: they are followed
if what they lead to is in the tree, and left out otherwise, with a count.";

#[derive(Args, Debug)]
pub(in crate::cli) struct CpArgs {
    /// What to copy
    #[arg(value_name = "SOURCE", value_parser = side)]
    from: Side,

    /// Where to
    #[arg(value_name = "DESTINATION", value_parser = side)]
    to: Side,
}

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Side {
    Here(String),
    /// A sandbox and a path, as they were typed: an id has a colon of its own,
    /// so only the daemon knows where the path begins.
    There(String),
}

fn side(text: &str) -> Result<Side, String> {
    if text.is_empty() {
        return Err("a path may not be empty".to_owned());
    }
    match text.split_once(':') {
        Some((name, _)) if !name.is_empty() && !name.contains('/') && !name.starts_with('.') => {
            Ok(Side::There(text.to_owned()))
        }
        _ => Ok(Side::Here(text.to_owned())),
    }
}

/// The ways to read `name:path`: up to the first colon, or to the second.
fn readings(text: &str) -> Vec<(&str, &str)> {
    let colons = text.match_indices(':').map(|(at, _)| at).take(2);
    colons
        .map(|at| {
            (
                &text[..at],
                if at + 1 == text.len() {
                    "."
                } else {
                    &text[at + 1..]
                },
            )
        })
        .collect()
}

impl CpArgs {
    pub(in crate::cli) fn check(&self) -> Result<()> {
        let problem = match (&self.from, &self.to) {
            (Side::Here(_), Side::Here(_)) => "one side must be in a sandbox: SANDBOX:PATH",
            (Side::There(_), Side::There(_)) => "one side must be on this machine",
            _ => return Ok(()),
        };
        let hint = match &self.from {
            Side::Here(_) => "such as: stigmer sandbox cp ./app web:app",
            Side::There(_) => "copy out and in again, or use: stigmer sandbox exec SANDBOX -- cp",
        };
        Err(Failure::usage(problem).hint(hint))
    }
}

pub(super) async fn cp(args: &CpArgs, daemon: &Daemon, output: &Output) -> Result<Outcome> {
    let report = match (&args.from, &args.to) {
        (Side::Here(from), Side::There(to)) => {
            let (sandbox, path) = resolve(daemon, to).await?;
            upload::upload(daemon, from, &sandbox, &path, output).await?
        }
        (Side::There(from), Side::Here(to)) => {
            let (sandbox, path) = resolve(daemon, from).await?;
            download::download(daemon, &sandbox, &path, to, output).await?
        }
        _ => return args.check().map(|()| Outcome::Success),
    };
    report.finish(output)
}

/// Finds the sandbox, and with it where the path begins.
async fn resolve(daemon: &Daemon, text: &str) -> Result<(String, String)> {
    let mut missing = None;
    for (name, path) in readings(text) {
        let request = GetSandboxRequest {
            sandbox_id: name.to_owned(),
        };
        match daemon.sandboxes().get(request).await {
            Ok(_) => return Ok((name.to_owned(), path.to_owned())),
            Err(status) if has_code(&status, ErrorCode::NoSandbox) => {
                missing.get_or_insert(status);
            }
            Err(status) => return Err(status.into()),
        }
    }
    Err(missing.map_or_else(
        || Failure::usage(format!("'{text}' names no sandbox")),
        Failure::from,
    ))
}

/// What came of a copy.
#[derive(Debug, Default)]
struct Report {
    files: u64,
    bytes: u64,
    directories: u64,
    /// Links that lead out of the tree, nowhere, or in a circle.
    links: u64,
    /// FIFOs, sockets and devices.
    others: u64,
    problems: Vec<String>,
}

impl Report {
    fn finish(self, output: &Output) -> Result<Outcome> {
        let directories = match self.directories {
            0 => String::new(),
            number => format!(" and {}", count(number, "directory")),
        };
        output.note(format!(
            "copied {}{directories}, {}",
            count(self.files, "file"),
            output::bytes(self.bytes)
        ));
        if self.links > 0 {
            output.warn(format!(
                "left out {} that cannot be followed within the tree",
                count(self.links, "link")
            ));
        }
        if self.others > 0 {
            output.warn(format!(
                "left out {} (FIFOs, sockets and devices)",
                count(self.others, "special file")
            ));
        }
        if self.problems.is_empty() {
            Ok(Outcome::Success)
        } else {
            Err(Failure::several(self.problems))
        }
    }
}

/// A bar on a terminal, and nothing elsewhere.
fn progress(total: u64, output: &Output) -> ProgressBar {
    if !output.shows_progress() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    match ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Where a copy goes: its name, or inside a directory that exists.
///
/// `name` is the source's own; `None` if only its content is meant. `exists`
/// says what is at the destination.
fn target(source: Source<'_>, destination: &str, exists: Existing) -> Result<String, String> {
    let inside = |name: &str| format!("{}/{name}", destination.trim_end_matches('/'));
    match (exists, source) {
        (Existing::Directory, Source::File(name) | Source::Directory(Some(name))) => {
            Ok(inside(name))
        }
        (_, Source::Directory(_)) if exists == Existing::File => Err(format!(
            "'{}' is a file, and a directory cannot replace it",
            destination.escape_debug()
        )),
        (Existing::Nothing | Existing::File, Source::File(_)) if destination.ends_with('/') => Err(
            format!("'{}' is not a directory", destination.escape_debug()),
        ),
        _ => Ok(match destination.trim_end_matches('/') {
            "" => "/".to_owned(),
            trimmed => trimmed.to_owned(),
        }),
    }
}

#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    File(&'a str),
    /// With its name, unless only the content is meant.
    Directory(Option<&'a str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Existing {
    Nothing,
    File,
    Directory,
}

/// The last name of a path; `None` if it has none, as `.`, `a/..` and `/`.
fn last_name(path: &str) -> Option<&str> {
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("" | "." | "..") => None,
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_here_unless_it_names_a_sandbox() {
        #[track_caller]
        fn check(text: &str, there: bool) {
            assert_eq!(matches!(side(text), Ok(Side::There(_))), there);
        }
        check("web:", true);
        check("web:/a", true);
        check("filesystem:01:a", true);
        check("web", false);
        check("./a:b", false);
        check("/a:b", false);
        check("a/b:c", false);
        check(":a", false);
        assert!(side("").is_err());
    }

    #[test]
    fn an_id_has_a_colon_of_its_own() {
        assert_eq!(readings("web:"), [("web", ".")]);
        assert_eq!(readings("web:a"), [("web", "a")]);
        assert_eq!(
            readings("filesystem:01:a:b"),
            [("filesystem", "01:a:b"), ("filesystem:01", "a:b")]
        );
    }

    #[test]
    fn copies_go_where_docker_puts_them() {
        #[track_caller]
        fn check(source: Source<'_>, destination: &str, exists: Existing, expected: Option<&str>) {
            assert_eq!(
                target(source, destination, exists).ok().as_deref(),
                expected
            );
        }
        check(Source::File("a"), "b", Existing::Nothing, Some("b"));
        check(Source::File("a"), "b", Existing::File, Some("b"));
        check(Source::File("a"), "b", Existing::Directory, Some("b/a"));
        check(Source::File("a"), "b/", Existing::Directory, Some("b/a"));
        check(Source::File("a"), "b/", Existing::Nothing, None);
        check(Source::File("a"), "b/", Existing::File, None);
        check(Source::File("a"), "/", Existing::Directory, Some("/a"));
        check(
            Source::Directory(Some("a")),
            "b",
            Existing::Nothing,
            Some("b"),
        );
        check(
            Source::Directory(Some("a")),
            "b/",
            Existing::Nothing,
            Some("b"),
        );
        check(
            Source::Directory(Some("a")),
            "b",
            Existing::Directory,
            Some("b/a"),
        );
        check(Source::Directory(None), "b", Existing::Directory, Some("b"));
        check(Source::Directory(Some("a")), "b", Existing::File, None);
    }

    #[test]
    fn some_paths_have_no_name() {
        #[track_caller]
        fn check(path: &str, expected: Option<&str>) {
            assert_eq!(last_name(path), expected);
        }
        check("a/b", Some("b"));
        check("a/b/", Some("b"));
        check(".", None);
        check("a/.", None);
        check("..", None);
        check("/", None);
    }
}
