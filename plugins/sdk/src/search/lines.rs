//! From the lines that the searcher shows to matches with their context.

use std::collections::VecDeque;
use std::io;

use grep_searcher::{Searcher, Sink, SinkContext, SinkMatch};

use super::budget::Budget;
use crate::{GrepQuery, Match};

/// Bytes shown of a line.
pub(super) const MAX_LINE: usize = 64 * 1024;

/// Makes matches of the lines of one file.
///
/// The searcher shows each line once. A line is context of every match near it,
/// also if it matches itself, so the lines are kept and given out here.
pub(super) struct Lines<'a> {
    path: String,
    before: usize,
    after: usize,
    budget: &'a Budget<'a>,
    matches: &'a mut Vec<Match>,
    /// The first match of this file that still lacks lines after it.
    first: usize,
    /// Lines before the next one, as many as a match wants.
    recent: VecDeque<String>,
    /// No more matches, only the lines after those there are.
    full: bool,
}

impl<'a> Lines<'a> {
    /// Adds to `matches` what is found in the file at `path`.
    pub(super) fn new(
        path: String,
        query: &GrepQuery,
        budget: &'a Budget<'a>,
        matches: &'a mut Vec<Match>,
    ) -> Self {
        Self {
            path,
            before: query.before as usize,
            after: query.after as usize,
            budget,
            first: matches.len(),
            matches,
            recent: VecDeque::new(),
            full: false,
        }
    }

    /// Gives a line to the matches before it, and whether to go on.
    fn pass(&mut self, line: &str) -> bool {
        for found in &mut self.matches[self.first..] {
            if found.after.len() < self.after && self.budget.hold(line) {
                found.after.push(line.to_owned());
            }
        }
        let complete = |found: &&Match| found.after.len() >= self.after;
        self.first += self.matches[self.first..]
            .iter()
            .take_while(complete)
            .count();
        !self.full || self.first < self.matches.len()
    }

    fn remember(&mut self, line: String) {
        self.recent.push_back(line);
        if self.recent.len() > self.before {
            self.recent.pop_front();
        }
    }
}

impl Sink for Lines<'_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> io::Result<bool> {
        let line = text(found.bytes());
        let goes_on = self.pass(&line);
        if self.full {
            return Ok(goes_on);
        }
        if !self.budget.take()
            || !self.budget.hold(&line)
            || !self.recent.iter().all(|line| self.budget.hold(line))
        {
            self.full = true;
            return Ok(self.first < self.matches.len());
        }
        self.matches.push(Match {
            path: self.path.clone(),
            line: found.line_number().unwrap_or_default(),
            text: line.clone(),
            before: self.recent.iter().cloned().collect(),
            after: Vec::new(),
        });
        if self.after == 0 {
            self.first = self.matches.len();
        }
        self.remember(line);
        Ok(true)
    }

    fn context(&mut self, _: &Searcher, context: &SinkContext<'_>) -> io::Result<bool> {
        let line = text(context.bytes());
        let goes_on = self.pass(&line);
        self.remember(line);
        Ok(goes_on)
    }

    fn context_break(&mut self, _: &Searcher) -> io::Result<bool> {
        self.recent.clear();
        Ok(true)
    }
}

/// A line without its ending, as far as it is shown.
fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() <= MAX_LINE {
        return String::from_utf8_lossy(line).into_owned();
    }
    // A character that the cut goes through would become U+FFFD.
    let mut end = MAX_LINE;
    while end > MAX_LINE - 4 && line[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    let mut text = String::from_utf8_lossy(&line[..end]).into_owned();
    // U+FFFD is longer than the byte that it stands for.
    text.truncate(text.floor_char_boundary(MAX_LINE));
    text
}
