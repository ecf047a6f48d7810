//! What is known of sandboxes, on disk: `stigmer.db` in the data directory,
//! owned by one thread (see [`sqlite`](crate::sqlite)).

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};
use stigmer_sdk::Result;

use crate::sqlite::{self, Owner, signed, unsigned};

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

/// A handle on the thread that owns the file. The thread ends with it.
#[derive(Debug)]
pub struct Store(Owner<Connection>);

impl Store {
    /// Opens the file, creates it, or brings it up to date.
    ///
    /// # Errors
    /// `Internal` if it cannot be read or written, or is from a later version.
    pub fn open(path: &Path) -> Result<Self> {
        let connection = sqlite::open(path, "sandbox registry", MIGRATIONS)?;
        Ok(Self(Owner::start("store", connection)?))
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.0
            .ask(|connection| {
                work(connection)
                    .map_err(|error| sqlite::failed("the sandbox registry failed", error))
            })
            .await
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
        self.0.post(move |connection| {
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

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
