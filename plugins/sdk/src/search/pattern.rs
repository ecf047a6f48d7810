//! Which names a glob pattern matches, one name at a time.
//!
//! A pattern is matched on the way down: [`Pattern::enter`] says where in it a
//! directory leads, and a directory that leads nowhere is not read at all.

use std::collections::HashMap;

use super::names::Names;
use crate::{Error, ErrorCode, Result};

/// Patterns that the braces of one may stand for.
const MAX_ALTERNATIVES: usize = 1000;

/// Bytes of a pattern: as many as of the longest path it could match.
const MAX_BYTES: usize = 4096;

/// Braces within braces. Nobody needs more, and the stack is finite.
const MAX_NESTING: usize = 16;

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    alternatives: Vec<Alternative>,
}

/// Patterns that differ in their last name only.
#[derive(Debug)]
struct Alternative {
    directories: Vec<Step>,
    last: Names,
}

#[derive(Debug)]
enum Step {
    /// `**`: any number of directories.
    Deep {
        hidden: bool,
    },
    One(Names),
}

/// Where in the pattern a directory is: an alternative, and how many of its
/// directories are behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress(Vec<(usize, usize)>);

impl Progress {
    /// Whether nothing below can match.
    pub(super) fn is_lost(&self) -> bool {
        self.0.is_empty()
    }
}

impl Pattern {
    /// Compiles a pattern. With `hidden`, a leading dot need not be written.
    pub(super) fn new(pattern: &str, hidden: bool) -> Result<Self> {
        if pattern.is_empty() {
            return Err(invalid("a pattern may not be empty"));
        }
        if pattern.len() > MAX_BYTES {
            return Err(invalid(format!(
                "a pattern may have at most {MAX_BYTES} bytes, this one has {}",
                pattern.len()
            )));
        }
        // The last names, by the directories before them.
        let mut groups: Vec<(Vec<&str>, bool, Vec<&str>)> = Vec::new();
        let mut known = HashMap::new();
        let expanded = expand(pattern, 0)?;
        for alternative in &expanded {
            let (directories, last) = alternative.rsplit_once('/').unwrap_or(("", alternative));
            let anywhere = !alternative.contains('/');
            let mut directories: Vec<_> = directories
                .split('/')
                .filter(|name| !matches!(*name, "" | "."))
                .collect();
            if directories.contains(&"..") || last == ".." {
                return Err(invalid("a pattern may not contain '..'"));
            }
            let mut last = last;
            if last == "**" {
                if !anywhere {
                    directories.push("**");
                }
                last = "*";
            }
            let group = *known
                .entry((directories.clone(), anywhere))
                .or_insert_with(|| {
                    groups.push((directories, anywhere, Vec::new()));
                    groups.len() - 1
                });
            // With a slash at its end, it matches nothing.
            if !matches!(last, "" | ".") {
                groups[group].2.push(last);
            }
        }
        let mut alternatives = Vec::new();
        for (directories, anywhere, last) in groups {
            let mut steps = Vec::new();
            if anywhere {
                steps.push(Step::Deep { hidden: true });
            }
            for name in directories {
                steps.push(match name {
                    "**" => Step::Deep { hidden },
                    name => Step::One(names(&[name], hidden)?),
                });
            }
            let last = names(&last, hidden)?;
            alternatives.push(Alternative {
                directories: steps,
                last,
            });
        }
        Ok(Self { alternatives })
    }

    /// Where the root is.
    pub(super) fn start(&self) -> Progress {
        let mut progress = Progress::default();
        for alternative in 0..self.alternatives.len() {
            self.reach(&mut progress, alternative, 0);
        }
        progress
    }

    /// Where a directory with this name leads.
    pub(super) fn enter(&self, from: &Progress, name: &str) -> Progress {
        let mut progress = Progress::default();
        for &(index, step) in &from.0 {
            match self.alternatives[index].directories.get(step) {
                Some(Step::Deep { hidden }) if *hidden || !name.starts_with('.') => {
                    self.reach(&mut progress, index, step);
                }
                Some(Step::One(names)) if names.contain(name) => {
                    self.reach(&mut progress, index, step + 1);
                }
                _ => {}
            }
        }
        progress
    }

    /// Whether a name in that directory matches.
    pub(super) fn matches(&self, at: &Progress, name: &str) -> bool {
        at.0.iter().any(|&(index, step)| {
            let alternative = &self.alternatives[index];
            step == alternative.directories.len() && alternative.last.contain(name)
        })
    }

    /// Adds a place in an alternative, and those after it if `**` stands for
    /// nothing.
    fn reach(&self, progress: &mut Progress, index: usize, step: usize) {
        let steps = &self.alternatives[index].directories;
        for step in step..=steps.len() {
            if !progress.0.contains(&(index, step)) {
                progress.0.push((index, step));
            }
            if !matches!(steps.get(step), Some(Step::Deep { .. })) {
                break;
            }
        }
    }
}

fn names(patterns: &[&str], hidden: bool) -> Result<Names> {
    let mut names = Names::new(hidden);
    for pattern in patterns {
        let added = names.add(pattern);
        added.map_err(|problem| invalid(format!("'{}': {problem}", pattern.escape_debug())))?;
    }
    Ok(names)
}

/// All patterns that the braces of one stand for.
fn expand(pattern: &str, nesting: usize) -> Result<Vec<String>> {
    if nesting > MAX_NESTING {
        return Err(invalid(format!(
            "braces may nest {MAX_NESTING} deep at most"
        )));
    }
    let mut expanded = vec![String::new()];
    let mut rest = pattern;
    while let Some(open) = find(rest, "{") {
        let (before, group) = (&rest[..open], &rest[open + 1..]);
        let mut options = Vec::new();
        let mut option = group;
        let after = loop {
            // The end of this option is a comma or a brace that is not inside
            // another pair.
            let Some(end) = end_of_option(option) else {
                return Err(invalid("a '{' in the pattern is not closed"));
            };
            options.extend(expand(&option[..end], nesting + 1)?);
            let is_last = option[end..].starts_with('}');
            option = &option[end + 1..];
            if is_last {
                break option;
            }
            if options.len() > MAX_ALTERNATIVES {
                return Err(too_broad());
            }
        };
        if expanded.len() * options.len() > MAX_ALTERNATIVES {
            return Err(too_broad());
        }
        expanded = expanded
            .iter()
            .flat_map(|start| {
                options
                    .iter()
                    .map(move |option| format!("{start}{before}{option}"))
            })
            .collect();
        rest = after;
    }
    for start in &mut expanded {
        start.push_str(rest);
    }
    Ok(expanded)
}

/// Where the first of some characters stands that is neither escaped nor in a
/// class.
fn find(pattern: &str, wanted: &str) -> Option<usize> {
    let mut start = 0;
    while let Some(character) = pattern[start..].chars().next() {
        if wanted.contains(character) {
            return Some(start);
        }
        let rest = &pattern[start..];
        start += match character {
            '\\' => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            '[' => class(rest).unwrap_or(1),
            _ => character.len_utf8(),
        };
    }
    None
}

/// The length of the class that this starts with, if it is one. A bracket right
/// after the opening one stands for itself.
fn class(pattern: &str) -> Option<usize> {
    let body = pattern[1..]
        .strip_prefix(['!', '^'])
        .unwrap_or(&pattern[1..]);
    let start = pattern.len() - body.len();
    let skipped = usize::from(body.starts_with(']'));
    Some(start + skipped + body[skipped..].find(']')? + 1)
}

fn end_of_option(group: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut start = 0;
    loop {
        let at = start + find(&group[start..], "{,}")?;
        match group.as_bytes()[at] {
            b'{' => depth += 1,
            b'}' if depth > 0 => depth -= 1,
            b'}' => return Some(at),
            _ if depth == 0 => return Some(at),
            _ => {}
        }
        start = at + 1;
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidPattern, message)
}

fn too_broad() -> Error {
    invalid(format!(
        "pattern too broad: its braces stand for more than {MAX_ALTERNATIVES} patterns"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_match(pattern: &str, path: &str, hidden: bool) -> bool {
        let pattern = Pattern::new(pattern, hidden).unwrap();
        let mut progress = pattern.start();
        let (directories, name) = path.rsplit_once('/').unwrap_or(("", path));
        for name in directories.split('/').filter(|name| !name.is_empty()) {
            progress = pattern.enter(&progress, name);
        }
        pattern.matches(&progress, name)
    }

    #[test]
    fn patterns_match_as_documented() {
        #[track_caller]
        fn check(pattern: &str, path: &str, expected: bool) {
            assert_eq!(is_match(pattern, path, false), expected, "{pattern} {path}");
        }
        // Without a slash: the name, at any depth, also in hidden directories.
        check("*.py", "a.py", true);
        check("*.py", "src/deep/a.py", true);
        check("*.py", ".venv/a.py", true);
        check("*.py", "a.pyc", false);
        check("*.py", ".a.py", false);
        check(".*.py", ".a.py", true);
        check(".*", "a/.env", true);
        check("*", ".env", false);
        check("**", "a/b", true);
        check("**", "a/.b", false);
        check("a**", "abc", true);
        check("?.py", "a.py", true);
        check("?.py", "ab.py", false);
        check("?a", ".a", false);
        check("[.]a", ".a", false);
        check("\\.a", ".a", true);
        check("ż?", "żó", true);
        // With one: the path below the root.
        check("src/*.py", "src/a.py", true);
        check("src/*.py", "src/b/a.py", false);
        check("src/*.py", "x/src/a.py", false);
        check("/a.py", "a.py", true);
        check("/a.py", "b/a.py", false);
        check("./a.py", "b/a.py", false);
        check("a//b", "a/b", true);
        check("**/a.py", "a.py", true);
        check("**/a.py", "b/c/a.py", true);
        check("**/a.py", ".b/a.py", false);
        check("**/.b/a.py", "c/.b/a.py", true);
        check("a/**/b", "a/b", true);
        check("a/**/b", "a/x/y/b", true);
        check("a/**/b", "a/.x/b", false);
        check("a/**/**/b", "a/b", true);
        check("a/**", "a/b/c", true);
        check("a/**", "a/b/.c", false);
        check("a.py/**", "a.py", false);
        check("**/*", "a/b", true);
        check("*/a", ".x/a", false);
        check(".*/a", ".x/a", true);
        // A slash at the end.
        check("a/", "a", false);
        check("a/", "a/b", false);
        check("/", "a", false);
        // Classes.
        check("[a-c]x", "bx", true);
        check("[!a-c]x", "bx", false);
        check("[^a-c]x", "dx", true);
        check("[!a]x", ".x", false);
        check("[]]", "]", true);
        check("[{,}]x", "{x", true);
        // Braces.
        check("{a,b}.py", "b.py", true);
        check("*.{ts,tsx}", "x/a.tsx", true);
        check("{a,b{c,d}}/x", "bd/x", true);
        check("{src,test}/**/*.{py,rs}", "test/a/b.rs", true);
        check("{src,test}/**/*.{py,rs}", "lib/b.rs", false);
        check("{.git,src}/*", ".git/a", true);
        check("{a,b/c}", "z/a", true);
        check("{a,b/c}", "z/b/c", false);
        check("a{,b}", "a", true);
        check("a{b}c", "abc", true);
        check("\\{a,b\\}", "{a,b}", true);
    }

    #[test]
    fn hidden_names_match_as_others_if_asked() {
        #[track_caller]
        fn check(pattern: &str, path: &str) {
            assert!(is_match(pattern, path, true), "{pattern} {path}");
            assert!(!is_match(pattern, path, false), "{pattern} {path}");
        }
        check("*.yml", ".a.yml");
        check("**/a", ".github/a");
        check("*/a", ".github/a");
        check("a/**", "a/.b");
        check("[!x]a", ".a");
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_the_reason() {
        #[track_caller]
        fn check(pattern: &str, message: &str) {
            let error = Pattern::new(pattern, false).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidPattern);
            assert!(error.message().contains(message), "{error}");
        }
        check("", "empty");
        check("../a", "'..'");
        check("a/..", "'..'");
        check("..", "'..'");
        check("{a,..}/b", "'..'");
        check("{a,b", "not closed");
        check("x/[a", "'[a': a '[' is not closed");
        check("[z-a]", "ends before it starts");
        check("a\\", "nothing after");
        check("{a,b}".repeat(10).as_str(), "too broad");
        check(&format!("{{{}}}", "a,".repeat(1001)), "too broad");
        check(&format!("{}a{}", "{".repeat(20), "}".repeat(20)), "nest");
        check(&"a".repeat(5000), "5000");
    }

    #[test]
    fn a_thousand_alternatives_are_not_too_many() {
        let thousand = format!("{{{}x}}", "a,".repeat(999));
        assert!(Pattern::new(&thousand, false).is_ok());
        assert!(Pattern::new(&"{a,b}".repeat(9), false).is_ok());
    }

    #[test]
    fn directories_that_cannot_hold_a_match_are_not_entered() {
        #[track_caller]
        fn check(pattern: &str, directory: &str, lost: bool) {
            let pattern = Pattern::new(pattern, false).unwrap();
            let progress = pattern.enter(&pattern.start(), directory);
            assert_eq!(progress.is_lost(), lost, "{directory}");
        }
        check("src/*.rs", "target", true);
        check("src/*.rs", "src", false);
        check("**/*.rs", ".git", true);
        check("*.rs", ".git", false);
        check("/a", "b", true);
    }
}
