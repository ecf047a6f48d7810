//! Finding lines by content, where a backend offers it.

use std::num::NonZeroU32;

use super::Case;
use super::check::{Verdict, equal, fail, ok, refused};
use super::run::Context;
use super::search::{MANY, PLENTY, with_tree};
use super::subject::{Subject, path};
use crate::{ErrorCode, GrepQuery, GrepResults, Match, Result, Truncation};

pub(super) const CASES: &[Case] = cases! { grep, Search;
    /// Lines are found by literals and expressions, sorted, with their text.
    patterns;
    /// Lines around a match come with it.
    gives_context;
    /// Only the files that were asked for are searched.
    leaves_out;
    /// Exactly as many matches as were asked for are not truncated; more are, and say so.
    truncates;
    /// What is no expression, and a root that is not inside, are refused.
    refuses [InvalidPattern, NotFound, InvalidPath];
};

fn grep_query(root: &str, patterns: &[&str]) -> Verdict<GrepQuery> {
    Ok(GrepQuery {
        root: path(root)?,
        patterns: patterns
            .iter()
            .map(|pattern| (*pattern).to_owned())
            .collect(),
        regex: false,
        ignore_case: false,
        files: None,
        exclude: Vec::new(),
        gitignore: false,
        before: 0,
        after: 0,
        max_results: MANY,
        max_time: PLENTY,
    })
}

async fn try_grep(sandbox: &Subject, query: GrepQuery) -> Verdict<Result<GrepResults>> {
    match sandbox.sandbox.search() {
        Some(search) => Ok(search.grep(query).await),
        None => fail("the search", "one, as declared", "none"),
    }
}

async fn matches(sandbox: &Subject, query: GrepQuery) -> Verdict<Vec<Match>> {
    let what = format!("{query:?}");
    let results = ok(&what, try_grep(sandbox, query).await?)?;
    equal(&what, results.truncation, None)?;
    Ok(results.matches)
}

/// The query finds exactly these lines.
async fn matches_lines(
    sandbox: &Subject,
    query: GrepQuery,
    expected: &[(&str, u64, &str)],
) -> Verdict {
    let what = format!("{query:?}");
    let matches = matches(sandbox, query).await?;
    let lines: Vec<_> = matches
        .iter()
        .map(|found| (found.path.as_str(), found.line, found.text.as_str()))
        .collect();
    equal(what, lines.as_slice(), expected)
}

const NEEDLES: [(&str, u64, &str); 7] = [
    (".hidden", 1, "needle"),
    ("crlf.txt", 2, "needle"),
    ("last.txt", 2, "needle"),
    ("latin.txt", 1, "caf\u{fffd} needle"),
    ("src/code.rs", 1, "fn needle() {}"),
    ("text.txt", 2, "Two needle"),
    ("text.txt", 5, "needle again"),
];

async fn patterns(cx: &Context) -> Verdict {
    let sandbox = with_tree(cx).await?;
    matches_lines(&sandbox, grep_query("g", &["needle"])?, &NEEDLES).await?;
    matches_lines(
        &sandbox,
        grep_query("g", &["NEEDLE", "n..dle", "nothing"])?,
        &[],
    )
    .await?;
    let either = grep_query("g", &["fn ", "again"])?;
    matches_lines(&sandbox, either, &[NEEDLES[4], NEEDLES[6]]).await?;
    let any_case = GrepQuery {
        ignore_case: true,
        ..grep_query("g", &["NEEDLE A", "TWO"])?
    };
    matches_lines(&sandbox, any_case, &NEEDLES[5..]).await?;
    let expression = GrepQuery {
        regex: true,
        ..grep_query("g", &["^n.{4}e a", r"\w\(\)"])?
    };
    matches_lines(&sandbox, expression, &[NEEDLES[4], NEEDLES[6]]).await?;
    let in_file = grep_query("g/last.txt", &["needle"])?;
    matches_lines(&sandbox, in_file, &[("", 2, "needle")]).await
}

async fn gives_context(cx: &Context) -> Verdict {
    let sandbox = with_tree(cx).await?;
    let query = GrepQuery {
        before: 2,
        after: 1,
        ..grep_query("g/text.txt", &["Two", "again"])?
    };
    let around: Vec<_> = matches(&sandbox, query)
        .await?
        .into_iter()
        .map(|found| (found.before, found.after))
        .collect();
    let lines = |lines: &[&str]| {
        lines
            .iter()
            .map(|line| (*line).to_owned())
            .collect::<Vec<_>>()
    };
    let expected = vec![
        (lines(&["one"]), lines(&["three"])),
        (lines(&["three", "four"]), lines(&[])),
    ];
    equal("the lines before and after", around, expected)
}

async fn leaves_out(cx: &Context) -> Verdict {
    let sandbox = with_tree(cx).await?;
    let only = GrepQuery {
        files: Some("*.rs".to_owned()),
        ..grep_query("g", &["needle"])?
    };
    matches_lines(&sandbox, only, &NEEDLES[4..5]).await?;
    let every = GrepQuery {
        files: Some("*".to_owned()),
        ..grep_query("g", &["needle"])?
    };
    matches_lines(&sandbox, every, &NEEDLES).await?;
    let without = GrepQuery {
        exclude: vec!["src".to_owned()],
        ..grep_query("g", &["fn"])?
    };
    matches_lines(&sandbox, without, &[]).await?;
    // A name that is left out is not left out as the root.
    let root = GrepQuery {
        exclude: vec!["src".to_owned()],
        ..grep_query("g/src", &["fn"])?
    };
    matches_lines(&sandbox, root, &[("code.rs", 1, "fn needle() {}")]).await?;
    sandbox.write("g/.gitignore", "*.txt\n").await?;
    let ignoring = GrepQuery {
        gitignore: true,
        ..grep_query("g", &["needle"])?
    };
    matches_lines(&sandbox, ignoring, &[NEEDLES[0], NEEDLES[4]]).await
}

async fn truncates(cx: &Context) -> Verdict {
    let sandbox = with_tree(cx).await?;
    for (most, expected) in [(7, (7, None)), (6, (6, Some(Truncation::Results)))] {
        let query = GrepQuery {
            max_results: NonZeroU32::new(most).unwrap_or(MANY),
            ..grep_query("g", &["needle"])?
        };
        let results = ok("grep", try_grep(&sandbox, query).await?)?;
        let seen = (results.matches.len(), results.truncation);
        equal(format!("seven matches, at most {most}"), seen, expected)?;
    }
    Ok(())
}

async fn refuses(cx: &Context) -> Verdict {
    let sandbox = with_tree(cx).await?;
    sandbox.link("loop", "loop").await?;
    for (root, pattern, code) in [
        ("g", "(", ErrorCode::InvalidPattern),
        ("g", "(?=needle)", ErrorCode::InvalidPattern),
        ("g/missing", "needle", ErrorCode::NotFound),
        ("loop", "needle", ErrorCode::InvalidPath),
    ] {
        let query = GrepQuery {
            regex: true,
            ..grep_query(root, &[pattern])?
        };
        let results = try_grep(&sandbox, query).await?;
        refused(format!("grep {pattern:?} in {root:?}"), results, code)?;
    }
    Ok(())
}
