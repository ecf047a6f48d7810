//! The suite that judges a backend.
//!
//! One list of cases over [`Backend`](crate::Backend): the backends that ship
//! with the host, its gRPC client and every plugin are held to the same ones.
//! A case knows nothing of who answers. It drives a sandbox of its own by the
//! contract, and by commands written in portable `sh` with the usual small
//! programs; where one of those is missing, or a feature is not declared, the
//! case says that it was skipped and why.
//!
//! ```no_run
//! # async fn judge(backend: std::sync::Arc<dyn stigmer_sdk::Backend>) {
//! use stigmer_sdk::conformance::{Options, run};
//!
//! let report = run(Options::new(backend)).await;
//! assert!(report.is_success() && report.not_run().is_empty(), "{report}");
//! # }
//! ```
//!
//! A backend that is judged may be wrong in any way, and the suite may run as
//! root. So no case writes, moves or removes, by whatever path, anything that
//! is not its own: what lies outside of a sandbox is another sandbox of the
//! same case, or does not exist. The rest is only looked at. Links lead to
//! nothing else either, because one day they are cleaned up after.
//!
//! Which module owns what: `run` the order, the deadlines and the cleaning up;
//! `report` the results; `subject` and `running` what a case does to a sandbox
//! and to a command; `check` the comparisons; the others the cases, each with
//! its list at the top. A case that is in no list is dead code, which here
//! does not compile.
//!
//! Of the error codes a backend may answer, these cannot be provoked by every
//! caller of every backend, and no case tries:
//!
//! | code | needs |
//! | --- | --- |
//! | `Unauthenticated` | credentials that are wrong |
//! | `Exhausted` | a quota, and its size |
//! | `Unavailable` | something that the backend fronts, and its failure |
//! | `Internal` | a defect |
//! | `Cancelled`, `TimedOut` | a carrier that gives up calls |
//! | `NotText`, `OutOfRange`, `NoMatch`, `MultipleMatches` | an operation that the host builds |
#![deny(dead_code)]

use std::fmt;
use std::sync::LazyLock;

use futures_util::future::BoxFuture;

use crate::ErrorCode;

/// Lists the cases of a module: for each what it demands, its name, the error
/// codes it provokes, and `alone` if others would disturb what it measures.
macro_rules! cases {
    ($module:ident, $tier:ident; $(
        $(#[doc = $doc:literal])+
        $name:ident $([$($code:ident),+])? $($alone:ident)?;
    )+) => {
        &[$($crate::conformance::Case {
            name: concat!(stringify!($module), "::", stringify!($name)),
            tier: $crate::conformance::Tier::$tier,
            doc: concat!($($doc),+).trim_ascii(),
            codes: &[$($($crate::ErrorCode::$code),+)?],
            alone: cases!(@ $($alone)?),
            run: |cx| Box::pin($name(cx)),
        }),+]
    };
    (@) => { false };
    (@ alone) => { true };
}

mod check;
mod command;
mod create;
mod environment;
mod glob;
mod grep;
mod kill;
mod lifecycle;
mod links;
mod list;
mod output;
mod paths;
mod read;
mod report;
mod run;
mod running;
mod search;
mod signals;
mod snapshots;
mod special;
mod stat;
mod stdin;
mod subject;
mod terminal;
mod tree;
mod write;
mod write_atomic;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use report::{CaseResult, Failure, Outcome, Report};
pub use run::{Context, Options, Reopen, run};

use check::Verdict;

/// What a backend is good for: its cases in one tier pass together or the tier
/// is not its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Sandboxes come and go, and commands run and end in them.
    Core,
    /// Input and output flow while a command runs, and are bounded.
    Streaming,
    /// The file operations.
    Files,
    /// Commands under a terminal.
    Terminal,
    /// Finding files and lines.
    Search,
    /// Copies of whole sandboxes.
    Snapshots,
    /// No process escapes its command's end.
    KillGuarantee,
}

impl Tier {
    /// Every tier there is.
    pub const ALL: [Self; 7] = [
        Self::Core,
        Self::Streaming,
        Self::Files,
        Self::Terminal,
        Self::Search,
        Self::Snapshots,
        Self::KillGuarantee,
    ];

    /// The name used in JSON and tables, in `snake_case`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Streaming => "streaming",
            Self::Files => "files",
            Self::Terminal => "terminal",
            Self::Search => "search",
            Self::Snapshots => "snapshots",
            Self::KillGuarantee => "kill_guarantee",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One demand on a backend.
pub struct Case {
    /// Unique, and stable enough to be listed elsewhere: `exec::exit_codes`.
    pub name: &'static str,
    /// What it counts towards.
    pub tier: Tier,
    /// What it demands, in a sentence.
    pub doc: &'static str,
    /// The error codes that it makes a backend answer.
    pub codes: &'static [ErrorCode],
    /// Whether it runs while no other does, because it measures time or
    /// restarts the backend.
    pub alone: bool,
    run: for<'a> fn(&'a Context) -> BoxFuture<'a, Verdict>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("name", &self.name)
            .field("tier", &self.tier)
            .finish_non_exhaustive()
    }
}

/// Every case there is, in the order in which they are reported.
#[must_use]
pub fn cases() -> &'static [&'static Case] {
    static ALL: LazyLock<Vec<&'static Case>> = LazyLock::new(|| {
        [
            lifecycle::CASES,
            create::CASES,
            command::CASES,
            environment::CASES,
            signals::CASES,
            kill::CORE,
            stdin::CASES,
            output::CASES,
            paths::CASES,
            links::CASES,
            special::CASES,
            stat::CASES,
            list::CASES,
            read::CASES,
            write::CASES,
            write_atomic::CASES,
            tree::CASES,
            terminal::CASES,
            glob::CASES,
            grep::CASES,
            snapshots::CASES,
            kill::GUARANTEE,
        ]
        .into_iter()
        .flatten()
        .collect()
    });
    &ALL
}
