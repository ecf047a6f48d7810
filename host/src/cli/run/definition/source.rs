//! A TOML file whose problems are collected, each with its line.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// The file, and what was found to be wrong with it so far.
#[derive(Debug)]
pub(super) struct Source<'i> {
    pub(super) path: &'i Path,
    text: &'i str,
    /// By where it is.
    problems: Vec<(usize, String)>,
}

impl<'i> Source<'i> {
    pub(super) fn new(path: &'i Path, text: &'i str) -> Self {
        Self {
            path,
            text,
            problems: Vec::new(),
        }
    }

    /// The file as a table; none if it is not TOML.
    pub(super) fn table(&mut self) -> Option<Spanned<DeTable<'i>>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let message = error.message().replace('\n', ", ");
            let at = error.span().map_or(0, |span| span.start);
            self.problem(at, format!("this is not TOML: {message}"));
        }
        errors.is_empty().then_some(table)
    }

    pub(super) fn problem(&mut self, at: usize, problem: impl Into<String>) {
        self.problems.push((at, problem.into()));
    }

    /// `FILE:LINE: PROBLEM`, in the order of the file.
    pub(super) fn into_problems(mut self) -> Vec<String> {
        self.problems.sort_by_key(|(at, _)| *at);
        let (path, text) = (self.path.display(), self.text);
        let line = |at: usize| 1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count();
        self.problems
            .into_iter()
            .map(|(at, problem)| format!("{path}:{}: {problem}", line(at)))
            .collect()
    }

    fn wrong(&mut self, key: &str, value: &Value<'_>, expected: &str) {
        let found = value.get_ref().type_str();
        self.problem(
            value.span().start,
            format!("'{key}' must be {expected}, and is of type {found}"),
        );
    }

    pub(super) fn unknown(&mut self, at: usize, key: &str, place: &str, allowed: &str) {
        self.problem(
            at,
            format!(
                "{place} has the unknown key '{}'; allowed are {allowed}",
                key.escape_debug()
            ),
        );
    }

    pub(super) fn string<'v>(&mut self, key: &str, value: &'v Value<'_>) -> Option<&'v str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong(key, value, "a string");
        }
        text
    }

    pub(super) fn boolean(&mut self, key: &str, value: &Value<'_>) -> Option<bool> {
        let truth = value.get_ref().as_bool();
        if truth.is_none() {
            self.wrong(key, value, "true or false");
        }
        truth
    }

    pub(super) fn number<N: TryFrom<u64>>(&mut self, key: &str, value: &Value<'_>) -> Option<N> {
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong(key, value, "a number");
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.and_then(|number| N::try_from(number).ok());
        if number.is_none() {
            self.problem(
                value.span().start,
                format!("'{key}' cannot be {}", integer.as_str()),
            );
        }
        number
    }

    /// What a person would have typed for it: text, or a number.
    pub(super) fn typed<T>(
        &mut self,
        key: &str,
        value: &Value<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.as_ref(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            _ => {
                self.wrong(key, value, "a number or a string");
                return None;
            }
        };
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(problem) => {
                self.problem(value.span().start, format!("'{key}': {problem}"));
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &str,
        value: &Value<'_>,
        words: &[(&str, T)],
    ) -> Option<T> {
        let text = self.string(key, value)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.problem(
                value.span().start,
                format!(
                    "'{key}' cannot be '{}'; allowed are {}",
                    text.escape_debug(),
                    words.join(", ")
                ),
            );
        }
        found.map(|(_, meaning)| *meaning)
    }

    pub(super) fn list<'v>(&mut self, key: &str, value: &'v Value<'i>) -> &'v [Value<'i>] {
        if let DeValue::Array(items) = value.get_ref() {
            return items;
        }
        self.wrong(key, value, "a list");
        &[]
    }

    pub(super) fn entries<'v>(
        &mut self,
        key: &str,
        value: &'v Value<'i>,
    ) -> Option<&'v DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong(key, value, "a table");
        }
        table
    }
}
