//! Values as people type them on the command line.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use stigmer_sdk::{EnvName, EnvValue, SandboxPath};

use super::failure::{Failure, Result};
use crate::config::Env;
use crate::local::handover::Handover;

/// What was set around this process.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    pub(super) vars: Env,
    /// Names of variables whose values are not UTF-8.
    pub(super) unreadable: Vec<String>,
}

impl Environment {
    pub(super) fn new(
        vars: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    ) -> Self {
        let mut environment = Self::default();
        for (name, value) in vars {
            // No variable of ours has a name that is not UTF-8.
            let Ok(name) = name.into_string() else {
                continue;
            };
            match value.into_string() {
                Ok(value) => {
                    environment.vars.insert(name, value);
                }
                Err(_) => environment.unreadable.push(name),
            }
        }
        environment
    }
}

impl Environment {
    /// With keys that came another way. They count as if they had been set.
    pub(super) fn with(&self, keys: &Handover) -> Self {
        let mut all = self.clone();
        for (name, key) in keys.iter() {
            all.unreadable.retain(|unreadable| unreadable != name);
            all.vars.insert(name.to_owned(), key.expose().to_owned());
        }
        all
    }
}

/// `NAME=VALUE`, or `NAME` for the value that it has around this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EnvArg {
    name: EnvName,
    value: Option<EnvValue>,
}

/// Parses `-e`.
pub(super) fn env(text: &str) -> Result<EnvArg, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    Ok(EnvArg {
        name: EnvName::new(name).map_err(text_of)?,
        value: value.map(EnvValue::new).transpose().map_err(text_of)?,
    })
}

/// The variables of a file and then of the arguments; the last one wins. As
/// with Docker, a name without a value that is not set here is left out.
pub(super) fn variables(
    file: Option<&Path>,
    args: &[EnvArg],
    around: &Environment,
) -> Result<BTreeMap<String, String>> {
    let mut all = match file {
        Some(path) => {
            let bytes = std::fs::read(path).map_err(|error| {
                Failure::usage(format!("cannot read --env-file '{}'", path.display()))
                    .because(&error)
            })?;
            env_file(&bytes).map_err(|problem| {
                Failure::usage(format!("--env-file '{}', {problem}", path.display()))
            })?
        }
        None => Vec::new(),
    };
    all.extend_from_slice(args);
    let mut variables = BTreeMap::new();
    for EnvArg { name, value } in all {
        let name = name.as_str();
        let value = match value {
            Some(value) => value.as_str().to_owned(),
            None if around
                .unreadable
                .iter()
                .any(|unreadable| unreadable == name) =>
            {
                return Err(Failure::usage(format!(
                    "the value of {name} in this environment is not UTF-8"
                )));
            }
            None => match around.vars.get(name) {
                Some(value) => value.clone(),
                None => continue,
            },
        };
        variables.insert(name.to_owned(), value);
    }
    Ok(variables)
}

/// Parses an environment file: a variable a line as for `-e`, blank lines and
/// lines that begin with `#` skipped, and no quotes or expansion.
fn env_file(bytes: &[u8]) -> Result<Vec<EnvArg>, String> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut variables = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let at = |problem: String| format!("line {}: {problem}", index + 1);
        let line = std::str::from_utf8(line).map_err(|_| at("this is not UTF-8".to_owned()))?;
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or(line);
        if name.contains(char::is_whitespace) {
            return Err(at(format!(
                "'{}' has a space in the name; write NAME=VALUE",
                name.escape_debug()
            )));
        }
        variables.push(env(line).map_err(at)?);
    }
    Ok(variables)
}

/// Parses a duration: `30s`, `1h30m`, or a number of seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<u32>() {
        Ok(seconds) => Some(Duration::from_secs(u64::from(seconds))),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    parsed.ok_or_else(|| "not a duration such as 30s, 5m or 1h30m".to_owned())
}

/// Parses a duration that cannot be nothing.
pub(super) fn some_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be longer than nothing".to_owned()),
        duration => Ok(duration),
    }
}

/// Parses a number of bytes: `4096`, `512M`, `2GiB`, with 1,024 bytes to the KiB.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err("not a size such as 4096, 512M or 2G".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "not a size such as 4096, 512M or 2G".to_owned())?;
    match number.checked_mul(1 << shift) {
        Some(0) => Err("it must be more than nothing".to_owned()),
        Some(bytes) => Ok(bytes),
        None => Err("more bytes than there can be".to_owned()),
    }
}

/// Parses `KEY=VALUE`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("not KEY=VALUE".to_owned()),
    }
}

/// Parses permissions in octal: `644`, `0755`.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && !text.starts_with('+') => Ok(mode),
        _ => Err("not permissions such as 644 or 0755".to_owned()),
    }
}

/// Parses a path in a sandbox.
pub(super) fn path(text: &str) -> Result<String, String> {
    SandboxPath::new(text)
        .map(|path| path.as_str().to_owned())
        .map_err(|error| error.message().to_owned())
}

fn text_of(error: impl Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around() -> Environment {
        Environment {
            vars: Env::from([("HOME".to_owned(), "/root".to_owned())]),
            unreadable: vec!["LATIN".to_owned()],
        }
    }

    #[test]
    fn an_environment_file_is_read_as_docker_does() {
        let file = b"\xef\xbb\xbf# comment\n\n  A=1 # kept\r\nB=\nHOME\nUNSET\nC=x=y";
        let args = env_file(file).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        std::fs::write(&path, file).unwrap();
        let variables = variables(Some(&path), &[env("A=2").unwrap()], &around()).unwrap();
        assert_eq!(args.len(), 5);
        let expected = [("A", "2"), ("B", ""), ("C", "x=y"), ("HOME", "/root")];
        assert_eq!(
            variables,
            expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
        );
    }

    #[test]
    fn a_bad_line_is_named() {
        #[track_caller]
        fn check(file: &[u8], message: &str) {
            assert_eq!(env_file(file).unwrap_err(), message);
        }
        check(
            b"A=1\nB C=1",
            "line 2: 'B C' has a space in the name; write NAME=VALUE",
        );
        check(b"=1", "line 1: '' cannot name an environment variable");
        check(b"\n\nA=\xff", "line 3: this is not UTF-8");
    }

    #[test]
    fn a_value_that_is_not_text_is_not_dropped_silently() {
        let failure = variables(None, &[env("LATIN").unwrap()], &around()).unwrap_err();
        assert_eq!(
            failure.problems,
            ["the value of LATIN in this environment is not UTF-8"]
        );
    }

    #[test]
    fn durations_sizes_and_modes() {
        #[track_caller]
        fn check<T: PartialEq + std::fmt::Debug>(parsed: Result<T, String>, expected: Option<T>) {
            assert_eq!(parsed.ok(), expected);
        }
        check(duration("30"), Some(Duration::from_secs(30)));
        check(duration("1h30m"), Some(Duration::from_secs(5400)));
        check(duration("250ms"), Some(Duration::from_millis(250)));
        check(duration("0"), Some(Duration::ZERO));
        check(duration("soon"), None);
        check(duration("-1"), None);
        check(duration(""), None);
        check(some_time("0s"), None);
        check(size("4096"), Some(4096));
        check(size("512M"), Some(512 << 20));
        check(size("2GiB"), Some(2 << 30));
        check(size("0"), None);
        check(size("M"), None);
        check(size("1.5G"), None);
        check(size("99999999999T"), None);
        check(mode("0644"), Some(0o644));
        check(mode("755"), Some(0o755));
        check(mode("888"), None);
        check(mode("4755"), None);
        check(mode("+644"), None);
        check(label("a=b=c"), Some(("a".to_owned(), "b=c".to_owned())));
        check(label("a"), None);
        check(label("=b"), None);
        check(path(""), None);
    }
}
