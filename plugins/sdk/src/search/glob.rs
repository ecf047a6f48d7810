//! Finding files by name.

use std::sync::atomic::AtomicBool;

use super::budget::Budget;
use super::pattern::Pattern;
use super::walk::{Open, Walk};
use super::{Entry, Node, Tree};
use crate::{Error, ErrorCode, FileKind, GlobQuery, GlobResults, Metadata, Result};

/// Finds files by name, on at most `threads` threads, this one included, until
/// `cancelled`.
///
/// If there is more than was asked for, which of it is found is left to chance.
///
/// # Errors
/// `InvalidPattern`; `NotADirectory` if the root is a file, and what
/// [`Tree::root`] answers.
pub fn glob<T: Tree>(
    tree: &T,
    query: &GlobQuery,
    threads: usize,
    cancelled: &AtomicBool,
) -> Result<GlobResults> {
    let pattern = Pattern::new(&query.pattern, false)?;
    let budget = Budget::new(query.max_results, query.max_time, cancelled);
    let Node::Directory(root) = tree.root()? else {
        return Err(
            Error::new(ErrorCode::NotADirectory, "not a directory").with_path(query.root.as_str())
        );
    };
    let walk = Walk {
        tree,
        budget: &budget,
        pattern: Some(pattern),
        exclude: &query.exclude,
        gitignore: query.gitignore,
        directories: query.directories,
        links: true,
    };
    let visit =
        |found: &mut Vec<(String, Metadata)>, dir: &Open<T::Dir>, entry: Entry| match metadata(
            tree, dir, &entry,
        ) {
            Ok(Some(metadata)) if is_wanted(&metadata, query) => {
                if budget.take() {
                    found.push((dir.join(&entry.name), metadata));
                }
            }
            Ok(_) => {}
            Err(error) => budget.judge(error),
        };
    let mut files = walk.run(root, threads, Vec::new, visit)?.concat();
    files.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    Ok(GlobResults {
        files,
        truncation: budget.verdict()?,
    })
}

fn metadata<T: Tree>(tree: &T, dir: &Open<T::Dir>, entry: &Entry) -> Result<Option<Metadata>> {
    match &entry.metadata {
        // A name with U+FFFD may stand for another that nobody can write, and
        // then the file cannot be reached.
        Some(metadata)
            if entry.kind != FileKind::Symlink
                && !entry.name.contains(char::REPLACEMENT_CHARACTER) =>
        {
            Ok(Some(metadata.clone()))
        }
        _ => tree.metadata(&dir.dir, entry),
    }
}

fn is_wanted(metadata: &Metadata, query: &GlobQuery) -> bool {
    match metadata.kind {
        FileKind::File => true,
        FileKind::Directory => query.directories,
        FileKind::Symlink | FileKind::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::super::memory::Memory;
    use super::*;
    use crate::{SandboxPath, Truncation};

    fn query(pattern: &str) -> GlobQuery {
        GlobQuery {
            root: SandboxPath::workspace(),
            pattern: pattern.to_owned(),
            directories: false,
            exclude: Vec::new(),
            gitignore: false,
            max_results: NonZeroU32::new(1000).unwrap(),
            max_time: Duration::from_secs(60),
        }
    }

    fn run(tree: &Memory, query: &GlobQuery) -> GlobResults {
        glob(tree, query, 2, &AtomicBool::new(false)).unwrap()
    }

    fn paths(results: &GlobResults) -> Vec<&str> {
        results
            .files
            .iter()
            .map(|(path, _)| path.as_str())
            .collect()
    }

    fn tree() -> Memory {
        Memory::new(&[
            ("a.py", "1"),
            (".hidden.py", "1"),
            ("src/b.py", "1"),
            ("src/deep/c.py", "1"),
            ("src/link.py", "-> a.py"),
            ("src/broken.py", "-> nowhere"),
            ("src/to-dir.py", "-> src/deep"),
            (".venv/d.py", "1"),
            ("target/e.py", "1"),
            (".gitignore", "target\n*.pyc\n/src/deep/\n"),
            ("x.pyc", ""),
            ("sub/.gitignore", "!x.pyc\ny.py\n"),
            ("sub/x.pyc", ""),
            ("sub/y.py", ""),
            ("sub/in/y.py", ""),
        ])
    }

    #[test]
    fn files_are_found_sorted_and_through_links() {
        #[track_caller]
        fn check(pattern: &str, expected: &[&str]) {
            let results = run(&tree(), &query(pattern));
            assert_eq!(paths(&results), expected);
            assert_eq!(results.truncation, None);
        }
        check("/*.py", &["a.py"]);
        check("src/**", &["src/b.py", "src/deep/c.py", "src/link.py"]);
        check("[cd].py", &[".venv/d.py", "src/deep/c.py"]);
        check("nothing", &[]);
        check("a.py/**", &[]);
        check("src/", &[]);
    }

    #[test]
    fn directories_are_found_if_asked() {
        let query = GlobQuery {
            directories: true,
            ..query("src/*")
        };
        let results = run(&tree(), &query);
        let expected = ["src/b.py", "src/deep", "src/link.py", "src/to-dir.py"];
        assert_eq!(paths(&results), expected);
    }

    #[test]
    fn excluded_and_ignored_are_left_out() {
        #[track_caller]
        fn check(exclude: &[&str], gitignore: bool, pattern: &str, expected: &[&str]) {
            let query = GlobQuery {
                exclude: exclude.iter().map(|&name| name.to_owned()).collect(),
                gitignore,
                ..query(pattern)
            };
            assert_eq!(paths(&run(&tree(), &query)), expected);
        }
        check(
            &["src", "sub", ".venv"],
            false,
            "*.py",
            &["a.py", "target/e.py"],
        );
        // A file is not a directory.
        check(&["a.py"], false, "/*.py", &["a.py"]);
        check(&[], true, "[a-e].py", &[".venv/d.py", "a.py", "src/b.py"]);
        check(&[], true, "*.pyc", &["sub/x.pyc"]);
        check(&[], true, "y.py", &[]);
        check(&[], false, "y.py", &["sub/in/y.py", "sub/y.py"]);
    }

    #[test]
    fn bounds_are_met_exactly_or_said() {
        #[track_caller]
        fn check(most: u32, expected: Option<Truncation>) {
            let query = GlobQuery {
                max_results: NonZeroU32::new(most).unwrap(),
                ..query("?.py")
            };
            let results = run(&tree(), &query);
            assert_eq!(results.truncation, expected);
            assert_eq!(results.files.len(), 7.min(most as usize));
        }
        check(6, Some(Truncation::Results));
        check(7, None);
        check(8, None);
        let query = GlobQuery {
            max_time: Duration::ZERO,
            ..query("src/deep/*")
        };
        assert_eq!(run(&tree(), &query).truncation, Some(Truncation::Time));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let tree = Memory::new(&[("a", "1"), ("locked/!", "1"), ("b/a", "1")]);
        let results = run(&tree, &query("a"));
        assert_eq!(paths(&results), ["a", "b/a"]);
        assert_eq!(results.truncation, Some(Truncation::Unreadable));
        // A subtree that cannot hold a match is not even looked at.
        assert_eq!(run(&tree, &query("/a")).truncation, None);
    }

    #[test]
    fn a_tree_without_an_end_ends() {
        let path = "d/".repeat(300) + "f";
        let tree = Memory::new(&[(path.as_str(), "1"), ("f", "1")]);
        let results = run(&tree, &query("f"));
        assert_eq!(paths(&results), ["f"]);
        assert_eq!(results.truncation, Some(Truncation::Unreadable));
    }

    #[test]
    fn many_directories_are_shared_between_threads() {
        let names: Vec<_> = (0..3000)
            .map(|n| format!("d{}/e{}/f{n}", n % 40, n % 7))
            .collect();
        let files: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
        let mut expected: Vec<_> = names.iter().map(String::as_str).collect();
        expected.sort_unstable();
        let tree = Memory::new(&files);
        for threads in [1, 2, 8] {
            let query = GlobQuery {
                max_results: NonZeroU32::MAX,
                ..query("f*")
            };
            let results = glob(&tree, &query, threads, &AtomicBool::new(false)).unwrap();
            assert_eq!(paths(&results), expected);
        }
    }

    #[test]
    fn a_file_is_not_searched() {
        let error = glob(
            &Memory::new(&[("", "1")]),
            &query("*"),
            1,
            &AtomicBool::new(false),
        );
        assert_eq!(error.unwrap_err().code(), ErrorCode::NotADirectory);
    }
}
