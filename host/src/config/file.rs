//! The config file as text: flat, so that a key and a variable are one thing.
//! The one table there is, `[[approvals]]`, is a list that no variable could hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Problem;
use super::settings::{ALL, DATA_DIR, nearest};

/// A config file that is TOML. Whether its keys and values mean anything is
/// for [`resolve`](super::resolve) to say.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    pub(super) path: PathBuf,
    pub(super) entries: BTreeMap<String, Entry>,
    /// `[[approvals]]`, with the line on which each begins.
    pub(super) approvals: Vec<Table>,
}

/// One value, and the line it begins on, counted from one.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) value: toml::Value,
    pub(super) line: usize,
}

/// A table of the file.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) line: usize,
    pub(super) entries: BTreeMap<String, Entry>,
}

/// A table as the parser gives it: with places as offsets.
type Spans = BTreeMap<String, toml::Spanned<toml::Value>>;

/// The key of the only list of tables.
pub(super) const APPROVALS: &str = "approvals";

/// What of a file is not flat.
#[derive(serde::Deserialize)]
struct Tables {
    approvals: Vec<toml::Spanned<Spans>>,
}

impl ConfigFile {
    /// Reads the text of the file at `path`.
    ///
    /// # Errors
    /// If it is not TOML, with the line and what was expected there.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Problem> {
        let line = |offset: usize| {
            1 + text
                .bytes()
                .take(offset)
                .filter(|byte| *byte == b'\n')
                .count()
        };
        let wrong = |error: &toml::de::Error, what: &str| {
            let line = line(error.span().map_or(0, |span| span.start));
            let message = error.message().replace('\n', ", ");
            Problem(format!("{}:{line} {what}: {message}", path.display()))
        };
        let entries = |spans: Spans| -> BTreeMap<String, Entry> {
            spans
                .into_iter()
                .map(|(key, value)| {
                    let line = line(value.span().start);
                    let value = value.into_inner();
                    (key, Entry { value, line })
                })
                .collect()
        };
        let spans: Spans = toml::from_str(text).map_err(|error| wrong(&error, "is not TOML"))?;
        let mut entries_of_file = entries(spans);
        // A value does not know where its parts are, so these are read again.
        let approvals = if entries_of_file.remove(APPROVALS).is_some() {
            let tables: Tables = toml::from_str(text)
                .map_err(|error| wrong(&error, "should be [[approvals]], a list of tables"))?;
            tables
                .approvals
                .into_iter()
                .map(|table| Table {
                    line: line(table.span().start),
                    entries: entries(table.into_inner()),
                })
                .collect()
        } else {
            Vec::new()
        };
        Ok(Self {
            path: path.to_owned(),
            entries: entries_of_file,
            approvals,
        })
    }

    /// The keys that hold secrets.
    pub(super) fn secrets(&self) -> Vec<String> {
        ALL.iter()
            .filter(|setting| setting.secret)
            .filter_map(|setting| setting.key())
            .filter(|key| self.entries.contains_key(key))
            .collect()
    }

    /// A problem for each key that means nothing.
    pub(super) fn unknown_keys(&self) -> Vec<Problem> {
        let mut known: Vec<String> = ALL.iter().filter_map(|setting| setting.key()).collect();
        known.push(APPROVALS.to_owned());
        self.entries
            .iter()
            .filter(|(key, _)| !known.contains(key))
            .map(|(key, entry)| {
                let place = format!("{}:{}", self.path.display(), entry.line);
                let key = key.escape_debug();
                if key.to_string() == "data_dir" {
                    return Problem(format!(
                        "{place} has 'data_dir', which is where this file is found: set {} or --data-dir",
                        DATA_DIR.variable
                    ));
                }
                let meant = nearest(&key.to_string(), known.iter().map(String::as_str))
                    .map(|meant| format!(" (did you mean '{meant}'?)"))
                    .unwrap_or_default();
                Problem(format!(
                    "{place} has the unknown key '{key}'{meant}; allowed are {}",
                    known.join(", ")
                ))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_file_has_its_line() {
        #[track_caller]
        fn check(text: &str, problem: &str) {
            let problems = match ConfigFile::parse(Path::new("/c.toml"), text) {
                Ok(file) => file.unknown_keys(),
                Err(problem) => vec![problem],
            };
            let [found] = &problems[..] else {
                panic!("{problems:?}")
            };
            assert!(found.0.starts_with(problem), "{found}");
        }
        check("mode = 'local'\nport = \n", "/c.toml:2 is not TOML: ");
        check("mode = 'a'\nmode = 'b'\n", "/c.toml:2 is not TOML: ");
        check(
            "\n\nroot = '.'\n",
            "/c.toml:3 has the unknown key 'root'; allowed are mode, sandbox_type, ",
        );
        check(
            "sandbox_typ = 'wasi'",
            "/c.toml:1 has the unknown key 'sandbox_typ' (did you mean 'sandbox_type'?); allowed",
        );
        check(
            "[sandbox]\ntype = 'wasi'",
            "/c.toml:1 has the unknown key 'sandbox'",
        );
        check(
            "mode = 'local'\n[[aprovals]]\nanswer = 'ask'",
            "/c.toml:2 has the unknown key 'aprovals' (did you mean 'approvals'?)",
        );
        check(
            "\napprovals = 'ask'",
            "/c.toml:2 should be [[approvals]], a list of tables: ",
        );
        check(
            "approvals = [1]",
            "/c.toml:1 should be [[approvals]], a list of tables: ",
        );
        check(
            "data_dir = '/x'",
            "/c.toml:1 has 'data_dir', which is where this file is found",
        );
    }
}
