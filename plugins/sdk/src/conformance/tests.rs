//! The suite judged: that it is whole, and that it fails who should fail.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::fake::{Fake, Sin};
use super::{Options, Outcome, Report, Tier, cases, run};
use crate::ErrorCode;

/// The codes that no case can provoke of every backend; the table in the
/// module's documentation says why.
const NOT_PROVOKED: [ErrorCode; 10] = [
    ErrorCode::Unauthenticated,
    ErrorCode::Exhausted,
    ErrorCode::Unavailable,
    ErrorCode::Internal,
    ErrorCode::Cancelled,
    ErrorCode::TimedOut,
    ErrorCode::NotText,
    ErrorCode::OutOfRange,
    ErrorCode::NoMatch,
    ErrorCode::MultipleMatches,
];

#[test]
fn there_are_enough_cases_with_a_name_and_a_sentence_each() {
    assert!(cases().len() >= 90, "{} cases", cases().len());
    let names: BTreeSet<_> = cases().iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases().len());
    for case in cases() {
        assert!(
            case.doc.ends_with('.') && !case.doc.contains('\n'),
            "{case:?}"
        );
    }
    for tier in Tier::ALL {
        assert!(cases().iter().any(|case| case.tier == tier), "{tier}");
    }
}

#[test]
fn every_error_code_is_provoked_or_explained() {
    let provoked: BTreeSet<_> = cases().iter().flat_map(|case| case.codes).collect();
    for code in ErrorCode::ALL {
        assert_ne!(
            provoked.contains(&code),
            NOT_PROVOKED.contains(&code),
            "{code}"
        );
    }
}

fn judge(sin: Sin, filter: Option<&str>) -> Report {
    let options = Options {
        filter: filter.map(str::to_owned),
        concurrency: NonZeroUsize::new(8).unwrap(),
        // Only one fake needs it, and that one always.
        deadline: match sin {
            Sin::NeverEnds => Duration::from_millis(200),
            _ => Duration::from_secs(30),
        },
        ..Options::new(Arc::new(Fake::new(sin)))
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(run(options))
}

#[test]
fn a_run_has_a_result_for_every_case() {
    let report = judge(Sin::None, None);
    assert_eq!(report.not_run(), Vec::<&str>::new());
    let counted = report.passed() + report.failed() + report.skipped();
    assert_eq!(counted, cases().len());
    let order: Vec<_> = report
        .results
        .iter()
        .map(|result| result.case.name)
        .collect();
    let expected: Vec<_> = cases().iter().map(|case| case.name).collect();
    assert_eq!(order, expected);
}

#[test]
fn a_filter_leaves_out_and_says_so() {
    let report = judge(Sin::None, Some("tree::remove_a_file"));
    assert_eq!(report.results.len(), 1);
    assert_eq!(report.not_run().len(), cases().len() - 1);
    assert!(report.is_success());
    assert!(!judge(Sin::None, Some("no such case")).is_success());
}

/// The case passes on the fake as it should be, and fails on the one that
/// sins, with this in the report.
#[track_caller]
fn check(sin: Sin, case: &str, reported: &str) {
    let honest = judge(Sin::None, Some(case));
    assert_eq!(honest.results.len(), 1, "{case}");
    assert_eq!(honest.passed(), 1, "{honest}");
    let report = judge(sin, Some(case));
    assert_eq!(report.failed(), 1, "{sin:?}: {report}");
    assert!(!report.is_success());
    let text = report.to_string();
    assert!(text.contains(reported), "{reported:?} in\n{text}");
}

#[test]
fn each_sin_is_found() {
    check(
        Sin::ChangesItsName,
        "lifecycle::describe_never_changes",
        "got:      Description",
    );
    check(
        Sin::DeclaresWhatItLacks,
        "lifecycle::groups_match",
        "expected: true",
    );
    check(
        Sin::TakesAnyLimit,
        "create::networks",
        "expected: error unsupported",
    );
    check(
        Sin::TakesAnyOption,
        "create::refuses",
        "expected: error invalid_argument",
    );
    check(
        Sin::RunsUnderATerminal,
        "terminal::undeclared",
        "expected: error unsupported",
    );
    check(
        Sin::ForgetsOnAttach,
        "lifecycle::attach_finds",
        "error not_found",
    );
    check(
        Sin::LivesAfterDestroy,
        "lifecycle::nothing_works",
        "expected: error no_sandbox",
    );
    check(
        Sin::DestroysOnce,
        "lifecycle::destroy_twice",
        "error no_sandbox",
    );
    check(
        Sin::SharesFiles,
        "lifecycle::sandboxes_are_apart",
        "expected: true",
    );
    check(
        Sin::ExitsTwice,
        "output::silence",
        "the end of the stream after the exit",
    );
    check(
        Sin::LosesTheExit,
        "output::silence",
        "an exit before the end",
    );
    check(Sin::EmptyOutput, "output::silence", "no empty output");
    check(
        Sin::TruncatesCodes,
        "command::exit_codes",
        "expected: exit code 128",
    );
    check(Sin::NeverEnds, "stat::sizes", "an end within 200ms");
    check(Sin::Panics, "stat::sizes", "a panic: a fake panic");
    check(
        Sin::ReadsTooFar,
        "read::ranges",
        "after:    create a sandbox",
    );
    check(Sin::ListsItself, "list::an_empty_directory", "expected: []");
    check(
        Sin::IgnoresVersions,
        "write::one_conditional",
        "expected: 1",
    );
    check(Sin::AppendsByReplacing, "write::append_in_parts", "FAIL");
    check(
        Sin::CreatesOverFiles,
        "write::create_new",
        "expected: error already_exists",
    );
    check(
        Sin::WritesBeforeTheEnd,
        "write_atomic::nothing_before",
        "expected: [111, 108, 100]",
    );
    check(
        Sin::WritesBeforeTheEnd,
        "write_atomic::an_error_in",
        "expected: [111, 108, 100]",
    );
    check(
        Sin::LeavesLitter,
        "write_atomic::an_error_in",
        "no litter is left",
    );
    check(
        Sin::ReplacesDirectories,
        "tree::rename_onto",
        "expected: error already_exists",
    );
    check(
        Sin::RemovesDirectories,
        "tree::remove_a_directory",
        "expected: error is_directory",
    );
    check(
        Sin::RemovesTheWorkspace,
        "tree::remove_the_workspace",
        "error permission_denied",
    );
    check(
        Sin::LetsOut,
        "paths::dotdot",
        "expected: error invalid_path",
    );
}

#[test]
fn a_report_counts_by_outcome() {
    let report = judge(Sin::None, Some("terminal::"));
    let mut outcomes = BTreeMap::new();
    for result in &report.results {
        let outcome = match &result.outcome {
            Outcome::Passed => "passed",
            Outcome::Failed(_) => "failed",
            Outcome::Skipped { reason } => {
                assert_eq!(reason, "the backend does not declare terminal");
                "skipped"
            }
        };
        *outcomes.entry(outcome).or_insert(0) += 1;
    }
    // All but the one that asks for what is not declared.
    assert_eq!(outcomes.get("passed"), Some(&1));
    assert_eq!(outcomes.get("skipped"), Some(&(report.results.len() - 1)));
    assert_eq!(report.skipped(), report.results.len() - 1);
}
