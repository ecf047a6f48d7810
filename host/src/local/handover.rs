//! Keys on their way between two processes of ours: one JSON object of
//! variables through a pipe, which nobody else can read and which is gone once
//! it was read. An environment or an argument could be read in `/proc` for as
//! long as the process lives.

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Write};

use stigmer_sdk::{Error, ErrorCode, Result};

use crate::config::{self, Config, Secret};

/// What one handover may have: as much as an empty pipe takes, so that giving
/// it never waits.
const MAX_BYTES: usize = 64 * 1024;

/// Variables that are secrets, with their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handover(BTreeMap<String, Secret>);

impl Handover {
    /// One that holds nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every secret of a configuration, for a daemon.
    ///
    /// # Errors
    /// Never, as long as these are secret settings.
    pub fn for_daemon(config: &Config) -> Result<Self> {
        let mut handover = Self::for_runner(config)?;
        let redis = config
            .redis
            .as_ref()
            .and_then(|redis| redis.password.as_ref());
        for (name, key) in [
            ("REDIS_PASSWORD", redis),
            ("DAYTONA_API_KEY", config.daytona.api_key.as_ref()),
        ] {
            if let Some(key) = key {
                handover.insert(name, key.clone())?;
            }
        }
        Ok(handover)
    }

    /// What an agent runner needs of a configuration's secrets.
    ///
    /// # Errors
    /// Never, as long as these are secret settings.
    pub fn for_runner(config: &Config) -> Result<Self> {
        let mut handover = Self::new();
        // The key that everybody knows is what a runner uses anyway.
        let own = Some(&config.api_key).filter(|key| key.expose() != config::LOCAL_KEY);
        for (name, key) in [
            ("STIGMER_API_KEY", own),
            ("ANTHROPIC_API_KEY", config.llm.anthropic_api_key.as_ref()),
            ("OPENAI_API_KEY", config.llm.openai_api_key.as_ref()),
        ] {
            if let Some(key) = key {
                handover.insert(name, key.clone())?;
            }
        }
        Ok(handover)
    }

    /// Adds one, in place of the one of that name.
    ///
    /// # Errors
    /// `InvalidArgument` if no secret setting has that name: this is no way
    /// around the environment for anything else.
    pub fn insert(&mut self, name: impl Into<String>, value: Secret) -> Result<()> {
        let name = name.into();
        if !config::is_secret(&name) {
            return Err(malformed(&format!(
                "'{}' is not a secret setting",
                name.escape_debug()
            )));
        }
        self.0.insert(name, value);
        Ok(())
    }

    /// Those there are, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Gives it as one line.
    ///
    /// # Errors
    /// `TooLarge` if it is, and `Internal` if it cannot be written.
    pub fn write_to(&self, mut to: impl Write) -> Result<()> {
        let variables: BTreeMap<&str, &str> = self
            .iter()
            .map(|(name, value)| (name, value.expose()))
            .collect();
        // Whole from the start: what grows leaves copies behind.
        let mut line = Wiped(Vec::with_capacity(MAX_BYTES));
        serde_json::to_writer(Bounded(&mut line.0), &variables).map_err(|_| too_large())?;
        line.0.push(b'\n');
        to.write_all(&line.0)
            .and_then(|()| to.flush())
            .map_err(|error| Error::internal("cannot hand keys over", error))
    }

    /// Takes everything up to the end of `from`.
    ///
    /// # Errors
    /// `InvalidArgument` if it is not a handover, `TooLarge` if it is too long
    /// for one.
    pub fn read_all(from: impl Read) -> Result<Self> {
        let mut bytes = Wiped(Vec::with_capacity(MAX_BYTES + 1));
        from.take(MAX_BYTES as u64 + 1)
            .read_to_end(&mut bytes.0)
            .map_err(|error| Error::internal("cannot read the keys handed over", error))?;
        Self::parse(&bytes.0)
    }

    /// Takes one line, and leaves what comes after it.
    ///
    /// # Errors
    /// As [`read_all`](Self::read_all).
    pub fn read_line(from: impl BufRead) -> Result<Self> {
        let mut bytes = Wiped(Vec::with_capacity(MAX_BYTES + 1));
        from.take(MAX_BYTES as u64 + 1)
            .read_until(b'\n', &mut bytes.0)
            .map_err(|error| Error::internal("cannot read the keys handed over", error))?;
        if bytes.0.len() <= MAX_BYTES && bytes.0.last() != Some(&b'\n') {
            return Err(malformed("it ended before its line did"));
        }
        Self::parse(&bytes.0)
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_BYTES {
            return Err(too_large());
        }
        // The parser's own message is left out: it may quote what it read.
        let variables: BTreeMap<String, String> = serde_json::from_slice(bytes)
            .map_err(|_| malformed("it is not a JSON object of strings"))?;
        let mut handover = Self::new();
        for (name, value) in variables {
            handover.insert(name, Secret::new(value))?;
        }
        Ok(handover)
    }
}

fn malformed(what: &str) -> Error {
    Error::new(
        ErrorCode::InvalidArgument,
        format!("what was handed over as keys is wrong: {what}"),
    )
}

fn too_large() -> Error {
    Error::new(
        ErrorCode::TooLarge,
        format!("keys that are handed over may have {MAX_BYTES} bytes together"),
    )
}

/// Bytes that are overwritten before their memory goes to somebody else.
struct Wiped(Vec<u8>);

impl Drop for Wiped {
    fn drop(&mut self) {
        config::wipe(&mut self.0);
    }
}

/// Refuses what would make it grow, with a byte left for the end of the line.
struct Bounded<'a>(&'a mut Vec<u8>);

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() >= MAX_BYTES {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Handover {
        let mut handover = Handover::new();
        for name in ["ANTHROPIC_API_KEY", "STIGMER_API_KEY"] {
            let value = Secret::new(format!("\"{name}\" \\ ✓"));
            handover.insert(name, value).unwrap();
        }
        handover
    }

    #[test]
    fn what_is_given_is_taken() {
        let mut pipe = Vec::new();
        sample().write_to(&mut pipe).unwrap();
        assert_eq!(Handover::read_all(&pipe[..]).unwrap(), sample());
        pipe.extend_from_slice(b"after");
        let mut from = &pipe[..];
        assert_eq!(Handover::read_line(&mut from).unwrap(), sample());
        assert_eq!(from, b"after");
        let mut nothing = Vec::new();
        Handover::new().write_to(&mut nothing).unwrap();
        assert_eq!(Handover::read_line(&nothing[..]).unwrap(), Handover::new());
    }

    #[test]
    fn nothing_that_is_wrong_is_taken_or_shown() {
        #[track_caller]
        fn check(bytes: &[u8], code: ErrorCode) {
            for error in [
                Handover::read_all(bytes).unwrap_err(),
                Handover::read_line(bytes).unwrap_err(),
            ] {
                assert_eq!(error.code(), code);
                assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
            }
        }
        check(b"", ErrorCode::InvalidArgument);
        check(b"hunter2\n", ErrorCode::InvalidArgument);
        check(
            b"{\"ANTHROPIC_API_KEY\": \"hunter2\"",
            ErrorCode::InvalidArgument,
        );
        check(
            b"{\"ANTHROPIC_API_KEY\": [\"hunter2\"]}\n",
            ErrorCode::InvalidArgument,
        );
        check(
            b"{\"LD_PRELOAD\": \"hunter2\"}\n",
            ErrorCode::InvalidArgument,
        );
        check(b"{\"MODE\": \"hunter2\"}\n", ErrorCode::InvalidArgument);
        check(&[b' '; MAX_BYTES + 1], ErrorCode::TooLarge);

        let mut large = Handover::new();
        large
            .insert("OPENAI_API_KEY", Secret::new("k".repeat(MAX_BYTES)))
            .unwrap();
        let error = large.write_to(&mut Vec::new()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::TooLarge);
    }

    #[test]
    fn a_line_that_was_cut_is_not_taken() {
        let error = Handover::read_line(&b"{}"[..]).unwrap_err();
        assert!(error.message().contains("before its line did"), "{error}");
    }

    #[test]
    fn values_are_not_shown() {
        let shown = format!("{:?}", sample());
        assert!(shown.contains("ANTHROPIC_API_KEY"), "{shown}");
        assert!(!shown.contains('✓'), "{shown}");
    }
}
