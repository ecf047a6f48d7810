//! What is known of sessions and executions, on disk: `agents.db` in the data
//! directory. Plain functions over a connection; who may call which is
//! [`desk`](super::desk)'s business.
//!
//! Events are the record. What lists show of an execution is kept beside it as
//! columns, which are written with the events that change them, so that no list
//! reads an event. Rows are numbered in the order of their creation; those
//! numbers are the cursors of pages, and short keys for events.
//!
//! Values of secret variables and tokens of leases never come here.

use prost::Message;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Result, Row, named_params, params};
use stigmer_sdk::wire::agent as pb;
use stigmer_sdk::wire::sandbox;

use crate::sqlite::{signed, unsigned};

pub(super) const MIGRATIONS: &[&str] = &["
    CREATE TABLE sessions (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        labels TEXT NOT NULL,           -- a JSON object of strings
        created_ms INTEGER NOT NULL,
        used_ms INTEGER NOT NULL,
        sandbox_id TEXT,                -- set once
        deleting INTEGER NOT NULL DEFAULT 0,
        spec BLOB NOT NULL,             -- SessionSpec, without its skills
        skills BLOB NOT NULL            -- AgentSpec, with nothing else
    ) STRICT;
    CREATE TABLE executions (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        session INTEGER NOT NULL REFERENCES sessions (n),
        key TEXT UNIQUE,                -- its creator's, so that it is created once
        labels TEXT NOT NULL,           -- a JSON object of strings
        created_ms INTEGER NOT NULL,
        max_attempts INTEGER NOT NULL,
        -- What its events amount to.
        seq INTEGER NOT NULL,
        phase INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        runner_id TEXT NOT NULL,
        cancel_requested INTEGER NOT NULL,
        started_ms INTEGER,
        completed_ms INTEGER,
        usage BLOB,
        error BLOB,
        spec BLOB NOT NULL              -- ExecutionSpec
    ) STRICT;
    CREATE INDEX executions_by_session ON executions (session, n);
    CREATE INDEX executions_by_phase ON executions (phase, n);
    CREATE TABLE events (
        execution INTEGER NOT NULL REFERENCES executions (n),
        seq INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        what BLOB NOT NULL,             -- Event, without those two
        PRIMARY KEY (execution, seq)
    ) STRICT, WITHOUT ROWID;
"];

/// A session as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) n: i64,
    pub(super) id: String,
    /// Its skills have no files unless they were asked for.
    pub(super) spec: pb::SessionSpec,
    pub(super) sandbox_id: Option<String>,
    pub(super) created_ms: u64,
    pub(super) used_ms: u64,
    /// Somebody asked for it to be deleted, and it will be.
    pub(super) deleting: bool,
}

/// An execution without what it is about, which is all that most changes need.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) n: i64,
    pub(super) id: String,
    pub(super) session: i64,
    pub(super) session_id: String,
    pub(super) max_attempts: u32,
    pub(super) created_ms: u64,
    /// Without messages, and whatever else is only among the events.
    pub(super) status: pb::ExecutionStatus,
}

/// An execution as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Execution {
    pub(super) head: Head,
    pub(super) spec: pb::ExecutionSpec,
}

/// An execution that is about to be stored.
#[derive(Debug)]
pub(super) struct NewExecution<'a> {
    pub(super) id: &'a str,
    pub(super) session: i64,
    pub(super) key: Option<&'a str>,
    pub(super) spec: &'a pb::ExecutionSpec,
    pub(super) created_ms: u64,
}

/// What there is of an execution `e`, but for what it is about.
pub(super) const HEAD: &str =
    "e.n, e.id, e.session, (SELECT s.id FROM sessions AS s WHERE s.n = e.session) AS session_id,
     e.max_attempts, e.created_ms, e.seq, e.phase, e.attempt, e.runner_id, e.cancel_requested,
     e.started_ms, e.completed_ms, e.usage, e.error";
/// What there is of a session `s`, but for the files of its skills.
pub(super) const SESSION: &str =
    "s.n, s.id, s.created_ms, s.used_ms, s.sandbox_id, s.deleting, s.spec";

/// Adds a session.
pub(super) fn insert_session(
    connection: &Connection,
    id: &str,
    spec: &pb::SessionSpec,
    now_ms: u64,
) -> Result<i64> {
    let mut spec = spec.clone();
    let mut skills = pb::AgentSpec::default();
    for skill in spec.agent.iter_mut().flat_map(|agent| &mut agent.skills) {
        let bare = pb::Skill {
            files: Vec::new(),
            ..skill.clone()
        };
        skills.skills.push(std::mem::replace(skill, bare));
    }
    connection
        .prepare_cached(
            "INSERT INTO sessions (id, labels, created_ms, used_ms, sandbox_id, spec, skills)
             VALUES (:id, :labels, :now_ms, :now_ms, :sandbox_id, :spec, :skills)",
        )?
        .insert(named_params! {
            ":id": id,
            ":labels": serde_json::json!(spec.labels).to_string(),
            ":now_ms": signed(now_ms),
            ":sandbox_id": spec.sandbox_id,
            ":spec": spec.encode_to_vec(),
            ":skills": skills.encode_to_vec(),
        })
}

/// A session by its id, with the files of its skills if they are wanted.
pub(super) fn session(connection: &Connection, id: &str, files: bool) -> Result<Option<Session>> {
    let skills = if files { "s.skills" } else { "NULL AS skills" };
    connection
        .prepare_cached(&format!(
            "SELECT {SESSION}, {skills} FROM sessions AS s WHERE s.id = ?1"
        ))?
        .query_row([id], |row| {
            let mut session = read_session(row)?;
            if let Some(skills) = decoded::<pb::AgentSpec>(row, "skills")?
                && let Some(agent) = &mut session.spec.agent
            {
                agent.skills = skills.skills;
            }
            Ok(session)
        })
        .optional()
}

/// Binds a session to its sandbox, unless it is bound, and gives the one that
/// it is bound to then. `None`: there is no such session.
pub(super) fn bind(connection: &Connection, id: &str, sandbox_id: &str) -> Result<Option<String>> {
    connection
        .prepare_cached("UPDATE sessions SET sandbox_id = ?2 WHERE id = ?1 AND sandbox_id IS NULL")?
        .execute(params![id, sandbox_id])?;
    connection
        .prepare_cached("SELECT sandbox_id FROM sessions WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()
}

pub(super) fn touch_session(connection: &Connection, n: i64, now_ms: u64) -> Result<()> {
    connection
        .prepare_cached("UPDATE sessions SET used_ms = max(used_ms, ?2) WHERE n = ?1")?
        .execute(params![n, signed(now_ms)])
        .map(|_| ())
}

/// Notes that a session is to be deleted.
pub(super) fn mark_deleting(connection: &Connection, n: i64) -> Result<()> {
    connection
        .prepare_cached("UPDATE sessions SET deleting = 1 WHERE n = ?1")?
        .execute([n])
        .map(|_| ())
}

/// The sessions that are to be deleted.
pub(super) fn deleting(connection: &Connection) -> Result<Vec<String>> {
    connection
        .prepare("SELECT id FROM sessions WHERE deleting = 1")?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// Deletes up to so many events of a session, and when there are none left, its
/// executions and itself. Says whether it is gone. In steps, because a session
/// may have a million events, and nobody else can write meanwhile.
pub(super) fn delete_some(connection: &mut Connection, n: i64, events: u32) -> Result<bool> {
    let transaction = connection.transaction()?;
    let deleted = transaction
        .prepare_cached(
            "DELETE FROM events WHERE (execution, seq) IN (
                 SELECT v.execution, v.seq FROM executions AS e
                 CROSS JOIN events AS v ON v.execution = e.n
                 WHERE e.session = ?1 LIMIT ?2)",
        )?
        .execute(params![n, events])?;
    let gone = deleted < events as usize;
    if gone {
        transaction.execute("DELETE FROM executions WHERE session = ?1", [n])?;
        transaction.execute("DELETE FROM sessions WHERE n = ?1", [n])?;
    }
    transaction.commit()?;
    Ok(gone)
}

/// Adds an execution, of which nothing has happened yet.
pub(super) fn insert_execution(connection: &Connection, new: &NewExecution<'_>) -> Result<Head> {
    let n = connection
        .prepare_cached(
            "INSERT INTO executions (id, session, key, labels, created_ms, max_attempts,
                 seq, phase, attempt, runner_id, cancel_requested, spec)
             VALUES (:id, :session, :key, :labels, :created_ms, :max_attempts, 0, 0, 0, '', 0, :spec)",
        )?
        .insert(named_params! {
            ":id": new.id,
            ":session": new.session,
            ":key": new.key,
            ":labels": serde_json::json!(new.spec.labels).to_string(),
            ":created_ms": signed(new.created_ms),
            ":max_attempts": new.spec.max_attempts.unwrap_or(1),
            ":spec": new.spec.encode_to_vec(),
        })?;
    connection
        .prepare_cached(&format!(
            "SELECT {HEAD} FROM executions AS e WHERE e.n = ?1"
        ))?
        .query_row([n], read_head)
}

/// What is kept beside the events of an execution, by its id.
pub(super) fn head(connection: &Connection, id: &str) -> Result<Option<Head>> {
    connection
        .prepare_cached(&format!(
            "SELECT {HEAD} FROM executions AS e WHERE e.id = ?1"
        ))?
        .query_row([id], read_head)
        .optional()
}

/// The same, by its number.
pub(super) fn head_at(connection: &Connection, n: i64) -> Result<Head> {
    connection
        .prepare_cached(&format!(
            "SELECT {HEAD} FROM executions AS e WHERE e.n = ?1"
        ))?
        .query_row([n], read_head)
}

/// An execution by its id.
pub(super) fn execution(connection: &Connection, id: &str) -> Result<Option<Execution>> {
    connection
        .prepare_cached(&format!(
            "SELECT {HEAD}, e.spec FROM executions AS e WHERE e.id = ?1"
        ))?
        .query_row([id], read_execution)
        .optional()
}

/// The execution that was created with this key.
pub(super) fn execution_with_key(connection: &Connection, key: &str) -> Result<Option<Execution>> {
    connection
        .prepare_cached(&format!(
            "SELECT {HEAD}, e.spec FROM executions AS e WHERE e.key = ?1"
        ))?
        .query_row([key], read_execution)
        .optional()
}

/// All executions in one of these phases, in the order they were created.
pub(super) fn in_phase(connection: &Connection, phase: pb::Phase) -> Result<Vec<Execution>> {
    connection
        .prepare(&format!(
            "SELECT {HEAD}, e.spec FROM executions AS e WHERE e.phase = ?1 ORDER BY e.n"
        ))?
        .query_map([i32::from(phase)], read_execution)?
        .collect()
}

/// The executions of a session in one of these phases, in order.
pub(super) fn open_in_session(connection: &Connection, session: i64) -> Result<Vec<Head>> {
    connection
        .prepare_cached(&format!(
            "SELECT {HEAD} FROM executions AS e
             WHERE e.session = ?1 AND +e.phase IN (?2, ?3) ORDER BY e.n"
        ))?
        .query_map(
            params![
                session,
                i32::from(pb::Phase::Pending),
                i32::from(pb::Phase::InProgress)
            ],
            read_head,
        )?
        .collect()
}

/// Adds events, which have their numbers, and what the whole record amounts to
/// with them. Belongs into a transaction.
pub(super) fn append(
    connection: &Connection,
    n: i64,
    events: Vec<pb::Event>,
    status: &pb::ExecutionStatus,
) -> Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO events (execution, seq, at_ms, what) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for event in events {
        let (seq, at_ms) = (signed(event.seq), signed(event.at_ms));
        let what = pb::Event {
            seq: 0,
            at_ms: 0,
            ..event
        };
        insert.execute(params![n, seq, at_ms, what.encode_to_vec()])?;
    }
    connection
        .prepare_cached(
            "UPDATE executions SET seq = :seq, phase = :phase, attempt = :attempt, runner_id = :runner_id,
                 cancel_requested = :cancel_requested, started_ms = :started_ms,
                 completed_ms = :completed_ms, usage = :usage, error = :error
             WHERE n = :n",
        )?
        .execute(named_params! {
            ":n": n,
            ":seq": signed(status.seq),
            ":phase": status.phase,
            ":attempt": status.attempt,
            ":runner_id": status.runner_id,
            ":cancel_requested": status.cancel_requested,
            ":started_ms": status.started_ms.map(signed),
            ":completed_ms": status.completed_ms.map(signed),
            ":usage": status.usage.as_ref().map(Message::encode_to_vec),
            ":error": status.error.as_ref().map(Message::encode_to_vec),
        })
        .map(|_| ())
}

/// The events of an execution from `from` to `to`, as many as fit into so many
/// bytes, and one at least.
pub(super) fn events(
    connection: &Connection,
    n: i64,
    from: u64,
    to: u64,
    bytes: usize,
) -> Result<Vec<pb::Event>> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, at_ms, what FROM events
         WHERE execution = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq",
    )?;
    let mut rows = statement.query(params![n, signed(from), signed(to)])?;
    let mut page = Vec::new();
    let mut size = 0;
    while size < bytes
        && let Some(row) = rows.next()?
    {
        let what = row.get_ref("what")?.as_bytes()?;
        // An event costs its reader more than its bytes.
        size += what.len() + 64;
        let event = pb::Event::decode(what).map_err(broken)?;
        page.push(pb::Event {
            seq: row.get("seq").map(unsigned)?,
            at_ms: row.get("at_ms").map(unsigned)?,
            ..event
        });
    }
    Ok(page)
}

pub(super) fn read_session(row: &Row<'_>) -> Result<Session> {
    Ok(Session {
        n: row.get("n")?,
        id: row.get("id")?,
        spec: decoded(row, "spec")?.unwrap_or_default(),
        sandbox_id: row.get("sandbox_id")?,
        created_ms: row.get("created_ms").map(unsigned)?,
        used_ms: row.get("used_ms").map(unsigned)?,
        deleting: row.get("deleting")?,
    })
}

fn read_head(row: &Row<'_>) -> Result<Head> {
    let status = pb::ExecutionStatus {
        phase: row.get("phase")?,
        usage: decoded(row, "usage")?,
        error: decoded::<sandbox::Error>(row, "error")?,
        attempt: row.get("attempt")?,
        runner_id: row.get("runner_id")?,
        cancel_requested: row.get("cancel_requested")?,
        started_ms: row.get::<_, Option<i64>>("started_ms")?.map(unsigned),
        completed_ms: row.get::<_, Option<i64>>("completed_ms")?.map(unsigned),
        seq: row.get("seq").map(unsigned)?,
        ..Default::default()
    };
    Ok(Head {
        n: row.get("n")?,
        id: row.get("id")?,
        session: row.get("session")?,
        session_id: row.get("session_id")?,
        max_attempts: row.get("max_attempts")?,
        created_ms: row.get("created_ms").map(unsigned)?,
        status,
    })
}

pub(super) fn read_execution(row: &Row<'_>) -> Result<Execution> {
    Ok(Execution {
        head: read_head(row)?,
        spec: decoded(row, "spec")?.unwrap_or_default(),
    })
}

fn decoded<M: Message + Default>(row: &Row<'_>, column: &str) -> Result<Option<M>> {
    match row.get_ref(column)?.as_bytes_or_null()? {
        Some(bytes) => M::decode(bytes).map(Some).map_err(broken),
        None => Ok(None),
    }
}

fn broken(error: prost::DecodeError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, error.into())
}
