//! Searches. Their results travel in pieces, none of which is too large for a
//! message.

use std::num::NonZeroU32;
use std::time::Duration;

use super::backend::millis;
use super::{invalid, named, path, required, sandbox};
use crate::{
    Error, GlobQuery, GlobResults, GrepQuery, GrepResults, Match, Result, SandboxId, Truncation,
};

/// About how much of results goes into one message: far below any limit on
/// messages, also when the last result is a large one.
const BATCH_BYTES: usize = 256 * 1024;

impl From<Truncation> for sandbox::Truncation {
    fn from(truncation: Truncation) -> Self {
        match truncation {
            Truncation::Results => Self::Results,
            Truncation::Time => Self::Time,
            Truncation::Unreadable => Self::Unreadable,
        }
    }
}

impl From<sandbox::Truncation> for Option<Truncation> {
    fn from(truncation: sandbox::Truncation) -> Self {
        match truncation {
            sandbox::Truncation::Unspecified => None,
            sandbox::Truncation::Results => Some(Truncation::Results),
            sandbox::Truncation::Time => Some(Truncation::Time),
            sandbox::Truncation::Unreadable => Some(Truncation::Unreadable),
        }
    }
}

fn truncation_out(truncation: Option<Truncation>) -> i32 {
    truncation
        .map_or(sandbox::Truncation::Unspecified, Into::into)
        .into()
}

fn truncation_in(number: i32) -> Result<Option<Truncation>> {
    Ok(named::<sandbox::Truncation>("truncation", number)?.into())
}

fn max_results(number: u32) -> Result<NonZeroU32> {
    NonZeroU32::new(number).ok_or_else(|| invalid("max_results", "must be above 0"))
}

fn max_ms(duration: Duration) -> u32 {
    u32::try_from(millis(duration)).unwrap_or(u32::MAX)
}

/// The request that asks a sandbox for this.
#[must_use]
pub fn glob_request(sandbox: &SandboxId, query: GlobQuery) -> sandbox::GlobRequest {
    sandbox::GlobRequest {
        sandbox_id: sandbox.as_str().to_owned(),
        root: query.root.as_str().to_owned(),
        pattern: query.pattern,
        directories: query.directories,
        exclude: query.exclude,
        max_results: query.max_results.get(),
        max_ms: max_ms(query.max_time),
        gitignore: query.gitignore,
    }
}

impl TryFrom<sandbox::GlobRequest> for GlobQuery {
    type Error = Error;

    fn try_from(wire: sandbox::GlobRequest) -> Result<Self> {
        Ok(Self {
            root: path("root", wire.root)?,
            pattern: wire.pattern,
            directories: wire.directories,
            exclude: wire.exclude,
            gitignore: wire.gitignore,
            max_results: max_results(wire.max_results)?,
            max_time: Duration::from_millis(wire.max_ms.into()),
        })
    }
}

/// The request that asks a sandbox for this.
#[must_use]
pub fn grep_request(sandbox: &SandboxId, query: GrepQuery) -> sandbox::GrepRequest {
    sandbox::GrepRequest {
        sandbox_id: sandbox.as_str().to_owned(),
        root: query.root.as_str().to_owned(),
        patterns: query.patterns,
        regex: query.regex,
        ignore_case: query.ignore_case,
        files: query.files,
        exclude: query.exclude,
        before: query.before,
        after: query.after,
        max_results: query.max_results.get(),
        max_ms: max_ms(query.max_time),
        gitignore: query.gitignore,
    }
}

impl TryFrom<sandbox::GrepRequest> for GrepQuery {
    type Error = Error;

    fn try_from(wire: sandbox::GrepRequest) -> Result<Self> {
        Ok(Self {
            root: path("root", wire.root)?,
            patterns: wire.patterns,
            regex: wire.regex,
            ignore_case: wire.ignore_case,
            files: wire.files,
            exclude: wire.exclude,
            gitignore: wire.gitignore,
            before: wire.before,
            after: wire.after,
            max_results: max_results(wire.max_results)?,
            max_time: Duration::from_millis(wire.max_ms.into()),
        })
    }
}

impl From<Match> for sandbox::Match {
    fn from(found: Match) -> Self {
        Self {
            path: found.path,
            line: found.line,
            text: found.text,
            before: found.before,
            after: found.after,
        }
    }
}

impl From<sandbox::Match> for Match {
    fn from(wire: sandbox::Match) -> Self {
        Self {
            path: wire.path,
            line: wire.line,
            text: wire.text,
            before: wire.before,
            after: wire.after,
        }
    }
}

/// The results as responses: at least one, and the truncation on the last.
pub fn glob_responses(results: GlobResults) -> impl Iterator<Item = sandbox::GlobResponse> + Send {
    let files = results
        .files
        .into_iter()
        .map(|(path, metadata)| sandbox::File {
            path,
            metadata: Some(metadata.into()),
        });
    let batches = batches(files, |file: &sandbox::File| file.path.len() + 64);
    last_truncated(batches, results.truncation)
        .map(|(files, truncation)| sandbox::GlobResponse { files, truncation })
}

/// The results as responses: at least one, and the truncation on the last.
pub fn grep_responses(results: GrepResults) -> impl Iterator<Item = sandbox::GrepResponse> + Send {
    let matches = results.matches.into_iter().map(sandbox::Match::from);
    let batches = batches(matches, |found: &sandbox::Match| {
        let context = found.before.iter().chain(&found.after);
        found.path.len() + found.text.len() + context.map(|line| line.len() + 8).sum::<usize>() + 32
    });
    last_truncated(batches, results.truncation).map(|(matches, truncation)| sandbox::GrepResponse {
        matches,
        truncation,
    })
}

/// Groups of about [`BATCH_BYTES`] each. One item may exceed that alone.
fn batches<T: Send>(
    items: impl Iterator<Item = T> + Send,
    size: impl Fn(&T) -> usize + Send,
) -> impl Iterator<Item = Vec<T>> + Send {
    let mut items = items.peekable();
    std::iter::from_fn(move || {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(item) = items.next_if(|_| bytes < BATCH_BYTES) {
            bytes += size(&item);
            batch.push(item);
        }
        (!batch.is_empty()).then_some(batch)
    })
}

fn last_truncated<T: Send>(
    batches: impl Iterator<Item = Vec<T>> + Send,
    truncation: Option<Truncation>,
) -> impl Iterator<Item = (Vec<T>, i32)> + Send {
    let mut batches = batches.peekable();
    let mut first = true;
    std::iter::from_fn(move || {
        let batch = match batches.next() {
            Some(batch) => batch,
            None if first => Vec::new(),
            None => return None,
        };
        first = false;
        let last = batches.peek().is_none();
        Some((
            batch,
            if last {
                truncation_out(truncation)
            } else {
                truncation_out(None)
            },
        ))
    })
}

impl GlobResults {
    /// Adds what one response holds.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`](crate::ErrorCode::InvalidArgument) with the field that makes no sense.
    pub fn add_wire(&mut self, response: sandbox::GlobResponse) -> Result<()> {
        for file in response.files {
            let metadata = required("metadata", file.metadata)?.try_into()?;
            self.files.push((file.path, metadata));
        }
        self.truncation = truncation_in(response.truncation)?;
        Ok(())
    }
}

impl GrepResults {
    /// Adds what one response holds.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`](crate::ErrorCode::InvalidArgument) with the field that makes no sense.
    pub fn add_wire(&mut self, response: sandbox::GrepResponse) -> Result<()> {
        self.matches
            .extend(response.matches.into_iter().map(Match::from));
        self.truncation = truncation_in(response.truncation)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileKind, Metadata};

    fn id() -> SandboxId {
        SandboxId::new("a").unwrap()
    }

    #[test]
    fn queries_survive_the_trip() {
        let glob = GlobQuery {
            root: "r".try_into().unwrap(),
            pattern: "*.rs".to_owned(),
            directories: true,
            exclude: vec![".git".to_owned()],
            gitignore: true,
            max_results: NonZeroU32::new(3).unwrap(),
            max_time: Duration::from_millis(4),
        };
        assert_eq!(
            GlobQuery::try_from(glob_request(&id(), glob.clone())).unwrap(),
            glob
        );
        let grep = GrepQuery {
            root: "r".try_into().unwrap(),
            patterns: vec!["a".to_owned(), "b".to_owned()],
            regex: true,
            ignore_case: true,
            files: Some("*.rs".to_owned()),
            exclude: vec![".git".to_owned()],
            gitignore: true,
            before: 1,
            after: 2,
            max_results: NonZeroU32::new(3).unwrap(),
            max_time: Duration::from_millis(4),
        };
        assert_eq!(
            GrepQuery::try_from(grep_request(&id(), grep.clone())).unwrap(),
            grep
        );
        let mut wire = grep_request(&id(), grep);
        wire.max_results = 0;
        assert!(
            GrepQuery::try_from(wire)
                .unwrap_err()
                .message()
                .contains("max_results")
        );
    }

    #[test]
    fn results_survive_the_trip_in_pieces() {
        #[track_caller]
        fn check(count: usize, text: usize, messages: usize, truncation: Option<Truncation>) {
            let results = GrepResults {
                matches: (0..count)
                    .map(|line| Match {
                        path: "p".to_owned(),
                        line: line as u64,
                        text: "x".repeat(text),
                        before: vec!["b".to_owned()],
                        after: vec!["a".to_owned()],
                    })
                    .collect(),
                truncation,
            };
            let mut back = GrepResults::default();
            let mut count = 0;
            for response in grep_responses(results.clone()) {
                back.add_wire(response).unwrap();
                count += 1;
            }
            assert_eq!((back, count), (results, messages));
        }
        check(0, 0, 1, None);
        check(0, 0, 1, Some(Truncation::Time));
        check(3, 10, 1, Some(Truncation::Results));
        check(5, BATCH_BYTES, 5, Some(Truncation::Unreadable));

        let metadata = Metadata {
            kind: FileKind::File,
            size: 1,
            permissions: None,
            modified_ms: None,
            version: None,
            target: None,
        };
        let results = GlobResults {
            files: vec![("p".to_owned(), metadata); 9],
            truncation: Some(Truncation::Results),
        };
        let mut back = GlobResults::default();
        for response in glob_responses(results.clone()) {
            back.add_wire(response).unwrap();
        }
        assert_eq!(back, results);
    }
}
