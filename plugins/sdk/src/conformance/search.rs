//! The tree that searches are tried on. They must give the same results as the
//! host's own over `list` and `read`, which the tables of `glob` and `grep`
//! spell out.

use std::num::NonZeroU32;
use std::time::Duration;

use super::check::Verdict;
use super::run::Context;
use super::subject::Subject;
use crate::Feature;

/// More results than there are.
pub(super) const MANY: NonZeroU32 = NonZeroU32::new(1000).unwrap();
/// More time than it takes.
pub(super) const PLENTY: Duration = Duration::from_secs(20);

/// A sandbox with `t` to find files in, and `g` to find lines in.
pub(super) async fn with_tree(cx: &Context) -> Verdict<Subject> {
    cx.needs(Feature::Search)?;
    let sandbox = cx.sandbox().await?;
    for (at, content) in [
        ("t/.dot.rs", ""),
        ("t/.gitignore", "target/\n*.txt\n"),
        ("t/.hidden/inside.rs", ""),
        ("t/a b.txt", ""),
        ("t/a.rs", "twelve bytes"),
        ("t/b.txt", ""),
        ("t/src/.env", ""),
        ("t/src/deep/x.rs", ""),
        ("t/src/lib.rs", ""),
        ("t/src/main.rs", ""),
        ("t/target/skip.rs", ""),
        ("g/.hidden", "needle\n"),
        ("g/binary", "needle\0"),
        ("g/crlf.txt", "a\r\nneedle\r\nb\r\n"),
        ("g/last.txt", "x\nneedle"),
        ("g/src/code.rs", "fn needle() {}\n"),
        ("g/text.txt", "one\nTwo needle\nthree\nfour\nneedle again\n"),
    ] {
        sandbox.write(at, content).await?;
    }
    sandbox
        .write("g/latin.txt", b"caf\xe9 needle\n".to_vec())
        .await?;
    sandbox.write("outside", "needle\n").await?;
    for (target, link) in [
        ("src/main.rs", "t/link-in"),
        ("../outside", "t/link-out"),
        ("src", "t/link-dir"),
        ("nothing", "t/link-dangling"),
        ("text.txt", "g/link"),
    ] {
        sandbox.link(target, link).await?;
    }
    Ok(sandbox)
}
