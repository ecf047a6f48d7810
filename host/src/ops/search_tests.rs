//! The shared engine over a sandbox that only lists and reads.

use std::num::NonZeroU32;

use super::*;
use crate::ops::fake::Fake;

const ROOT: &str = ".";

fn fake() -> Arc<Fake> {
    let fake = Fake::new();
    fake.put("/w/a.py", "import os\nprint('needle')\n");
    fake.put("/w/src/b.py", "needle\nneedle again\n");
    fake.put("/w/src/deep/c.txt", "nothing");
    fake.put("/w/.git/config", "needle");
    fake.put("/elsewhere/d.py", "needle");
    Arc::new(fake)
}

fn glob_query(pattern: &str) -> GlobQuery {
    GlobQuery {
        root: SandboxPath::new(ROOT).unwrap(),
        pattern: pattern.to_owned(),
        directories: false,
        exclude: Vec::new(),
        gitignore: false,
        max_results: NonZeroU32::new(100).unwrap(),
        max_time: Duration::from_secs(5),
    }
}

fn grep_query(pattern: &str) -> GrepQuery {
    GrepQuery {
        root: SandboxPath::new(ROOT).unwrap(),
        patterns: vec![pattern.to_owned()],
        regex: false,
        ignore_case: false,
        files: None,
        exclude: vec![".git".to_owned()],
        gitignore: false,
        before: 0,
        after: 0,
        max_results: NonZeroU32::new(100).unwrap(),
        max_time: Duration::from_secs(5),
    }
}

#[tokio::test]
async fn glob_walks_by_list() {
    let found = glob(fake(), glob_query("*.py")).await.unwrap();
    let paths: Vec<_> = found.files.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["a.py", "src/b.py"]);
    assert_eq!(found.files[0].1.size, 26);
    assert_eq!(found.truncation, None);
}

#[tokio::test]
async fn grep_reads_what_it_walks() {
    let found = grep(fake(), grep_query("needle")).await.unwrap();
    let places: Vec<_> = found
        .matches
        .iter()
        .map(|m| (m.path.as_str(), m.line))
        .collect();
    assert_eq!(places, [("a.py", 2), ("src/b.py", 1), ("src/b.py", 2)]);
    assert_eq!(found.truncation, None);
}

#[tokio::test]
async fn a_root_may_be_a_file() {
    let query = GrepQuery {
        root: SandboxPath::new("src/b.py").unwrap(),
        ..grep_query("again")
    };
    let found = grep(fake(), query).await.unwrap();
    assert_eq!(
        (found.matches[0].path.as_str(), found.matches[0].line),
        ("", 2)
    );
}

#[tokio::test]
async fn a_missing_root_is_an_error() {
    let query = GlobQuery {
        root: SandboxPath::new("missing").unwrap(),
        ..glob_query("*")
    };
    let error = glob(fake(), query).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotFound);
}

#[tokio::test]
async fn a_backend_that_does_not_answer_holds_nobody_up() {
    let fake = fake();
    *fake.delay.lock().unwrap() = Duration::from_secs(3600);
    let query = GlobQuery {
        max_time: Duration::from_millis(1),
        ..glob_query("*")
    };
    let error = glob(fake, query).await.unwrap_err();
    assert!(error.message().contains("did not answer"), "{error}");
}

#[test]
fn below_is_below() {
    #[track_caller]
    fn check(path: &str, root: &str, below: bool) {
        let [path, root] = [path, root].map(|path| SandboxPath::new(path).unwrap());
        assert_eq!(is_below(&path, &root), below);
    }
    check("/w/a", "/w", true);
    check("/w/a", "/", true);
    check("/w", "/w", false);
    check("/work", "/w", false);
    check("/x/w/a", "/w", false);
}
