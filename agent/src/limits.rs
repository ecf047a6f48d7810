//! How far an execution may go: turns, tokens, time and cost, and the same call
//! over and over.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use stigmer_sdk::wire::agent::{self, ExecutionLimits};
use stigmer_sdk::{Error, ErrorCode};

use crate::model;

/// Bounds of one execution. `None`: no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) turns: Option<u32>,
    pub(crate) tokens: Option<u64>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) cost_microusd: Option<u64>,
}

impl Limits {
    /// What the first of these says that says something, one by one. 0 says
    /// that there is no bound.
    pub(crate) fn first_of(layers: [Option<&ExecutionLimits>; 3]) -> Self {
        fn first<T: Default + PartialEq>(
            layers: [Option<&ExecutionLimits>; 3],
            of: impl Fn(&ExecutionLimits) -> Option<T>,
        ) -> Option<T> {
            let said = layers.into_iter().flatten().find_map(of)?;
            (said != T::default()).then_some(said)
        }
        Self {
            turns: first(layers, |limits| limits.max_turns),
            tokens: first(layers, |limits| limits.max_tokens),
            timeout: first(layers, |limits| limits.timeout_ms).map(Duration::from_millis),
            cost_microusd: first(layers, |limits| limits.max_cost_microusd),
        }
    }

    /// Whether the model may be called once more.
    ///
    /// # Errors
    /// [`ErrorCode::Exhausted`] with the bound that was met.
    pub(crate) fn allow(&self, spent: &Spent) -> Result<(), Error> {
        let usage = &spent.usage;
        let tokens = usage.input_tokens + usage.output_tokens;
        let met = if let Some(turns) = self.turns
            && usage.model_calls >= turns
        {
            format!("it called the model {turns} times, which is its limit of turns")
        } else if let Some(most) = self.tokens
            && tokens >= most
        {
            format!("it used {tokens} tokens, and its limit is {most}")
        } else if let (Some(most), Some(cost)) = (self.cost_microusd, usage.cost_microusd)
            && cost >= most
        {
            format!(
                "it cost {}, and its limit is {}",
                dollars(cost),
                dollars(most)
            )
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorCode::Exhausted, met))
    }
}

fn dollars(microusd: u64) -> String {
    format!(
        "${}.{:04}",
        microusd / 1_000_000,
        microusd % 1_000_000 / 100
    )
}

/// What an execution used so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Spent {
    pub(crate) usage: agent::Usage,
}

impl Spent {
    /// Goes on from what an earlier attempt used. Without a call, nothing was
    /// paid.
    pub(crate) fn from(usage: Option<agent::Usage>) -> Self {
        let mut usage = usage.unwrap_or_default();
        if usage.model_calls == 0 {
            usage.cost_microusd = Some(0);
        }
        Self { usage }
    }

    /// Adds one call of the model. One price that is not known makes the sum
    /// unknown.
    pub(crate) fn add(&mut self, call: &model::Usage, cost_microusd: Option<u64>) {
        let usage = &mut self.usage;
        usage.input_tokens += call.input;
        usage.output_tokens += call.output;
        usage.cached_tokens += call.cache_read;
        usage.model_calls += 1;
        usage.cost_microusd = match (usage.cost_microusd, cost_microusd) {
            (Some(sum), Some(cost)) => Some(sum + cost),
            _ => None,
        };
    }
}

/// Calls that are remembered.
const REMEMBERED: usize = 10;
/// The same call so often in a row is a loop.
const IN_A_ROW: usize = 3;
/// The same call with the same result so often among those remembered is one.
/// With another result it is not: whoever runs the tests after each change is
/// getting somewhere.
const AMONG_REMEMBERED: usize = 5;

/// Notices a model that goes round in circles.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    /// The latest calls: what was asked, and what was asked with what it gave.
    calls: VecDeque<(u64, u64)>,
    warned: HashSet<u64>,
    /// Those of this turn, which the model has not read yet.
    warned_now: HashSet<u64>,
}

/// What to do about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeated {
    /// Nothing.
    No,
    /// Tell the model.
    Warn,
    /// It was told, and went on.
    Stop,
}

impl Repeats {
    /// Begins a turn: what the model was warned of before, it has read.
    pub(crate) fn turn(&mut self) {
        self.warned.extend(self.warned_now.drain());
    }

    /// Notes a call. To ask for news of a background process in the same words
    /// is what one does: `polls` says that only the same answer counts.
    pub(crate) fn note(
        &mut self,
        name: &str,
        arguments: &str,
        result: &str,
        polls: bool,
    ) -> Repeated {
        let asked = hash(&(name, arguments));
        let gave = hash(&(asked, result));
        if self.calls.len() == REMEMBERED {
            self.calls.pop_front();
        }
        self.calls.push_back((asked, gave));
        let same = |call: &&(u64, u64)| {
            if polls {
                call.1 == gave
            } else {
                call.0 == asked
            }
        };
        let in_a_row = self.calls.iter().rev().take_while(same).count();
        let in_all = self.calls.iter().filter(|call| call.1 == gave).count();
        if in_a_row < IN_A_ROW && in_all < AMONG_REMEMBERED {
            return Repeated::No;
        }
        if self.warned.contains(&asked) {
            return Repeated::Stop;
        }
        if self.warned_now.insert(asked) {
            Repeated::Warn
        } else {
            Repeated::No
        }
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_layer_that_says_something_counts() {
        let own = ExecutionLimits {
            max_turns: Some(0),
            ..ExecutionLimits::default()
        };
        let agent = ExecutionLimits {
            max_turns: Some(7),
            timeout_ms: Some(1500),
            ..ExecutionLimits::default()
        };
        let default = ExecutionLimits {
            max_turns: Some(100),
            max_tokens: Some(10),
            timeout_ms: Some(9),
            max_cost_microusd: Some(0),
        };
        assert_eq!(
            Limits::first_of([Some(&own), Some(&agent), Some(&default)]),
            Limits {
                turns: None,
                tokens: Some(10),
                timeout: Some(Duration::from_millis(1500)),
                cost_microusd: None,
            }
        );
        assert_eq!(Limits::first_of([None, None, None]), Limits::default());
    }

    #[test]
    fn bounds_are_kept_to() {
        let limits = Limits {
            turns: Some(2),
            tokens: Some(100),
            timeout: None,
            cost_microusd: Some(1_500_000),
        };
        #[track_caller]
        fn check(limits: &Limits, calls: &[(u64, Option<u64>)], problem: Option<&str>) {
            let mut spent = Spent::from(None);
            for &(output, cost) in calls {
                let usage = model::Usage {
                    output,
                    ..model::Usage::default()
                };
                spent.add(&usage, cost);
            }
            let allowed = limits
                .allow(&spent)
                .map_err(|error| error.message().to_owned());
            match problem {
                None => assert_eq!(allowed, Ok(())),
                Some(problem) => assert!(
                    allowed.clone().unwrap_err().contains(problem),
                    "{allowed:?}"
                ),
            }
        }
        check(&limits, &[], None);
        check(&limits, &[(1, Some(1))], None);
        check(
            &limits,
            &[(1, Some(1)), (1, Some(1))],
            Some("the model 2 times"),
        );
        check(
            &limits,
            &[(100, Some(1))],
            Some("used 100 tokens, and its limit is 100"),
        );
        check(
            &limits,
            &[(1, Some(1_600_000))],
            Some("it cost $1.6000, and its limit is $1.5000"),
        );
        // A price that is not known is not kept to.
        check(&limits, &[(1, None)], None);
        check(&Limits::default(), &[(1 << 40, Some(1 << 40)); 3], None);
    }

    #[test]
    fn loops_are_noticed() {
        use Repeated::{No, Stop, Warn};
        #[track_caller]
        fn check(calls: &[(&str, &str)], polls: bool, expected: &[Repeated]) {
            let mut repeats = Repeats::default();
            let found: Vec<_> = calls
                .iter()
                .map(|(arguments, result)| {
                    repeats.turn();
                    repeats.note("execute", arguments, result, polls)
                })
                .collect();
            assert_eq!(found, expected);
        }
        check(&[("a", "1"); 4], false, &[No, No, Warn, Stop]);
        // In a row, whatever it gives.
        check(
            &[("a", "1"), ("a", "2"), ("a", "3"), ("a", "4")],
            false,
            &[No, No, Warn, Stop],
        );
        // Asking for news, the answer must be the same.
        check(
            &[("a", "1"), ("a", "2"), ("a", "3"), ("a", "3")],
            true,
            &[No; 4],
        );
        check(&[("a", "1"); 4], true, &[No, No, Warn, Stop]);
        // Five of ten.
        let (a, b) = (("a", "1"), ("b", "1"));
        check(
            &[a, b, a, b, a, b, a, b, a, b, a],
            false,
            &[No, No, No, No, No, No, No, No, Warn, Warn, Stop],
        );
        // Tests after each change: another result each time.
        check(
            &[
                ("t", "1"),
                ("e1", ""),
                ("t", "2"),
                ("e2", ""),
                ("t", "3"),
                ("e3", ""),
                ("t", "4"),
                ("e4", ""),
                ("t", "5"),
            ],
            false,
            &[No; 9],
        );
    }

    #[test]
    fn a_turn_of_many_equal_calls_warns_once() {
        let mut repeats = Repeats::default();
        repeats.turn();
        let found: Vec<_> = (0..6)
            .map(|_| repeats.note("ls", "{}", "", false))
            .collect();
        assert_eq!(
            found
                .iter()
                .filter(|&&repeated| repeated == Repeated::Warn)
                .count(),
            1
        );
        assert!(!found.contains(&Repeated::Stop));
        repeats.turn();
        assert_eq!(repeats.note("ls", "{}", "", false), Repeated::Stop);
    }
}
