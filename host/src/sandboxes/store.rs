//! What is known of sandboxes, on disk: `stigmer.db` in the data directory.
//!
//! One thread owns the connection. SQLite blocks, so it cannot run on the
//! runtime's workers, and a single writer needs no pool; a thread of its own
//! keeps the order of what it is told, so that a caller may post a change
//! without waiting and still read it back.
//!
//! WAL with `synchronous = NORMAL` commits without waiting for the disk. A
//! daemon that is killed loses nothing; a machine that loses power may lose
//! the last changes, and never the file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc;

use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};
use stigmer_sdk::{Error, ErrorCode, Result};
use tokio::sync::oneshot;

/// Each brings the file from the version of its index to the next. A step that
/// was released is never edited.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE sandboxes (
        id TEXT PRIMARY KEY,        -- backend:backend-id
        backend TEXT NOT NULL,
        name TEXT,
        workspace TEXT NOT NULL,
        shell TEXT NOT NULL,        -- a JSON array of words
        labels TEXT NOT NULL,       -- a JSON object of strings
        created_ms INTEGER NOT NULL,
        used_ms INTEGER NOT NULL,
        lifetime_ms INTEGER,
        idle_ms INTEGER,
        gone_ms INTEGER             -- when its backend said that it is no more
    ) STRICT;
    CREATE UNIQUE INDEX live_names ON sandboxes (name) WHERE gone_ms IS NULL;
    CREATE INDEX in_order ON sandboxes (created_ms, id);
    CREATE INDEX expiring ON sandboxes (id) WHERE lifetime_ms IS NOT NULL OR idle_ms IS NOT NULL OR gone_ms IS NOT NULL;
"];

/// One sandbox that this data directory knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The backend's name, `:`, and the backend's own id.
    pub id: String,
    pub backend: String,
    pub name: Option<String>,
    pub workspace: String,
    pub shell: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub created_ms: u64,
    pub used_ms: u64,
    pub lifetime_ms: Option<u64>,
    pub idle_ms: Option<u64>,
    pub gone_ms: Option<u64>,
}

/// Which records to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// All of these must match.
    pub labels: BTreeMap<String, String>,
    pub backend: Option<String>,
    /// Only what comes after this one, by creation and then id.
    pub after: Option<(u64, String)>,
    pub limit: u32,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle on the thread that owns the file. The thread ends with it.
#[derive(Debug)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
}

impl Store {
    /// Opens the file, creates it, or brings it up to date.
    ///
    /// # Errors
    /// `Internal` if it cannot be read or written, or is from a later version.
    pub fn open(path: &Path) -> Result<Self> {
        let connection = connect(path).map_err(|error| {
            Error::internal(
                format!("cannot open the sandbox registry {}", path.display()),
                error,
            )
        })?;
        Self::serve(connection, path)
    }

    fn serve(mut connection: Connection, path: &Path) -> Result<Self> {
        migrate(&mut connection, path)?;
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                for job in queue {
                    job(&mut connection);
                }
            })
            .map_err(|error| Error::internal("cannot start the registry's thread", error))?;
        Ok(Self { jobs })
    }

    /// Does this, after all that was asked for before, and answers.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.post(move |connection| {
            // An answer that nobody waits for any more is not missed.
            drop(reply.send(work(connection)));
        });
        match answer.await {
            Ok(result) => {
                result.map_err(|error| Error::internal("the sandbox registry failed", error))
            }
            Err(_) => Err(Error::new(
                ErrorCode::Internal,
                "the sandbox registry has stopped",
            )),
        }
    }

    fn post(&self, job: impl FnOnce(&mut Connection) + Send + 'static) {
        // It can only fail if a job panicked, and then each `ask` says so.
        drop(self.jobs.send(Box::new(job)));
    }

    /// Adds a sandbox, or replaces what was known of it.
    pub async fn insert(&self, record: Record) -> Result<()> {
        self.ask(move |connection| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO sandboxes VALUES (:id, :backend, :name, :workspace, :shell,
                     :labels, :created_ms, :used_ms, :lifetime_ms, :idle_ms, :gone_ms)",
                )?
                .execute(named_params! {
                    ":id": record.id,
                    ":backend": record.backend,
                    ":name": record.name,
                    ":workspace": record.workspace,
                    ":shell": serde_json::json!(record.shell).to_string(),
                    ":labels": serde_json::json!(record.labels).to_string(),
                    ":created_ms": signed(record.created_ms),
                    ":used_ms": signed(record.used_ms),
                    ":lifetime_ms": record.lifetime_ms.map(signed),
                    ":idle_ms": record.idle_ms.map(signed),
                    ":gone_ms": record.gone_ms.map(signed),
                })
                .map(|_| ())
        })
        .await
    }

    /// The sandbox with this id, else the live one of this name, else the last
    /// that had it.
    pub async fn find(&self, id_or_name: &str) -> Result<Option<Record>> {
        let wanted = id_or_name.to_owned();
        self.ask(move |connection| {
            connection
                .prepare_cached(
                    "SELECT * FROM sandboxes WHERE id = ?1 OR name = ?1
                     ORDER BY id = ?1 DESC, gone_ms IS NULL DESC, created_ms DESC LIMIT 1",
                )?
                .query_row([wanted], record)
                .optional()
        })
        .await
    }

    /// Sandboxes in the order of their creation.
    pub async fn list(&self, filter: Filter) -> Result<Vec<Record>> {
        self.ask(move |connection| {
            let (created_ms, id) = filter.after.unwrap_or_default();
            connection
                .prepare_cached(
                    "SELECT * FROM sandboxes AS s
                     WHERE (created_ms, id) > (:created_ms, :id)
                       AND (:backend IS NULL OR backend = :backend)
                       AND NOT EXISTS (
                           SELECT 1 FROM json_each(:labels) AS wanted
                           WHERE (SELECT value FROM json_each(s.labels) WHERE key = wanted.key) IS NOT wanted.value)
                     ORDER BY created_ms, id LIMIT :limit",
                )?
                .query_map(
                    named_params! {
                        ":created_ms": signed(created_ms),
                        ":id": id,
                        ":backend": filter.backend,
                        ":labels": serde_json::json!(filter.labels).to_string(),
                        ":limit": filter.limit,
                    },
                    record,
                )?
                .collect()
        })
        .await
    }

    /// Those that have a lifetime or an idle time, and those that are gone.
    pub async fn expiring(&self) -> Result<Vec<Record>> {
        self.ask(|connection| {
            connection
                .prepare_cached(
                    "SELECT * FROM sandboxes
                     WHERE lifetime_ms IS NOT NULL OR idle_ms IS NOT NULL OR gone_ms IS NOT NULL",
                )?
                .query_map([], record)?
                .collect()
        })
        .await
    }

    /// Forgets a sandbox.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.ask(move |connection| {
            connection
                .prepare_cached("DELETE FROM sandboxes WHERE id = ?1")?
                .execute([id])
                .map(|_| ())
        })
        .await
    }

    /// Notes that a sandbox is no more, without waiting.
    pub fn mark_gone(&self, id: &str, now_ms: u64) {
        let id = id.to_owned();
        self.post(move |connection| {
            let result = connection.execute(
                "UPDATE sandboxes SET gone_ms = ?2 WHERE id = ?1 AND gone_ms IS NULL",
                params![id, signed(now_ms)],
            );
            if let Err(error) = result {
                tracing::warn!(%error, sandbox = id, "cannot note that a sandbox is gone");
            }
        });
    }

    /// Notes when sandboxes were last used, all in one commit.
    pub async fn touch(&self, used: Vec<(String, u64)>) -> Result<()> {
        self.ask(move |connection| {
            let transaction = connection.transaction()?;
            {
                let mut update = transaction
                    .prepare_cached("UPDATE sandboxes SET used_ms = ?2 WHERE id = ?1")?;
                for (id, used_ms) in used {
                    update.execute(params![id, signed(used_ms)])?;
                }
            }
            transaction.commit()
        })
        .await
    }

    /// The ids of one backend's sandboxes that are not gone.
    pub async fn live_ids(&self, backend: &str) -> Result<Vec<String>> {
        let backend = backend.to_owned();
        self.ask(|connection| {
            connection
                .prepare("SELECT id FROM sandboxes WHERE backend = ?1 AND gone_ms IS NULL")?
                .query_map([backend], |row| row.get(0))?
                .collect()
        })
        .await
    }

    /// How many sandboxes are known and not gone.
    pub async fn count(&self) -> Result<u64> {
        self.ask(|connection| {
            connection
                .prepare_cached("SELECT count(*) FROM sandboxes WHERE gone_ms IS NULL")?
                .query_row([], |row| row.get(0).map(unsigned))
        })
        .await
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // Only a person with a database browser can hold it.
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<()> {
    let failed =
        |error| Error::internal(format!("cannot bring {} up to date", path.display()), error);
    let version: u32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed)?;
    let Some(steps) = usize::try_from(version)
        .ok()
        .and_then(|done| MIGRATIONS.get(done..))
    else {
        return Err(Error::new(
            ErrorCode::Internal,
            format!(
                "{} has version {version}, and this stigmer knows those up to {}: \
                 it was written by a later one, which is the one to run",
                path.display(),
                MIGRATIONS.len()
            ),
        ));
    };
    for (next, step) in (version + 1..).zip(steps) {
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(step).map_err(failed)?;
        transaction
            .pragma_update(None, "user_version", next)
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    Ok(())
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let json = |column: &str| -> rusqlite::Result<String> { row.get(column) };
    let broken = |error: serde_json::Error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    };
    Ok(Record {
        id: row.get("id")?,
        backend: row.get("backend")?,
        name: row.get("name")?,
        workspace: row.get("workspace")?,
        shell: serde_json::from_str(&json("shell")?).map_err(broken)?,
        labels: serde_json::from_str(&json("labels")?).map_err(broken)?,
        created_ms: row.get("created_ms").map(unsigned)?,
        used_ms: row.get("used_ms").map(unsigned)?,
        lifetime_ms: row.get::<_, Option<i64>>("lifetime_ms")?.map(unsigned),
        idle_ms: row.get::<_, Option<i64>>("idle_ms")?.map(unsigned),
        gone_ms: row.get::<_, Option<i64>>("gone_ms")?.map(unsigned),
    })
}

/// SQLite's integers are signed. Milliseconds up to the year 292 million fit,
/// and a lifetime beyond is as good as the longest.
fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn unsigned(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
