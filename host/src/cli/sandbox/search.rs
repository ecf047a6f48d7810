//! Searches in a sandbox of the daemon.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use stigmer_sdk::wire::host;
use stigmer_sdk::wire::sandbox as contract;

use super::files::Shown;
use crate::cli::daemon::Daemon;
use crate::cli::exit::Outcome;
use crate::cli::failure::Result;
use crate::cli::output::Output;
use crate::cli::value;

#[derive(Args, Debug)]
pub(in crate::cli) struct GlobArgs {
    /// The sandbox
    sandbox: String,

    /// The pattern: without a '/' it matches names at any depth
    pattern: String,

    /// The directory to search
    #[arg(default_value = ".", value_parser = value::path)]
    path: String,

    /// Directories too
    #[arg(long)]
    directories: bool,

    /// Leave out what .gitignore files say
    #[arg(long)]
    gitignore: bool,

    /// A name of directories not to enter; may be repeated
    #[arg(long, value_name = "NAME")]
    exclude: Vec<String>,

    /// Stop after this many
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    max_count: Option<u32>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct GrepArgs {
    /// The sandbox
    sandbox: String,

    /// The text to find
    #[arg(allow_hyphen_values = true)]
    pattern: String,

    /// The file or directory to search
    #[arg(default_value = ".", value_parser = value::path)]
    path: String,

    /// The pattern is a regular expression, without look-around and back-references
    #[arg(long)]
    regex: bool,

    /// Whether 'a' matches 'A'
    #[arg(short, long)]
    ignore_case: bool,

    /// Lines of context before each match
    #[arg(short = 'B', long, value_name = "LINES")]
    before_context: Option<u32>,

    /// Lines of context after each match
    #[arg(short = 'A', long, value_name = "LINES")]
    after_context: Option<u32>,

    /// Lines of context on both sides
    #[arg(short = 'C', long, value_name = "LINES", default_value_t = 0)]
    context: u32,

    /// Only files that this pattern matches
    #[arg(short, long, value_name = "PATTERN")]
    glob: Option<String>,

    /// Leave out what .gitignore files say
    #[arg(long)]
    gitignore: bool,

    /// A name of directories not to enter; may be repeated [default: .git]
    #[arg(long, value_name = "NAME")]
    exclude: Vec<String>,

    /// Stop after this many matches
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    max_count: Option<u32>,

    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) async fn glob(args: &GlobArgs, daemon: &Daemon, output: &Output) -> Result<Outcome> {
    let request = host::GlobRequest {
        sandbox_id: args.sandbox.clone(),
        root: args.path.clone(),
        pattern: args.pattern.clone(),
        directories: args.directories,
        exclude: args.exclude.clone(),
        max_results: args.max_count,
        max_ms: None,
        gitignore: args.gitignore,
    };
    let mut answers = daemon.files().glob(request).await?.into_inner();
    let mut files = Vec::new();
    while let Some(answer) = answers.message().await? {
        warn_of(answer.truncation(), output);
        files.extend(answer.files);
    }
    if args.json {
        output.json(&files.iter().map(Shown::of).collect::<Vec<_>>())?;
    } else {
        let mut text = String::new();
        for file in &files {
            text.push_str(&output.shown(plain(&file.path)));
            text.push('\n');
        }
        output.bytes(text.as_bytes())?;
    }
    Ok(Outcome::Success)
}

/// A path below the workspace needs no `./`.
fn plain(path: &str) -> &str {
    path.strip_prefix("./").unwrap_or(path)
}

fn warn_of(truncation: contract::Truncation, output: &Output) {
    match truncation {
        contract::Truncation::Unspecified => {}
        contract::Truncation::Results => {
            output.warn("there are more; raise the limit with --max-count")
        }
        contract::Truncation::Time => output.warn("time ran out; search a smaller directory"),
        contract::Truncation::Unreadable => {
            output.warn("something could not be read, and was not searched")
        }
    }
}

/// A match as JSON has it.
#[derive(Serialize)]
struct Found<'a> {
    path: &'a str,
    line: u64,
    text: &'a str,
    before: &'a [String],
    after: &'a [String],
}

pub(super) async fn grep(args: &GrepArgs, daemon: &Daemon, output: &Output) -> Result<Outcome> {
    let request = host::GrepRequest {
        sandbox_id: args.sandbox.clone(),
        root: args.path.clone(),
        patterns: vec![args.pattern.clone()],
        regex: args.regex,
        ignore_case: args.ignore_case,
        files: args.glob.clone(),
        exclude: args.exclude.clone(),
        before: args.before_context.unwrap_or(args.context),
        after: args.after_context.unwrap_or(args.context),
        max_results: args.max_count,
        max_ms: None,
        gitignore: args.gitignore,
    };
    let context = request.before > 0 || request.after > 0;
    let mut answers = daemon.files().grep(request).await?.into_inner();
    let mut page = Page {
        context,
        ..Page::default()
    };
    let mut matched = false;
    while let Some(answer) = answers.message().await? {
        warn_of(answer.truncation(), output);
        let mut text = String::new();
        for found in &answer.matches {
            matched = true;
            if args.json {
                let Ok(line) = serde_json::to_string(&Found {
                    path: &found.path,
                    line: found.line,
                    text: &found.text,
                    before: &found.before,
                    after: &found.after,
                }) else {
                    continue;
                };
                text.push_str(&line);
                text.push('\n');
            } else {
                page.add(found, &mut text);
            }
        }
        output.bytes(safe_lines(&text, args.json, output).as_bytes())?;
    }
    let mut rest = String::new();
    page.flush(&mut rest);
    output.bytes(safe_lines(&rest, args.json, output).as_bytes())?;
    Ok(if matched {
        Outcome::Success
    } else {
        Outcome::NoMatch
    })
}

/// What a terminal may be given, line by line.
fn safe_lines(text: &str, json: bool, output: &Output) -> String {
    if json {
        return text.to_owned();
    }
    text.split('\n')
        .map(|line| output.shown(line))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Matches with their context, as `grep` prints them: `path:line:text`, and
/// `path-line-text` around. Contexts that overlap are printed once, and those
/// with lines between them are set apart by `--`.
#[derive(Debug, Default)]
struct Page {
    /// Whether context was asked for.
    context: bool,
    path: String,
    /// The lines of `path` so far, and whether they match.
    lines: BTreeMap<u64, (bool, String)>,
    /// Whether something was printed before.
    printed: bool,
}

impl Page {
    fn add(&mut self, found: &contract::Match, text: &mut String) {
        if found.path != self.path {
            self.flush(text);
            self.path.clone_from(&found.path);
        }
        let first = found.line.saturating_sub(found.before.len() as u64);
        for (line, before) in (first..).zip(&found.before) {
            self.lines
                .entry(line)
                .or_insert_with(|| (false, before.clone()));
        }
        self.lines.insert(found.line, (true, found.text.clone()));
        for (line, after) in (found.line + 1..).zip(&found.after) {
            self.lines
                .entry(line)
                .or_insert_with(|| (false, after.clone()));
        }
    }

    fn flush(&mut self, text: &mut String) {
        let mut previous = None;
        for (line, (matches, content)) in std::mem::take(&mut self.lines) {
            let apart = previous.map_or(self.printed, |previous| line > previous + 1);
            if self.context && apart {
                text.push_str("--\n");
            }
            let mark = if matches { ':' } else { '-' };
            // A newline in a name would look like a line of its own.
            let path = plain(&self.path).replace('\n', "\\n");
            text.extend([
                path.as_str(),
                &format!("{mark}{line}{mark}"),
                &content,
                "\n",
            ]);
            previous = Some(line);
            self.printed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, line: u64, before: &[&str], after: &[&str]) -> contract::Match {
        let own = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect();
        contract::Match {
            path: path.to_owned(),
            line,
            text: format!("match {line}"),
            before: own(before),
            after: own(after),
        }
    }

    #[track_caller]
    fn check(context: bool, matches: &[contract::Match], expected: &str) {
        let mut page = Page {
            context,
            ..Page::default()
        };
        let mut text = String::new();
        for found in matches {
            page.add(found, &mut text);
        }
        page.flush(&mut text);
        assert_eq!(text, expected);
    }

    #[test]
    fn matches_are_printed_as_grep_does() {
        check(
            false,
            &[found("./a", 3, &[], &[]), found("./a", 9, &[], &[])],
            "a:3:match 3\na:9:match 9\n",
        );
    }

    #[test]
    fn contexts_that_overlap_are_printed_once() {
        let matches = [
            found("a", 2, &["one"], &["three"]),
            found("a", 3, &["match 2"], &["four"]),
        ];
        check(
            true,
            &matches,
            "a-1-one\na:2:match 2\na:3:match 3\na-4-four\n",
        );
    }

    #[test]
    fn contexts_apart_are_set_apart() {
        let matches = [
            found("a", 2, &["one"], &[]),
            found("a", 9, &["eight"], &[]),
            found("b", 1, &[], &[]),
        ];
        check(
            true,
            &matches,
            "a-1-one\na:2:match 2\n--\na-8-eight\na:9:match 9\n--\nb:1:match 1\n",
        );
    }
}
