//! Lists and counts. They read columns and never an event, and each page begins
//! where an index says that the one before it ended.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Result, ToSql};
use stigmer_sdk::wire::agent as pb;

use super::store::{self, Execution, HEAD, SESSION, Session};
use crate::sqlite::unsigned;

/// Which executions to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub session_id: Option<String>,
    /// Any of these; none means all.
    pub phases: Vec<pb::Phase>,
    /// All of these must match.
    pub labels: BTreeMap<String, String>,
    pub page: Slice,
}

/// Which part of a list.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// Only what was created before the one with this number.
    pub before: Option<i64>,
    pub limit: u32,
}

impl Default for Slice {
    fn default() -> Self {
        Self {
            before: None,
            limit: 100,
        }
    }
}

/// A part of a list, and where the next one begins, if there is more.
#[derive(Clone, Debug, Default)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<i64>,
}

impl<T> Page<T> {
    /// From one more than fits, which says whether there is another page.
    fn of(mut items: Vec<T>, limit: u32, number: impl Fn(&T) -> i64) -> Self {
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        Self {
            next: items.last().filter(|_| more).map(number),
            items,
        }
    }

    pub(super) fn map<U>(self, convert: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(convert).collect(),
            next: self.next,
        }
    }
}

/// How many there are of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub sessions: u64,
    pub pending: u64,
    pub in_progress: u64,
}

/// The condition that all of `:labels` are among those of a row.
fn labelled(table: &str) -> String {
    format!(
        " AND NOT EXISTS (SELECT 1 FROM json_each(:labels) AS wanted
          WHERE (SELECT value FROM json_each({table}.labels) WHERE key = wanted.key) IS NOT wanted.value)"
    )
}

/// Newest first.
pub(super) fn sessions(
    connection: &Connection,
    labels: &BTreeMap<String, String>,
    page: Slice,
) -> Result<Page<Session>> {
    let mut sql = format!("SELECT {SESSION} FROM sessions AS s WHERE s.n < :before");
    let before = page.before.unwrap_or(i64::MAX);
    let limit = page.limit.saturating_add(1);
    let json = serde_json::json!(labels).to_string();
    let mut params: Vec<(&str, &dyn ToSql)> = vec![(":before", &before), (":limit", &limit)];
    if !labels.is_empty() {
        sql.push_str(&labelled("s"));
        params.push((":labels", &json));
    }
    sql.push_str(" ORDER BY s.n DESC LIMIT :limit");
    let items = connection
        .prepare_cached(&sql)?
        .query_map(&*params, store::read_session)?
        .collect::<Result<Vec<_>>>()?;
    Ok(Page::of(items, page.limit, |session| session.n))
}

/// Newest first. Each phase is a walk of its own along an index, because one
/// over several would have to sort all that there is.
pub(super) fn executions(connection: &Connection, filter: &Filter) -> Result<Page<Execution>> {
    let walks: Vec<Option<i32>> = match &filter.phases[..] {
        [] => vec![None],
        phases => {
            let mut numbers: Vec<_> = phases.iter().map(|&phase| i32::from(phase)).collect();
            numbers.sort_unstable();
            numbers.dedup();
            numbers.into_iter().map(Some).collect()
        }
    };
    let mut items = Vec::new();
    for phase in walks {
        items.extend(walk(connection, filter, phase)?);
    }
    items.sort_unstable_by_key(|execution| std::cmp::Reverse(execution.head.n));
    Ok(Page::of(items, filter.page.limit, |execution| {
        execution.head.n
    }))
}

fn walk(connection: &Connection, filter: &Filter, phase: Option<i32>) -> Result<Vec<Execution>> {
    let mut sql = format!("SELECT {HEAD}, e.spec FROM executions AS e WHERE e.n < :before");
    let before = filter.page.before.unwrap_or(i64::MAX);
    let limit = filter.page.limit.saturating_add(1);
    let json = serde_json::json!(filter.labels).to_string();
    let mut params: Vec<(&str, &dyn ToSql)> = vec![(":before", &before), (":limit", &limit)];
    if let Some(session) = &filter.session_id {
        sql.push_str(" AND e.session = (SELECT n FROM sessions WHERE id = :session)");
        params.push((":session", session));
    }
    if let Some(phase) = &phase {
        // The plus keeps the session's index, which is the narrower one.
        sql.push_str(match filter.session_id {
            Some(_) => " AND +e.phase = :phase",
            None => " AND e.phase = :phase",
        });
        params.push((":phase", phase));
    }
    if !filter.labels.is_empty() {
        sql.push_str(&labelled("e"));
        params.push((":labels", &json));
    }
    sql.push_str(" ORDER BY e.n DESC LIMIT :limit");
    connection
        .prepare_cached(&sql)?
        .query_map(&*params, store::read_execution)?
        .collect()
}

/// The executions of a session in the order they were created, by number and
/// last event, up to but without the one with the number `before`.
pub(super) fn of_session(
    connection: &Connection,
    session: i64,
    before: i64,
) -> Result<Vec<(i64, u64)>> {
    connection
        .prepare_cached("SELECT n, seq FROM executions WHERE session = ?1 AND n < ?2 ORDER BY n")?
        .query_map([session, before], |row| {
            Ok((row.get(0)?, row.get(1).map(unsigned)?))
        })?
        .collect()
}

/// The number of a session.
pub(super) fn session_number(connection: &Connection, id: &str) -> Result<Option<i64>> {
    connection
        .prepare_cached("SELECT n FROM sessions WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()
}

pub(super) fn counts(connection: &Connection) -> Result<Counts> {
    let mut in_phase =
        connection.prepare_cached("SELECT count(*) FROM executions WHERE phase = ?1")?;
    let mut count =
        |phase: pb::Phase| in_phase.query_row([i32::from(phase)], |row| row.get(0).map(unsigned));
    Ok(Counts {
        pending: count(pb::Phase::Pending)?,
        in_progress: count(pb::Phase::InProgress)?,
        sessions: connection
            .prepare_cached("SELECT count(*) FROM sessions")?
            .query_row([], |row| row.get(0).map(unsigned))?,
    })
}
