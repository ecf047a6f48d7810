//! What bounds an execution, as people type it.

use std::time::Duration;

use clap::Args;
use stigmer_sdk::wire::agent::ExecutionLimits;

use crate::cli::value;

#[derive(Args, Clone, Debug, Default)]
pub(super) struct LimitArgs {
    /// Ask the model at most this often; 0 means no limit
    #[arg(long, value_name = "COUNT")]
    max_turns: Option<u32>,

    /// Use at most this many tokens, of input and output together; 0 means no limit
    #[arg(long, value_name = "COUNT")]
    max_tokens: Option<u64>,

    /// Stop after this long (30s, 1h); 0 means never
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    timeout: Option<Duration>,

    /// Spend at most this many dollars (0.50), if the model's price is known; 0 means no limit
    #[arg(long, value_name = "USD", value_parser = microdollars)]
    max_cost: Option<u64>,
}

impl LimitArgs {
    /// `None` if nothing was typed.
    pub(super) fn to_wire(&self) -> Option<ExecutionLimits> {
        let limits = ExecutionLimits {
            max_turns: self.max_turns,
            max_tokens: self.max_tokens,
            timeout_ms: self.timeout.map(millis),
            max_cost_microusd: self.max_cost,
        };
        (limits != ExecutionLimits::default()).then_some(limits)
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Parses dollars into their millionths, exactly.
pub(super) fn microdollars(text: &str) -> Result<u64, String> {
    const DIGITS: usize = 6;
    let parsed = || {
        let number = text.strip_prefix('$').unwrap_or(text);
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(part) || whole.is_empty() || part.len() > DIGITS {
            return None;
        }
        let part: u64 = format!("{part:0<DIGITS$}").parse().ok()?;
        let whole: u64 = whole.parse().ok()?;
        whole.checked_mul(1_000_000)?.checked_add(part)
    };
    parsed().ok_or_else(|| "not dollars such as 2 or 0.50".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_exact() {
        #[track_caller]
        fn check(text: &str, expected: Option<u64>) {
            assert_eq!(microdollars(text).ok(), expected);
        }
        check("2", Some(2_000_000));
        check("0.50", Some(500_000));
        check("$1.000001", Some(1_000_001));
        check("0", Some(0));
        check("1.", Some(1_000_000));
        check("0.0000001", None);
        check(".5", None);
        check("-1", None);
        check("1e3", None);
        check("", None);
        check("99999999999999999", None);
    }
}
