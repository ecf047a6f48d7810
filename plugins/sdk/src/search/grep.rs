//! Finding lines by content.

use std::io::{self, Read};
use std::sync::atomic::AtomicBool;

use grep_matcher::LineTerminator;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder};

use super::budget::Budget;
use super::lines::Lines;
use super::pattern::Pattern;
use super::walk::{Open, Walk};
use super::{Entry, Node, Tree};
use crate::{Error, ErrorCode, GrepQuery, GrepResults, Match, Result};

/// A file with a NUL in as many bytes is no text.
const BINARY: usize = 8 * 1024;

/// Files up to this size are searched where they were read to. The others go
/// through a buffer that knows about lines.
const WHOLE: usize = 128 * 1024;

/// Bytes of one line, with its context, that are searched in larger files. One
/// with more is left out.
const MAX_HEAP: usize = 32 * 1024 * 1024;

/// Bytes of a compiled expression, and of its cache in each thread.
const MAX_REGEX: usize = 10 * 1024 * 1024;

/// Finds lines by content, on at most `threads` threads, this one included,
/// until `cancelled`.
///
/// If there is more than was asked for, which of it is found is left to chance.
///
/// # Errors
/// `InvalidPattern`, and what [`Tree::root`] answers.
pub fn grep<T: Tree>(
    tree: &T,
    query: &GrepQuery,
    threads: usize,
    cancelled: &AtomicBool,
) -> Result<GrepResults> {
    let matcher = matcher(query)?;
    let files = query.files.as_deref();
    let pattern = files.map(|files| Pattern::new(files, true)).transpose()?;
    let budget = Budget::new(query.max_results, query.max_time, cancelled);
    let search = Search {
        matcher: &matcher,
        query,
        budget: &budget,
    };
    let mut matches = match tree.root()? {
        Node::File(file) => {
            let name = query.root.as_str().rsplit('/').next().unwrap_or_default();
            let matches = |pattern: &Pattern| pattern.matches(&pattern.start(), name);
            let mut scratch = search.scratch();
            if pattern.as_ref().is_none_or(matches) {
                search.file(&mut scratch, file, String::new());
            }
            scratch.matches
        }
        Node::Directory(root) => {
            let walk = Walk {
                tree,
                budget: &budget,
                pattern,
                exclude: &query.exclude,
                gitignore: query.gitignore,
                directories: false,
                links: false,
            };
            let visit = |scratch: &mut Scratch, dir: &Open<T::Dir>, entry: Entry| match tree
                .open(&dir.dir, &entry.name)
            {
                Ok(file) => search.file(scratch, file, dir.join(&entry.name)),
                Err(error) => budget.judge(error),
            };
            let found = walk.run(root, threads, || search.scratch(), visit)?;
            found
                .into_iter()
                .flat_map(|scratch| scratch.matches)
                .collect()
        }
    };
    matches.sort_unstable_by(|one, other| (&one.path, one.line).cmp(&(&other.path, other.line)));
    Ok(GrepResults {
        matches,
        truncation: budget.verdict()?,
    })
}

/// One expression for all patterns.
fn matcher(query: &GrepQuery) -> Result<RegexMatcher> {
    let patterns: Vec<_> = query
        .patterns
        .iter()
        .flat_map(|pattern| pattern.split('\n'))
        // Pasted from a file with the other line endings.
        .map(|pattern| pattern.strip_suffix('\r').unwrap_or(pattern))
        .filter(|pattern| !pattern.is_empty())
        .collect();
    if patterns.is_empty() {
        return Err(Error::new(
            ErrorCode::InvalidPattern,
            "a pattern may not be empty",
        ));
    }
    RegexMatcherBuilder::new()
        .fixed_strings(!query.regex)
        .case_insensitive(query.ignore_case)
        // So that `^` and `$` are at lines, whichever way they end.
        .multi_line(true)
        .crlf(true)
        .size_limit(MAX_REGEX)
        .dfa_size_limit(MAX_REGEX)
        .build_many(&patterns)
        .map_err(|error| {
            // The lines before the last one draw the pattern.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default();
            let reason = reason.strip_prefix("error: ").unwrap_or(reason);
            Error::new(
                ErrorCode::InvalidPattern,
                format!("not a regular expression: {reason}"),
            )
        })
}

/// What all threads share.
struct Search<'a> {
    matcher: &'a RegexMatcher,
    query: &'a GrepQuery,
    budget: &'a Budget<'a>,
}

/// What each thread uses again for every file.
struct Scratch {
    searcher: Searcher,
    buffer: Vec<u8>,
    matches: Vec<Match>,
}

impl Search<'_> {
    fn scratch(&self) -> Scratch {
        let lines = |count| usize::try_from(count).unwrap_or(usize::MAX);
        let searcher = SearcherBuilder::new()
            .line_terminator(LineTerminator::crlf())
            .before_context(lines(self.query.before))
            .after_context(lines(self.query.after))
            // NUL is looked for before the searcher sees the file, and a byte
            // order mark is left to be found.
            .binary_detection(BinaryDetection::none())
            .bom_sniffing(false)
            .heap_limit(Some(MAX_HEAP))
            .build();
        Scratch {
            searcher,
            buffer: vec![0; WHOLE],
            matches: Vec::new(),
        }
    }

    fn file(&self, scratch: &mut Scratch, mut file: impl Read, path: String) {
        let length = match fill(&mut file, &mut scratch.buffer) {
            Ok(length) => length,
            Err(error) => return self.budget.judge_io(&error),
        };
        let start = &scratch.buffer[..length];
        if start[..length.min(BINARY)].contains(&0) {
            return;
        }
        let lines = Lines::new(path, self.query, self.budget, &mut scratch.matches);
        let result = if length < WHOLE {
            scratch.searcher.search_slice(self.matcher, start, lines)
        } else {
            let file = Timed(file, self.budget);
            scratch
                .searcher
                .search_reader(self.matcher, start.chain(file), lines)
        };
        if let Err(error) = result {
            self.budget.judge_io(&error);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// A large file, which ends when the search does.
struct Timed<'a, R>(R, &'a Budget<'a>);

impl<R: Read> Read for Timed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.1.lasts() {
            self.1.stop();
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.0.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::super::lines::MAX_LINE;
    use super::super::memory::Memory;
    use super::*;
    use crate::{SandboxPath, Truncation};

    fn query(pattern: &str) -> GrepQuery {
        GrepQuery {
            root: SandboxPath::new("some/file.txt").unwrap(),
            patterns: vec![pattern.to_owned()],
            regex: false,
            ignore_case: false,
            files: None,
            exclude: Vec::new(),
            gitignore: false,
            before: 0,
            after: 0,
            max_results: NonZeroU32::new(1000).unwrap(),
            max_time: Duration::from_secs(60),
        }
    }

    fn regex(pattern: &str) -> GrepQuery {
        GrepQuery {
            regex: true,
            ..query(pattern)
        }
    }

    fn run(tree: &Memory, query: &GrepQuery) -> GrepResults {
        grep(tree, query, 2, &AtomicBool::new(false)).unwrap()
    }

    /// The matches as `path:line:text`.
    fn shown(results: &GrepResults) -> Vec<String> {
        let matches = results.matches.iter();
        matches
            .map(|found| format!("{}:{}:{}", found.path, found.line, found.text))
            .collect()
    }

    #[track_caller]
    fn check(content: impl AsRef<[u8]>, query: &GrepQuery, expected: &[&str]) {
        let tree = Memory::new(&[("", content)]);
        assert_eq!(shown(&run(&tree, query)), expected);
    }

    #[test]
    fn lines_match_literals_and_expressions() {
        check("a.c\nabc\n", &query("a.c"), &[":1:a.c"]);
        check("a.c\nabc\n", &regex("a.c"), &[":1:a.c", ":2:abc"]);
        check("no end", &query("end"), &[":1:no end"]);
        check("x\r\ny\r\n", &query("y"), &[":2:y"]);
        check("x\r\ny\n", &regex("^[xy]$"), &[":1:x", ":2:y"]);
        check(
            "one\ntwo\nthree\n",
            &query("one\nthree"),
            &[":1:one", ":3:three"],
        );
        check("one\ntwo\n", &query("one\r\n\ntwo"), &[":1:one", ":2:two"]);
        check("STRASSE\nżółć\n", &query("ŻÓŁĆ"), &[]);
        let any_case = GrepQuery {
            ignore_case: true,
            ..query("ŻÓŁĆ")
        };
        check("STRASSE\nżółć\n", &any_case, &[":2:żółć"]);
        check(b"a\xff b\n", &query("b"), &[":1:a\u{fffd} b"]);
        check("\u{feff}a\n", &query("a"), &[":1:\u{feff}a"]);
        check("", &query("a"), &[]);
        check("a\n\na\n", &regex("^$"), &[":2:"]);
    }

    #[test]
    fn binary_files_are_skipped() {
        check(b"a\0\n", &query("a"), &[]);
        let mut late = vec![b'\n'; BINARY];
        late.extend_from_slice(b"a\0b\n");
        check(&late, &query("b"), &[":8193:a\0b"]);
    }

    #[test]
    fn large_files_are_as_small_ones() {
        let mut content = "line\n".repeat(WHOLE);
        content.push_str("here\r\nafter\n");
        let last = format!(":{}:here", WHOLE + 1);
        check(&content, &query("here"), &[&last]);
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let line = "żółw".repeat(MAX_LINE);
        let results = run(&Memory::new(&[("", format!("x{line}\n"))]), &query("x"));
        let text = &results.matches[0].text;
        assert!(text.len() <= MAX_LINE && text.len() > MAX_LINE - 4);
        assert!(!text.contains(char::REPLACEMENT_CHARACTER));
        assert!(format!("x{line}").starts_with(text));
    }

    #[test]
    fn context_is_complete_also_next_to_other_matches() {
        let query = GrepQuery {
            before: 1,
            after: 2,
            ..query("x")
        };
        let tree = Memory::new(&[("", "1\nx2\nx3\n4\n5\n6\n7\nx8")]);
        let results = run(&tree, &query);
        let context: Vec<_> = results
            .matches
            .iter()
            .map(|found| (found.before.join(","), found.line, found.after.join(",")))
            .collect();
        let expected = [("1", 2, "x3,4"), ("x2", 3, "4,5"), ("7", 8, "")];
        let expected = expected.map(|(before, line, after)| (before.into(), line, after.into()));
        assert_eq!(context, expected);
    }

    #[test]
    fn the_last_match_has_its_context_too() {
        let query = GrepQuery {
            after: 2,
            max_results: NonZeroU32::MIN,
            ..query("x")
        };
        let results = run(&Memory::new(&[("", "x1\nx2\n3\n4\n")]), &query);
        assert_eq!(results.truncation, Some(Truncation::Results));
        assert_eq!(results.matches.len(), 1);
        assert_eq!(results.matches[0].after, ["x2", "3"]);
    }

    #[test]
    fn files_are_chosen() {
        let tree = Memory::new(&[
            ("a.rs", "x"),
            ("a.py", "x"),
            (".github/ci.yml", "x"),
            (".git/config", "x"),
            ("src/.hidden.rs", "x"),
            ("target/b.rs", "x"),
            (".gitignore", "target/\n"),
            ("link.rs", "-> a.rs"),
        ]);
        #[track_caller]
        fn check(tree: &Memory, files: Option<&str>, gitignore: bool, expected: &[&str]) {
            let query = GrepQuery {
                files: files.map(str::to_owned),
                exclude: vec![".git".to_owned()],
                gitignore,
                ..query("x")
            };
            let results = run(tree, &query);
            let paths: Vec<_> = results.matches.iter().map(|found| &*found.path).collect();
            assert_eq!(paths, expected);
        }
        let hidden = "src/.hidden.rs";
        check(&tree, Some("*.rs"), false, &["a.rs", hidden, "target/b.rs"]);
        check(&tree, Some("**/*.rs"), true, &["a.rs", hidden]);
        check(&tree, Some("src/*"), false, &[hidden]);
        check(
            &tree,
            Some("*.{yml,py}"),
            false,
            &[".github/ci.yml", "a.py"],
        );
        check(
            &tree,
            None,
            true,
            &[".github/ci.yml", "a.py", "a.rs", hidden],
        );
        // The root's own name counts, if it is a file.
        let tree = Memory::new(&[("", "x")]);
        check(&tree, Some("*.txt"), false, &[""]);
        check(&tree, Some("*.rs"), false, &[]);
    }

    #[test]
    fn bounds_are_met_exactly_or_said() {
        #[track_caller]
        fn check(most: u32, expected: Option<Truncation>) {
            let tree = Memory::new(&[("a", "x\nx\n"), ("b", "x\n")]);
            let query = GrepQuery {
                max_results: NonZeroU32::new(most).unwrap(),
                ..query("x")
            };
            let results = run(&tree, &query);
            assert_eq!(results.truncation, expected);
            assert_eq!(results.matches.len(), 3.min(most as usize));
        }
        check(2, Some(Truncation::Results));
        check(3, None);
        check(4, None);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let tree = Memory::new(&[("a", "x"), ("b", "!"), ("locked/!", "x")]);
        let results = run(&tree, &query("x"));
        assert_eq!(shown(&results), ["a:1:x"]);
        assert_eq!(results.truncation, Some(Truncation::Unreadable));
    }

    #[test]
    fn nobody_waits_for_a_cancelled_search() {
        let tree = Memory::new(&[("d/a", "x")]);
        let results = grep(&tree, &query("x"), 2, &AtomicBool::new(true)).unwrap();
        assert!(results.matches.is_empty());
    }

    #[test]
    fn context_cannot_fill_the_memory() {
        let line = format!("x{}\n", "y".repeat(1000));
        let query = GrepQuery {
            before: u32::MAX,
            after: u32::MAX,
            ..query("x")
        };
        let results = run(&Memory::new(&[("", line.repeat(2000))]), &query);
        assert_eq!(results.truncation, Some(Truncation::Results));
    }

    #[test]
    fn what_is_no_expression_is_refused_in_one_line() {
        #[track_caller]
        fn check(query: &GrepQuery, message: &str) {
            let tree = Memory::new(&[("", "x")]);
            let error = grep(&tree, query, 1, &AtomicBool::new(false)).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidPattern);
            assert!(error.message().contains(message), "{error}");
            assert!(!error.message().contains('\n'), "{error}");
        }
        check(&regex("a(b"), "unclosed group");
        check(&regex("(?=a)"), "look-around");
        check(&regex("(a)\\1"), "backreferences");
        check(&regex("(a{1000}){1000}"), "size limit");
        check(&query("\n\n"), "empty");
        check(
            &GrepQuery {
                files: Some("../*".to_owned()),
                ..query("a")
            },
            "'..'",
        );
    }
}
