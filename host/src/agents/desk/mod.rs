//! The one who hands out work, and writes down what became of it.
//!
//! ```text
//!             Create                       begin
//!  (nothing) ───────▶ PENDING ──▶ reserved ──────▶ leased ──▶ final
//!                     ▲  │           │ claimant       │ │
//!                     │  │ Cancel    │ is gone        │ │ lapsed, runner gone,
//!                     │  ▼           │                │ │ given back
//!                     │ CANCELLED    │                │ │
//!                     └──────────────┴────────────────┘ └▶ FAILED, CANCELLED
//! ```
//!
//! A [`Desk`] is owned by the thread of its connection ([`Owner`]), so that
//! everything that happens to executions happens one after the other, and what
//! is in memory changes together with what is on disk: first the commit, then
//! the rest. A job that fails to commit has changed nothing.
//!
//! In memory only, and gone with the daemon: runners, leases, secrets, and who
//! waits for what. What was at work when a daemon ended is sorted out when the
//! next one opens the file ([`Desk::recover`]).

mod cancel;
mod claim;
mod create;
mod lease;
mod runner;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use stigmer_sdk::wire::agent::{self as pb, event::What};
use stigmer_sdk::wire::host::RegisteredRunner;
use stigmer_sdk::{Error, ErrorCode, Result};
use tokio::sync::{Notify, oneshot, watch};

pub(super) use self::claim::{Claim, Handout, Reservation};
pub(super) use self::create::{In, NewSession};
use self::lease::{Ended, Lease, Lost};
pub use self::runner::Registration;
use self::runner::{Runner, Waiting};
use super::fold::{self, is_final};
use super::line::{Line, Place};
use super::secrets::{Mask, Secrets};
use super::store::{self, Head};
use crate::sandboxes::Clock;
use crate::sqlite::{self, Owner};

/// How long things may take. In one place, so that tests can be quick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Of a lease that is not renewed.
    pub(super) lease: Duration,
    /// Between the request to cancel and the end of it, if the runner does not
    /// say that it stopped.
    pub(super) cancel: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            // A runner renews every third of it, and a machine that is too busy
            // for three of those in a row is as good as gone.
            lease: Duration::from_secs(15),
            // What a command has between SIGTERM and SIGKILL.
            cancel: Duration::from_secs(5),
        }
    }
}

/// How late a deadline may be noticed before that says more of this daemon than
/// of its runners.
const LATE: Duration = Duration::from_secs(2);

/// How far the record of an execution goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) seq: u64,
    /// Nothing follows.
    pub(super) over: bool,
}

impl Progress {
    pub(super) fn of(status: &pb::ExecutionStatus) -> Self {
        Self {
            seq: status.seq,
            over: is_final(status.phase()),
        }
    }
}

/// Who has an execution that is out.
#[derive(Debug)]
enum Held {
    /// It is being prepared for a runner: still PENDING.
    Reserved,
    Leased(Lease),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Desk {
    db: Connection,
    clock: Clock,
    timing: Timing,
    /// For what gives itself back when it is dropped. Weak, because the thread
    /// ends with the last handle.
    own: Weak<Owner<Desk>>,
    line: Line,
    held: HashMap<i64, Held>,
    /// Leases that ended with a final phase, so that a last report that is
    /// repeated is answered again.
    ended: VecDeque<Ended>,
    runners: HashMap<String, Runner>,
    /// How many there have been.
    registrations: u64,
    /// Claims that wait for work, the longest first.
    waiting: VecDeque<Waiting>,
    registered: watch::Sender<Vec<RegisteredRunner>>,
    execution_secrets: HashMap<i64, Secrets>,
    session_secrets: HashMap<i64, Secrets>,
    /// How often an execution was handed out and not heard of.
    unheard: HashMap<i64, u32>,
    /// Those that somebody follows.
    feeds: HashMap<i64, watch::Sender<Progress>>,
    /// Who waits for a session to have nothing that waits or is out.
    idle: HashMap<i64, Vec<oneshot::Sender<()>>>,
    /// Told when there is a deadline that is not waited for yet.
    deadlines: Arc<Notify>,
    /// Why the daemon's own runner stays down.
    down: Option<String>,
    /// The daemon is ending: nothing is handed out, and a runner that leaves
    /// has not failed.
    closing: bool,
}

impl Desk {
    pub(super) fn new(
        db: Connection,
        timing: Timing,
        registered: watch::Sender<Vec<RegisteredRunner>>,
        deadlines: Arc<Notify>,
    ) -> Self {
        Self {
            db,
            clock: Clock::system(),
            timing,
            own: Weak::new(),
            line: Line::default(),
            held: HashMap::new(),
            ended: VecDeque::new(),
            runners: HashMap::new(),
            registrations: 0,
            waiting: VecDeque::new(),
            registered,
            execution_secrets: HashMap::new(),
            session_secrets: HashMap::new(),
            unheard: HashMap::new(),
            feeds: HashMap::new(),
            idle: HashMap::new(),
            deadlines,
            down: None,
            closing: false,
        }
    }

    /// Starts the thread that owns it.
    pub(super) fn start(self) -> Result<Arc<Owner<Self>>> {
        let owner = Arc::new(Owner::start("agents", self)?);
        let own = Arc::downgrade(&owner);
        owner.post(move |desk| desk.own = own);
        Ok(owner)
    }

    /// Sorts out what an earlier daemon left: what was at work is PENDING again
    /// or over, and what waited goes on waiting, unless it cannot be done any
    /// more without its secrets. To be called once, first.
    pub(super) fn recover(&mut self) -> Result<()> {
        let lost = store::in_phase(&self.db, pb::Phase::InProgress).map_err(failed)?;
        for execution in lost {
            let mut head = execution.head;
            let change = Lost::DaemonEnded.after(&head);
            self.record(&mut head, vec![event(What::Phase(change))])?;
        }
        for execution in store::in_phase(&self.db, pb::Phase::Pending).map_err(failed)? {
            let mut head = execution.head;
            let missing = Secrets::default().missing(&execution.spec.env);
            if missing.is_empty() {
                self.line.push(place(&head));
            } else {
                self.fail(&mut head, &secrets_lost(&missing))?;
            }
        }
        Ok(())
    }

    /// The daemon is ending.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.waiting.clear();
    }

    /// Appends events to the record of an execution, all or none, and tells
    /// those who follow it. The one place that writes an event.
    fn record(&mut self, head: &mut Head, mut events: Vec<pb::Event>) -> Result<()> {
        let now_ms = self.clock.now_ms();
        let mask = Mask::of(
            self.execution_secrets
                .get(&head.n)
                .into_iter()
                .chain(self.session_secrets.get(&head.session)),
        );
        let mut status = head.status.clone();
        for event in &mut events {
            mask.event(event);
            event.seq = status.seq + 1;
            // A runner knows better when it was, but for one whose clock is ahead.
            if event.at_ms == 0 || event.at_ms > now_ms {
                event.at_ms = now_ms;
            }
            fold::summary(&mut status, event);
        }
        let progress = Progress::of(&status);
        let transaction = self.db.transaction().map_err(failed)?;
        store::append(&transaction, head.n, events, &status).map_err(failed)?;
        if progress.over {
            store::touch_session(&transaction, head.session, now_ms).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        head.status = status;
        if let Some(feed) = self.feeds.get(&head.n) {
            feed.send_replace(progress);
            if progress.over || feed.receiver_count() == 0 {
                self.feeds.remove(&head.n);
            }
        }
        if progress.over {
            self.execution_secrets.remove(&head.n);
            self.unheard.remove(&head.n);
        }
        Ok(())
    }

    /// Records that an execution that is out with nobody FAILED.
    fn fail(&mut self, head: &mut Head, error: &Error) -> Result<()> {
        let change = pb::PhaseChange {
            phase: pb::Phase::Failed.into(),
            attempt: head.status.attempt,
            runner_id: head.status.runner_id.clone(),
            error: Some(error.into()),
        };
        self.record(head, vec![event(What::Phase(change))])
    }

    /// An execution that was out is so no more: it waits again, or is over.
    fn settle(&mut self, head: &Head) {
        self.held.remove(&head.n);
        if head.status.phase() == pb::Phase::Pending {
            self.line.push(place(head));
        }
        self.line.back(head.session);
        self.show_runners();
        self.wake_idle(head.session);
        self.dispatch();
    }

    /// Tells those who wait for a session to be idle that it is.
    fn wake_idle(&mut self, session: i64) {
        if self.line.is_idle(session) {
            for waiting in self.idle.remove(&session).unwrap_or_default() {
                // Whoever asked may have given up.
                waiting.send(()).ok();
            }
        }
    }

    fn head(&self, execution_id: &str) -> Result<Head> {
        store::head(&self.db, execution_id)
            .map_err(failed)?
            .ok_or_else(|| no_execution(execution_id))
    }

    /// Lets somebody follow an execution from where it is now.
    pub(super) fn follow(
        &mut self,
        execution_id: &str,
    ) -> Result<(i64, watch::Receiver<Progress>)> {
        let head = self.head(execution_id)?;
        let progress = Progress::of(&head.status);
        if progress.over {
            return Ok((head.n, watch::channel(progress).1));
        }
        let feed = self
            .feeds
            .entry(head.n)
            .or_insert_with(|| watch::channel(progress).0);
        Ok((head.n, feed.subscribe()))
    }

    /// Does what is due, and says when to ask again.
    ///
    /// A daemon that was itself stopped or starved is no judge of others: if the
    /// first deadline is long past, nobody could have kept it, and all get
    /// another term.
    pub(super) fn lapse(&mut self, now: Instant) -> Option<Instant> {
        let late = self.deadlines().is_some_and(|first| now > first + LATE);
        let mut due = Vec::new();
        for (&n, held) in &mut self.held {
            let Held::Leased(lease) = held else { continue };
            if late && lease.lost.is_none() {
                lease.until = now + self.timing.lease;
                lease.cancel = lease.cancel.map(|_| now + self.timing.cancel);
            }
            if let Some(why) = lease.due(now) {
                due.push((n, why));
            }
        }
        for (n, why) in due {
            self.lose_or_retry(n, why, now);
        }
        self.deadlines()
    }

    /// As if the disk had no room for more than this many pages beyond what is
    /// used; `None`: for as many as there may be.
    #[cfg(test)]
    pub(super) fn fill_disk(&mut self, room: Option<u32>) {
        let used: u32 = self
            .db
            .pragma_query_value(None, "page_count", |row| row.get(0))
            .unwrap();
        let most = room.map_or(u32::MAX >> 1, |room| used + room);
        self.db
            .pragma_update_and_check(None, "max_page_count", most, |_| Ok(()))
            .unwrap();
    }

    fn deadlines(&self) -> Option<Instant> {
        let leases = self.held.values().filter_map(|held| match held {
            Held::Leased(lease) => Some(lease),
            Held::Reserved => None,
        });
        leases.map(Lease::deadline).min()
    }
}

/// An event that the daemon itself has to tell.
fn event(what: What) -> pb::Event {
    pb::Event {
        what: Some(what),
        ..Default::default()
    }
}

fn place(head: &Head) -> Place {
    Place {
        execution: head.n,
        session: head.session,
    }
}

pub(super) fn failed(error: rusqlite::Error) -> Error {
    sqlite::failed("the record of executions failed", error)
}

pub(super) fn no_execution(id: &str) -> Error {
    unknown("execution", id)
}

pub(super) fn no_session(id: &str) -> Error {
    unknown("session", id)
}

fn unknown(what: &str, id: &str) -> Error {
    let shown: String = id.chars().take(80).collect();
    let message = format!("there is no {what} '{}'", shown.escape_debug());
    Error::new(ErrorCode::NotFound, message)
}

fn secrets_lost(names: &[String]) -> Error {
    Error::new(
        ErrorCode::Unavailable,
        format!(
            "the secret {} lost when the daemon was restarted, because secrets are kept in memory only; \
             send the message again with {}",
            match names {
                [name] => format!("variable {name} was"),
                names => format!("variables {} were", names.join(", ")),
            },
            if names.len() == 1 { "it" } else { "them" },
        ),
    )
}
