//! Comparisons that say what was expected and what came instead.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::{Error, ErrorCode, Result};

/// What a case comes to: nothing, or why it stopped.
pub(super) type Verdict<T = ()> = Result<T, Stop>;

/// Why a case stopped before its end.
#[derive(Debug)]
pub(super) enum Stop {
    Failed {
        what: String,
        expected: String,
        got: String,
    },
    Skipped(String),
}

pub(super) fn fail<T>(
    what: impl fmt::Display,
    expected: impl fmt::Display,
    got: impl fmt::Display,
) -> Verdict<T> {
    Err(Stop::Failed {
        what: what.to_string(),
        expected: expected.to_string(),
        got: got.to_string(),
    })
}

pub(super) fn skip<T>(reason: impl Into<String>) -> Verdict<T> {
    Err(Stop::Skipped(reason.into()))
}

/// `got` is `expected`.
pub(super) fn equal<T: PartialEq + fmt::Debug>(
    what: impl fmt::Display,
    got: T,
    expected: T,
) -> Verdict {
    if got == expected {
        return Ok(());
    }
    fail(
        what,
        shorten(format!("{expected:?}")),
        shorten(format!("{got:?}")),
    )
}

/// The same bytes; where they differ, and not megabytes of them, is reported.
pub(super) fn same_bytes(what: impl fmt::Display, got: &[u8], expected: &[u8]) -> Verdict {
    if got == expected {
        return Ok(());
    }
    let at = got
        .iter()
        .zip(expected)
        .position(|(got, expected)| got != expected)
        .unwrap_or_else(|| got.len().min(expected.len()));
    let describe = |bytes: &[u8]| {
        let end = bytes.len().min(at + 60);
        format!(
            "{} bytes, from byte {at}: \"{}\"",
            bytes.len(),
            bytes[at..end].escape_ascii()
        )
    };
    fail(what, describe(expected), describe(got))
}

/// `holds` is true; `got` says what was seen if it is not.
pub(super) fn ensure(
    what: impl fmt::Display,
    holds: bool,
    expected: impl fmt::Display,
    got: impl fmt::Debug,
) -> Verdict {
    if holds {
        return Ok(());
    }
    fail(what, expected, shorten(format!("{got:?}")))
}

/// The operation succeeded.
pub(super) fn ok<T>(what: impl fmt::Display, result: Result<T>) -> Verdict<T> {
    match result {
        Ok(value) => Ok(value),
        Err(error) => fail(what, "success", describe_error(&error)),
    }
}

/// The operation was refused with this code.
pub(super) fn refused<T>(what: impl fmt::Display, result: Result<T>, code: ErrorCode) -> Verdict {
    refused_with(what, result, &[code])
}

/// The operation was refused with one of these codes, where the contract
/// leaves open which.
pub(super) fn refused_with<T>(
    what: impl fmt::Display,
    result: Result<T>,
    codes: &[ErrorCode],
) -> Verdict {
    let expected = || {
        let names: Vec<_> = codes.iter().map(|code| code.as_str()).collect();
        format!("error {}", names.join(" or "))
    };
    match result {
        Err(error) if codes.contains(&error.code()) => Ok(()),
        Err(error) => fail(what, expected(), describe_error(&error)),
        Ok(_) => fail(what, expected(), "success"),
    }
}

/// The operation answered at once, whatever it answered.
pub(super) async fn prompt<T>(
    what: impl fmt::Display,
    within: Duration,
    operation: impl Future<Output = T>,
) -> Verdict<T> {
    match tokio::time::timeout(within, operation).await {
        Ok(value) => Ok(value),
        Err(_) => fail(
            what,
            format!("an answer within {within:?}"),
            "no answer by then",
        ),
    }
}

/// `probe` comes true before the deadline. Asked again and again, because
/// nothing says when.
pub(super) async fn eventually<F: Future<Output = Verdict<bool>>>(
    what: impl fmt::Display,
    within: Duration,
    mut probe: impl FnMut() -> F,
) -> Verdict {
    let until = Instant::now() + within;
    while !probe().await? {
        if Instant::now() >= until {
            return fail(what, format!("this within {within:?}"), "not so by then");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

pub(super) fn describe_error(error: &Error) -> String {
    format!("error {}: {error}", error.code())
}

/// Bytes for people, without the middle of what is long.
pub(super) fn show(bytes: &[u8]) -> String {
    shorten(format!("\"{}\"", bytes.escape_ascii()))
}

fn shorten(text: String) -> String {
    const HALF: usize = 300;
    let count = text.chars().count();
    if count <= 2 * HALF + 40 {
        return text;
    }
    let head: String = text.chars().take(HALF).collect();
    let tail: String = text.chars().skip(count - HALF).collect();
    format!("{head} …{} characters… {tail}", count - 2 * HALF)
}
