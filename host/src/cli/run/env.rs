//! Variables for an agent's commands: what `-e` and environment files say, and
//! which of them are secret.
//!
//! A name may be written `secret:NAME`. Once a layer said so the name stays
//! secret, whoever gives its value in the end: a secret that turns plain by
//! being overridden would be found in a log.

use std::collections::BTreeMap;
use std::path::PathBuf;

use stigmer_sdk::wire::agent;
use stigmer_sdk::{EnvName, EnvValue};

use crate::cli::exit::Reason;
use crate::cli::failure::{Failure, Result};
use crate::cli::value::Environment;

/// What `--help` says of environment files.
pub(super) const GRAMMAR: &str = "\
An environment file has one NAME=VALUE a line. Blank lines, lines that begin
with '#', and a leading 'export ' are skipped. A value is what follows the '=',
as it is; in 'single quotes' nothing has a meaning, and in \"double quotes\" \\n,
\\t, \\\" and \\\\ have theirs. NAME alone takes its value from here. With
secret:NAME, in a file or after -e, the value is masked wherever people read it.";

const SECRET: &str = "secret:";

/// Variables by name, as the daemon gets them.
pub(super) type Variables = BTreeMap<String, agent::EnvValue>;

/// `NAME=VALUE`, or `NAME` for the value that it has around this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    name: EnvName,
    value: Option<EnvValue>,
    secret: bool,
}

impl Variable {
    fn new(name: &str, value: Option<&str>) -> Result<Self, String> {
        let (name, secret) = match name.strip_prefix(SECRET) {
            Some(name) => (name, true),
            None => (name, false),
        };
        if name.contains(char::is_whitespace) {
            return Err(format!(
                "'{}' has a space in the name; write NAME=VALUE",
                name.escape_debug()
            ));
        }
        let text_of = |error: stigmer_sdk::Error| error.to_string();
        Ok(Self {
            name: EnvName::new(name).map_err(text_of)?,
            value: value.map(EnvValue::new).transpose().map_err(text_of)?,
            secret,
        })
    }

    /// Adds it over what is there. As with Docker, a name without a value that
    /// is not set here is left out; a secret is not, because whoever asks for
    /// one needs it.
    fn add_to(&self, variables: &mut Variables, around: &Environment) -> Result<(), String> {
        let name = self.name.as_str();
        let value = match &self.value {
            Some(value) => value.as_str(),
            None => match taken(name, around)? {
                Some(value) => value,
                None if self.secret => {
                    return Err(format!("the secret {name} is not set in this environment"));
                }
                None => return Ok(()),
            },
        };
        let was_secret = variables.get(name).is_some_and(|before| before.secret);
        variables.insert(
            name.to_owned(),
            agent::EnvValue {
                value: value.to_owned(),
                secret: self.secret || was_secret,
            },
        );
        Ok(())
    }
}

/// The value that a variable has around this process.
pub(super) fn taken<'a>(name: &str, around: &'a Environment) -> Result<Option<&'a str>, String> {
    if around
        .unreadable
        .iter()
        .any(|unreadable| unreadable == name)
    {
        return Err(format!(
            "the value of {name} in this environment is not UTF-8"
        ));
    }
    Ok(around.vars.get(name).map(String::as_str))
}

/// Checks a variable of an agent's, which says in another way what is secret.
pub(super) fn check(name: &str, value: &str) -> Result<(), String> {
    if name.starts_with(SECRET) {
        return Err(format!(
            "'{}' is no name here; write {{ value = \"…\", secret = true }}",
            name.escape_debug()
        ));
    }
    Variable::new(name, Some(value)).map(drop)
}

/// Parses `-e`.
pub(super) fn variable(text: &str) -> Result<Variable, String> {
    match text.split_once('=') {
        Some((name, value)) => Variable::new(name, Some(value)),
        None => Variable::new(text, None),
    }
}

/// The variables of all files and then of the arguments; the last one wins.
pub(super) fn layers(
    files: &[PathBuf],
    args: &[Variable],
    around: &Environment,
) -> Result<Variables> {
    let mut variables = Variables::new();
    let mut problems = Vec::new();
    for path in files {
        let bytes = std::fs::read(path).map_err(|error| {
            Failure::usage(format!("cannot read --env-file '{}'", path.display())).because(&error)
        })?;
        for (line, parsed) in parse(&bytes) {
            let added = parsed.and_then(|variable| variable.add_to(&mut variables, around));
            if let Err(problem) = added {
                problems.push(format!(
                    "--env-file '{}', line {line}: {problem}",
                    path.display()
                ));
            }
        }
    }
    for variable in args {
        if let Err(problem) = variable.add_to(&mut variables, around) {
            problems.push(format!("-e: {problem}"));
        }
    }
    if problems.is_empty() {
        return Ok(variables);
    }
    let mut failure = Failure::several(problems);
    failure.reason = Reason::Usage;
    Err(failure)
}

/// The lines of an environment file that say something, with their numbers.
fn parse(bytes: &[u8]) -> impl Iterator<Item = (usize, Result<Variable, String>)> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let lines = bytes.split(|&byte| byte == b'\n').enumerate();
    lines.filter_map(|(index, line)| {
        let parsed = match std::str::from_utf8(line) {
            Ok(line) => line_of(line.strip_suffix('\r').unwrap_or(line))?,
            Err(_) => Err("this is not UTF-8".to_owned()),
        };
        Some((index + 1, parsed))
    })
}

fn line_of(line: &str) -> Option<Result<Variable, String>> {
    let line = line.trim_start();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let line = match line.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
        _ => line,
    };
    let Some((name, value)) = line.split_once('=') else {
        return Some(Variable::new(line.trim_end(), None));
    };
    Some(unquoted(value).and_then(|value| Variable::new(name, Some(&value))))
}

fn unquoted(value: &str) -> Result<String, String> {
    let (quote, rest) = match value.chars().next() {
        Some(quote @ ('\'' | '"')) => (quote, &value[1..]),
        _ => return Ok(value.to_owned()),
    };
    let mut text = String::new();
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => {
                let after = chars.as_str().trim();
                return if after.is_empty() || after.starts_with('#') {
                    Ok(text)
                } else {
                    Err("there is more after the closing quote".to_owned())
                };
            }
            '\\' if quote == '"' => match chars.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('r') => text.push('\r'),
                Some(c @ ('"' | '\\' | '$')) => text.push(c),
                Some(c) => text.extend(['\\', c]),
                None => {}
            },
            c => text.push(c),
        }
    }
    Err(format!("the quote {quote} is not closed on this line"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Env;

    fn around() -> Environment {
        Environment {
            vars: Env::from([("HOME".to_owned(), "/root".to_owned())]),
            unreadable: vec!["LATIN".to_owned()],
        }
    }

    #[test]
    fn a_line_is_read_as_it_is_written() {
        #[track_caller]
        fn check(line: &str, name: &str, value: &str) {
            let parsed: Vec<_> = parse(line.as_bytes()).collect();
            let [(1, Ok(variable))] = &parsed[..] else {
                panic!("{parsed:?}")
            };
            assert_eq!(variable.name.as_str(), name);
            assert_eq!(variable.value.as_ref().map(EnvValue::as_str), Some(value));
        }
        check("A=1", "A", "1");
        check("  A=x=y", "A", "x=y");
        check("A=", "A", "");
        check("A=1 # kept\r", "A", "1 # kept");
        check("export A=1", "A", "1");
        check("export\tA=1", "A", "1");
        check("exported=1", "exported", "1");
        check("A='a \"b\" \\n'", "A", "a \"b\" \\n");
        check(
            "A=\"a\\n\\\"b\\\" \\\\ \\d\" # said",
            "A",
            "a\n\"b\" \\ \\d",
        );
        check("A=\"\"", "A", "");
        check("A=it's", "A", "it's");
        check("\u{feff}A=1", "A", "1");
        check("secret:A=1", "A", "1");
    }

    #[test]
    fn what_says_nothing_is_skipped() {
        assert_eq!(parse(b"\n# A=1\n   \n\r\n").count(), 0);
    }

    #[test]
    fn every_bad_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        let text = b"A=1\nB C=1\n=1\nD='x\nE=\"a\" b\nF=\xff\nLATIN\nsecret:NOT_SET\nexport G H=2";
        std::fs::write(&path, text).unwrap();
        let failure = layers(std::slice::from_ref(&path), &[], &around()).unwrap_err();
        let at = format!("--env-file '{}', line ", path.display());
        let problems: Vec<_> = failure
            .problems
            .iter()
            .map(|problem| problem.strip_prefix(&at).unwrap())
            .collect();
        assert_eq!(
            problems,
            [
                "2: 'B C' has a space in the name; write NAME=VALUE",
                "3: '' cannot name an environment variable",
                "4: the quote ' is not closed on this line",
                "5: there is more after the closing quote",
                "6: this is not UTF-8",
                "7: the value of LATIN in this environment is not UTF-8",
                "8: the secret NOT_SET is not set in this environment",
                "9: 'G H' has a space in the name; write NAME=VALUE",
            ]
        );
        assert_eq!(failure.reason, Reason::Usage);
    }

    #[test]
    fn the_last_value_wins_and_a_secret_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["one", "two"].map(|name| dir.path().join(name));
        std::fs::write(&files[0], "A=1\nsecret:T=x\nHOME\nNOT_SET").unwrap();
        std::fs::write(&files[1], "A=2\nB=2").unwrap();
        let args = ["B=3", "T=y", "secret:HOME"].map(|arg| variable(arg).unwrap());
        let variables = layers(&files, &args, &around()).unwrap();
        let flat: Vec<_> = variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.value.as_str(), value.secret))
            .collect();
        assert_eq!(
            flat,
            [
                ("A", "2", false),
                ("B", "3", false),
                ("HOME", "/root", true),
                ("T", "y", true),
            ]
        );
    }
}
