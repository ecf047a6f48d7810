//! What came of a run.

use std::fmt;
use std::time::Duration;

use super::{Case, cases};
use crate::Description;

/// Everything a run found out.
#[derive(Debug)]
pub struct Report {
    /// What the backend says of itself.
    pub backend: Description,
    /// One result for each case that was chosen, in the order of [`cases`].
    pub results: Vec<CaseResult>,
    /// How long the whole run took.
    pub duration: Duration,
}

/// What came of one case.
#[derive(Debug)]
pub struct CaseResult {
    /// The case.
    pub case: &'static Case,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took, without the cleaning up.
    pub duration: Duration,
}

/// How a case may end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend does what the case demands, or declares that it does not
    /// and refuses.
    Passed,
    /// It does not.
    Failed(Failure),
    /// Nothing was learned, because this is missing.
    Skipped {
        /// What is missing.
        reason: String,
    },
}

/// What a backend did instead of what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was looked at.
    pub what: String,
    /// What the contract demands.
    pub expected: String,
    /// What the backend did.
    pub got: String,
    /// What the case did before, in order: how to reproduce it.
    pub steps: Vec<String>,
}

impl Report {
    /// How many cases passed.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.count(|outcome| *outcome == Outcome::Passed)
    }

    /// How many cases failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Failed(_)))
    }

    /// How many cases taught nothing.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Skipped { .. }))
    }

    /// Whether no case failed, and there was at least one.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.failed() == 0 && !self.results.is_empty()
    }

    /// The cases that have no result, because a filter left them out.
    #[must_use]
    pub fn not_run(&self) -> Vec<&'static str> {
        cases()
            .iter()
            .map(|case| case.name)
            .filter(|name| self.results.iter().all(|result| result.case.name != *name))
            .collect()
    }

    fn count(&self, chosen: impl Fn(&Outcome) -> bool) -> usize {
        self.results
            .iter()
            .filter(|result| chosen(&result.outcome))
            .count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for result in &self.results {
            let name = result.case.name;
            match &result.outcome {
                Outcome::Passed => writeln!(f, "pass  {name}")?,
                Outcome::Skipped { reason } => writeln!(f, "skip  {name}: {reason}")?,
                Outcome::Failed(failure) => {
                    writeln!(f, "FAIL  {name} ({})", result.case.tier)?;
                    writeln!(f, "      {}", result.case.doc)?;
                    writeln!(f, "      what:     {}", failure.what)?;
                    writeln!(f, "      expected: {}", failure.expected)?;
                    writeln!(f, "      got:      {}", failure.got)?;
                    for (index, step) in failure.steps.iter().enumerate() {
                        let label = if index == 0 { "after:" } else { "" };
                        writeln!(f, "      {label:<9} {step}")?;
                    }
                }
            }
        }
        write!(
            f,
            "{}: {} passed, {} failed, {} skipped of {} in {:.1} s",
            self.backend.name,
            self.passed(),
            self.failed(),
            self.skipped(),
            self.results.len(),
            self.duration.as_secs_f64(),
        )
    }
}
