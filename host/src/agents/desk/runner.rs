//! Runners, for as long as they hold their Register call open.

use std::sync::Weak;
use std::time::Instant;

use stigmer_sdk::wire::agent::{self as pb, register_response};
use stigmer_sdk::wire::host::RegisteredRunner;
use stigmer_sdk::{Error, ErrorCode, Result};
use tokio::sync::{mpsc, oneshot};

use super::super::store;
use super::claim::Reservation;
use super::lease::Lost;
use super::{Desk, Held, Owner, failed, place};

/// What a runner has not read yet. It reads nothing else, so one that leaves so
/// much lie does not read at all.
const INSTRUCTIONS: usize = 256;

/// One that is registered.
#[derive(Debug)]
pub(super) struct Runner {
    /// Tells this registration from a later one with the same name.
    number: u64,
    shown: RegisteredRunner,
    instructions: mpsc::Sender<pb::RegisterResponse>,
}

/// A claim that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) runner_id: String,
    pub(super) reply: oneshot::Sender<Reservation>,
}

/// A runner's place at the desk, which it leaves when this is dropped. What it
/// held then is taken from it.
#[derive(Debug)]
pub struct Registration {
    /// What is asked of it, as soon as it is asked.
    pub instructions: mpsc::Receiver<pb::RegisterResponse>,
    own: Weak<Owner<Desk>>,
    runner_id: String,
    number: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(own) = self.own.upgrade() {
            let (runner_id, number) = (std::mem::take(&mut self.runner_id), self.number);
            own.post(move |desk| desk.unregister(&runner_id, number));
        }
    }
}

impl Desk {
    pub(in super::super) fn register(
        &mut self,
        request: pb::RegisterRequest,
    ) -> Result<Registration> {
        let runner_id = request.runner_id;
        if self.runners.contains_key(&runner_id) {
            return Err(Error::new(
                ErrorCode::AlreadyExists,
                format!("a runner '{runner_id}' is registered already"),
            ));
        }
        let (instructions, receiver) = mpsc::channel(INSTRUCTIONS);
        let number = self.registrations;
        self.registrations += 1;
        let shown = RegisteredRunner {
            runner_id: runner_id.clone(),
            pid: request.pid,
            version: request.version,
            provider: request.provider,
            model: request.model,
            registered_ms: self.clock.now_ms(),
            executions: Vec::new(),
        };
        let runner = Runner {
            number,
            shown,
            instructions,
        };
        tracing::info!(runner = runner_id, pid = request.pid, "a runner registered");
        self.runners.insert(runner_id.clone(), runner);
        let ttl = u64::try_from(self.timing.lease.as_millis()).unwrap_or(u64::MAX);
        let hello = register_response::Registered { lease_ttl_ms: ttl };
        self.instruct(&runner_id, register_response::What::Registered(hello));
        self.show_runners();
        Ok(Registration {
            instructions: receiver,
            own: self.own.clone(),
            runner_id,
            number,
        })
    }

    /// A runner's call ended, and so it did.
    fn unregister(&mut self, runner_id: &str, number: u64) {
        if self
            .runners
            .get(runner_id)
            .is_some_and(|runner| runner.number == number)
        {
            self.remove_runner(runner_id);
        }
    }

    fn remove_runner(&mut self, runner_id: &str) {
        self.runners.remove(runner_id);
        self.waiting
            .retain(|waiting| waiting.runner_id != runner_id);
        tracing::info!(runner = runner_id, "a runner is gone");
        if !self.closing {
            let leases = self.held.iter().filter(|(_, held)| match held {
                Held::Leased(lease) => lease.runner_id == runner_id,
                Held::Reserved => false,
            });
            let held: Vec<i64> = leases.map(|(&n, _)| n).collect();
            for n in held {
                self.lose_or_retry(n, Lost::RunnerGone, Instant::now());
            }
        }
        self.show_runners();
        if let Err(error) = self.fail_waiting() {
            tracing::error!(%error, "cannot end what waits for a runner");
        }
    }

    /// The daemon's own runner stays down. While there is no other, what waits
    /// FAILS, and so does what comes.
    pub(in super::super) fn give_up(&mut self, why: String) -> Result<()> {
        self.down = Some(why);
        self.fail_waiting()
    }

    fn fail_waiting(&mut self) -> Result<()> {
        let Some(error) = self.nobody_comes() else {
            return Ok(());
        };
        for execution in store::in_phase(&self.db, pb::Phase::Pending).map_err(failed)? {
            let mut head = execution.head;
            if !self.held.contains_key(&head.n) {
                self.fail(&mut head, &error)?;
                self.line.remove(place(&head));
                self.wake_idle(head.session);
            }
        }
        Ok(())
    }

    /// Why nobody will take any work, if so.
    pub(super) fn nobody_comes(&self) -> Option<Error> {
        let why = self.down.as_ref().filter(|_| self.runners.is_empty())?;
        let message = format!(
            "no agent runner takes work, since the daemon's own ended too often; the last time it {why}. \
             See `stigmer local logs --component agent-runner`, then `stigmer local restart`"
        );
        Some(Error::new(ErrorCode::Unavailable, message))
    }

    pub(super) fn is_registered(&self, runner_id: &str) -> bool {
        self.runners.contains_key(runner_id)
    }

    /// Asks something of a runner. One that does not listen is let go.
    pub(super) fn instruct(&mut self, runner_id: &str, what: register_response::What) {
        let response = pb::RegisterResponse { what: Some(what) };
        let Some(runner) = self.runners.get(runner_id) else {
            return;
        };
        if runner.instructions.try_send(response).is_err() {
            tracing::warn!(runner = runner_id, "a runner does not read what it is told");
            self.remove_runner(runner_id);
        }
    }

    /// Shows who is registered, with what they hold, to those who look.
    pub(super) fn show_runners(&self) {
        let mut shown: Vec<RegisteredRunner> = self
            .runners
            .values()
            .map(|runner| {
                let mut shown = runner.shown.clone();
                let leases = self.held.values().filter_map(|held| match held {
                    Held::Leased(lease) if lease.runner_id == shown.runner_id => Some(lease),
                    Held::Leased(_) | Held::Reserved => None,
                });
                shown.executions = leases.map(|lease| lease.execution_id.clone()).collect();
                shown.executions.sort_unstable();
                shown
            })
            .collect();
        shown.sort_unstable_by(|a, b| a.runner_id.cmp(&b.runner_id));
        self.registered.send_if_modified(|before| {
            let changed = *before != shown;
            *before = shown;
            changed
        });
    }
}
