//! Finding files by name, where a backend offers it.

use std::num::NonZeroU32;

use super::Case;
use super::check::{Verdict, equal, fail, ok, refused};
use super::run::Context;
use super::search::{MANY, PLENTY, with_tree};
use super::subject::{Subject, path};
use crate::{ErrorCode, GlobQuery, GlobResults, Result, Truncation};

pub(super) const CASES: &[Case] = cases! { glob, Search;
    /// Patterns match names and paths by the contract's rules.
    patterns;
    /// Links count while they stay below the root, and directories only if asked for.
    links_and_directories;
    /// Named directories and ignored files are left out if asked for.
    leaves_out;
    /// Each result comes with the metadata that stat gives.
    gives_metadata;
    /// Exactly as many results as were asked for are not truncated; more are, and say so.
    truncates;
    /// A pattern that leads up, and a root that is no directory inside, are refused.
    refuses [InvalidPattern, NotFound, NotADirectory, InvalidPath];
};

fn glob_query(root: &str, pattern: &str) -> Verdict<GlobQuery> {
    Ok(GlobQuery {
        root: path(root)?,
        pattern: pattern.to_owned(),
        directories: false,
        exclude: Vec::new(),
        gitignore: false,
        max_results: MANY,
        max_time: PLENTY,
    })
}

async fn try_glob(sandbox: &Subject, query: GlobQuery) -> Verdict<Result<GlobResults>> {
    match sandbox.sandbox.search() {
        Some(search) => Ok(search.glob(query).await),
        None => fail("the search", "one, as declared", "none"),
    }
}

/// The query finds exactly this.
async fn finds(sandbox: &Subject, query: GlobQuery, expected: &[&str]) -> Verdict {
    let what = format!("{query:?}");
    let results = ok(&what, try_glob(sandbox, query).await?)?;
    let paths: Vec<&str> = results
        .files
        .iter()
        .map(|(path, _)| path.as_str())
        .collect();
    equal(&what, paths.as_slice(), expected)?;
    equal(&what, results.truncation, None)
}

async fn patterns(cx: &Context) -> Verdict {
    let sandbox = with_tree(cx).await?;
    let all = [
        ".hidden/inside.rs",
        "a.rs",
        "src/deep/x.rs",
        "src/lib.rs",
        "src/main.rs",
        "target/skip.rs",
    ];
    let table: [(&str, &[&str]); 19] = [
        ("*.rs", &all),
        ("**/*.rs", &all[1..]),
        ("/*.rs", &["a.rs"]),
        ("src/*.rs", &["src/lib.rs", "src/main.rs"]),
        ("/src/*.rs", &["src/lib.rs", "src/main.rs"]),
        ("src/**/*.rs", &all[2..5]),
        (".*", &[".dot.rs", ".gitignore", "src/.env"]),
        (".hidden/*", &[".hidden/inside.rs"]),
        ("?.rs", &["a.rs", "src/deep/x.rs"]),
        ("[ab].*", &["a.rs", "b.txt"]),
        ("[a-w].rs", &["a.rs"]),
        ("[!a].rs", &["src/deep/x.rs"]),
        ("[^a].rs", &["src/deep/x.rs"]),
        ("{a,b}.{rs,txt}", &["a.rs", "b.txt"]),
        ("{a,{b,x}}.*", &["a.rs", "b.txt", "src/deep/x.rs"]),
        ("a b.txt", &["a b.txt"]),
        ("src/", &[]),
        ("main", &[]),
        ("*/x.rs", &[]),
    ];
    for (pattern, expected) in table {
        finds(&sandbox, glob_query("t", pattern)?, expected).await?;
    }
    finds(
        &sandbox,
        glob_query("t/src", "*.rs")?,
        &["deep/x.rs", "lib.rs", "main.rs"],
    )
    .await?;
    finds(
        &sandbox,
        glob_query("t/src", "/*.rs")?,
        &["lib.rs", "main.rs"],
    )
    .await
}

async fn links_and_directories(cx: &Context) -> Verdict {
    let sandbox = with_tree(cx).await?;
    finds(&sandbox, glob_query("t", "link-*")?, &["link-in"]).await?;
    finds(&sandbox, glob_query("t", "deep")?, &[]).await?;
    for (pattern, expected) in [
        ("link-*", &["link-dir", "link-in"][..]),
        ("deep", &["src/deep"]),
    ] {
        let query = GlobQuery {
            directories: true,
            ..glob_query("t", pattern)?
        };
        finds(&sandbox, query, expected).await?;
    }
    Ok(())
}

async fn leaves_out(cx: &Context) -> Verdict {
    let sandbox = with_tree(cx).await?;
    let exclude = vec!["target".to_owned(), ".hidden".to_owned(), "deep".to_owned()];
    let query = GlobQuery {
        exclude,
        ..glob_query("t", "*.rs")?
    };
    finds(&sandbox, query, &["a.rs", "src/lib.rs", "src/main.rs"]).await?;
    for (pattern, expected) in [
        ("*.txt", &[][..]),
        ("skip.rs", &[]),
        ("main.rs", &["src/main.rs"]),
    ] {
        let query = GlobQuery {
            gitignore: true,
            ..glob_query("t", pattern)?
        };
        finds(&sandbox, query, expected).await?;
    }
    Ok(())
}

async fn gives_metadata(cx: &Context) -> Verdict {
    let sandbox = with_tree(cx).await?;
    for (pattern, at) in [("/a.rs", "t/a.rs"), ("link-in", "t/src/main.rs")] {
        let results = try_glob(&sandbox, glob_query("t", pattern)?).await?;
        let results = ok(format!("glob {pattern:?}"), results)?;
        let metadata = results
            .files
            .into_iter()
            .next()
            .map(|(_, metadata)| metadata);
        equal(pattern, metadata, Some(sandbox.stat(at).await?))?;
    }
    Ok(())
}

async fn truncates(cx: &Context) -> Verdict {
    let sandbox = with_tree(cx).await?;
    for (most, expected) in [(6, (6, None)), (5, (5, Some(Truncation::Results)))] {
        let query = GlobQuery {
            max_results: NonZeroU32::new(most).unwrap_or(MANY),
            ..glob_query("t", "*.rs")?
        };
        let results = ok("glob", try_glob(&sandbox, query).await?)?;
        let seen = (results.files.len(), results.truncation);
        equal(format!("six results, at most {most}"), seen, expected)?;
    }
    Ok(())
}

async fn refuses(cx: &Context) -> Verdict {
    let sandbox = with_tree(cx).await?;
    sandbox.link("loop", "loop").await?;
    for (root, pattern, code) in [
        ("t", "../*", ErrorCode::InvalidPattern),
        ("t", "src/../*", ErrorCode::InvalidPattern),
        ("t/missing", "*", ErrorCode::NotFound),
        ("t/a.rs", "*", ErrorCode::NotADirectory),
        ("loop", "*", ErrorCode::InvalidPath),
    ] {
        let results = try_glob(&sandbox, glob_query(root, pattern)?).await?;
        refused(format!("glob {pattern:?} in {root:?}"), results, code)?;
    }
    Ok(())
}
