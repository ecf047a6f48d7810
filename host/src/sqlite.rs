//! What every file of SQLite here has in common: how it is opened, brought up
//! to date, and owned.
//!
//! One thread owns a connection. SQLite blocks, so it cannot run on the
//! runtime's workers, and a single writer needs no pool; a thread of its own
//! keeps the order of what it is told, so that a caller may post a change
//! without waiting and still read it back. What is asked of it is done to its
//! end also when the caller goes away.
//!
//! WAL with `synchronous = NORMAL` commits without waiting for the disk. A
//! daemon that is killed loses nothing; a machine that loses power may lose
//! the last changes, and never the file.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use rusqlite::Connection;
use stigmer_sdk::{Error, ErrorCode, Result};
use tokio::sync::oneshot;

/// Opens a file, creates it, or brings it up to date. `what` is the file's
/// purpose, and each of the migrations brings it from the version of its index
/// to the next; one that was released is never edited.
///
/// # Errors
/// `Internal` if it cannot be read or written, or is from a later version.
pub(crate) fn open(path: &Path, what: &str, migrations: &[&str]) -> Result<Connection> {
    let mut connection = connect(path).map_err(|error| {
        let what = format!("cannot open the {what} {}", path.display());
        failed(&what, error)
    })?;
    migrate(&mut connection, path, migrations)?;
    Ok(connection)
}

/// Opens a second connection to a file that is open, for those who only read.
///
/// # Errors
/// `Internal` if it cannot be read.
pub(crate) fn open_reader(path: &Path, what: &str) -> Result<Connection> {
    let cannot = |error| failed(&format!("cannot read the {what} {}", path.display()), error);
    let connection = connect(path).map_err(cannot)?;
    connection
        .pragma_update(None, "query_only", "ON")
        .map_err(cannot)?;
    Ok(connection)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    // Only a person with a database browser can hold it.
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Brings a file that is open up to date; `path` is for errors.
pub(crate) fn migrate(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<()> {
    let cannot = |error| {
        failed(
            &format!("cannot bring {} up to date", path.display()),
            error,
        )
    };
    let version: u32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(cannot)?;
    let Some(steps) = usize::try_from(version)
        .ok()
        .and_then(|done| migrations.get(done..))
    else {
        return Err(Error::new(
            ErrorCode::Internal,
            format!(
                "{} has version {version}, and this stigmer knows those up to {}: \
                 it was written by a later one, which is the one to run",
                path.display(),
                migrations.len()
            ),
        ));
    };
    for (next, step) in (version + 1..).zip(steps) {
        let transaction = connection.transaction().map_err(cannot)?;
        transaction.execute_batch(step).map_err(cannot)?;
        transaction
            .pragma_update(None, "user_version", next)
            .map_err(cannot)?;
        transaction.commit().map_err(cannot)?;
    }
    Ok(())
}

/// The error for a statement that failed. A full disk is the one failure that
/// whoever asked can do something about.
pub(crate) fn failed(what: &str, error: rusqlite::Error) -> Error {
    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
        return Error::new(ErrorCode::Exhausted, format!("{what}: the disk is full"))
            .with_source(error);
    }
    Error::internal(what, error)
}

/// SQLite's integers are signed. Milliseconds up to the year 292 million fit,
/// and a number beyond is as good as the largest.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The reverse of [`signed`].
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// A handle on the thread that owns a value: a connection, and whatever has to
/// change together with what is in the file. The thread ends with the handle,
/// after what it was asked for.
#[derive(Debug)]
pub(crate) struct Owner<T> {
    jobs: mpsc::Sender<Job<T>>,
}

impl<T: Send + 'static> Owner<T> {
    /// Starts the thread. `name` is for debuggers.
    pub(crate) fn start(name: &str, mut value: T) -> Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job<T>>();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                for job in queue {
                    job(&mut value);
                }
            })
            .map_err(|error| Error::internal(format!("cannot start the thread '{name}'"), error))?;
        Ok(Self { jobs })
    }

    /// Does this, after all that was asked for before, and answers.
    ///
    /// # Errors
    /// Those of `work`; `Internal` if the thread has stopped, which takes a panic.
    pub(crate) async fn ask<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut T) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let (reply, answer) = oneshot::channel();
        self.post(move |value| {
            // An answer that nobody waits for any more is not missed.
            drop(reply.send(work(value)));
        });
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(Error::new(
                ErrorCode::Internal,
                "the thread of the database has stopped",
            )),
        }
    }

    /// Does this, after all that was asked for before, without an answer.
    pub(crate) fn post(&self, job: impl FnOnce(&mut T) + Send + 'static) {
        // It can only fail if a job panicked, and then each `ask` says so.
        drop(self.jobs.send(Box::new(job)));
    }
}
