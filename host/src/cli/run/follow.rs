//! Following an execution to its end: the one loop that owns the subscription,
//! the screen, the questions and the person in front of it.
//!
//! It never blocks: writing is a thread's, and answers and cancellations are
//! futures beside the events, so that Ctrl-C is heard at any time.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use stigmer_sdk::Signal;
use stigmer_sdk::wire::agent::{
    CancelExecutionRequest, DecideRequest, Event, Execution, Phase, event::What,
};
use stigmer_sdk::wire::sandbox::ErrorCode;
use tonic::Status;

use super::approval::{Answer, Desk};
use super::render::{Look, Renderer};
use super::screen::Screen;
use super::subscription::{Heard, Subscription, final_phase};
use super::typed::Typed;
use crate::cli::daemon::Daemon;
use crate::cli::exit::{Outcome, Reason};
use crate::cli::failure::{Failure, Result, describe, has_code};
use crate::cli::follow::Signals;
use crate::cli::output::{Output, RawStream};

/// A runner that is alive takes work within milliseconds.
const UNCLAIMED: Duration = Duration::from_secs(10);
/// How long a request to cancel may hold up somebody who leaves.
const PARTING: Duration = Duration::from_secs(1);
/// How many events wait behind a question before they are shown and it is
/// asked again below them.
const HELD: usize = 1000;
/// How many events are shown with one write, if they are there.
const BATCH: usize = 256;

/// What is followed, and how.
#[derive(Debug)]
pub(in crate::cli) struct Watch<'a> {
    pub(in crate::cli) daemon: &'a Daemon,
    pub(in crate::cli) execution: &'a Execution,
    /// The first event to show.
    pub(in crate::cli) from: u64,
    pub(in crate::cli) json: bool,
    /// Whether Ctrl-C cancels it, or only stops watching.
    pub(in crate::cli) owned: bool,
}

/// What came of a call beside the events.
enum Said {
    Decided(Result<(), Status>),
    Cancelled(Result<(), Status>),
}

/// Shows an execution until its end.
pub(in crate::cli) async fn follow(
    watch: Watch<'_>,
    signals: &mut Signals,
    output: &Output,
) -> Result<Outcome> {
    let asks = !watch.json && Typed::possible(output);
    let screen = Screen::new(RawStream::stdout()?, RawStream::stderr()?);
    let look = Look {
        asks,
        humans: !watch.owned,
        ..Look::of(output)
    };
    let (owned, id) = (watch.owned, watch.execution.execution_id.clone());
    let mut following = Following::new(watch, look, screen);
    let mut calls = FuturesUnordered::new();
    let ended = following.run(signals, &mut calls).await;
    if ended.is_err() && following.cancelling {
        // It was promised; a daemon that does not listen must not keep us.
        let _no_answer =
            tokio::time::timeout(PARTING, async { while calls.next().await.is_some() {} }).await;
    }
    if let (true, Err(failure)) = (owned, &ended)
        && failure.reason == Reason::BrokenPipe
    {
        output.note(format!(
            "nobody reads the output any more, and the execution goes on: stigmer execution follow {id}"
        ));
    }
    ended
}

struct Following<'a> {
    watch: Watch<'a>,
    events: Subscription,
    renderer: Renderer,
    screen: Screen,
    desk: Desk,
    typed: Typed,
    asks: bool,
    /// A failure is part of what is shown, and need not be told again.
    told: bool,
    /// Events up to this one are history: what they ask may be answered.
    history: u64,
    /// Events behind a question.
    held: Vec<Event>,
    /// The signal that asked for the end, if we cancel.
    asked: Option<Signal>,
    cancelling: bool,
    /// What is shown is shown to its end before it is over.
    end: Option<Result<(Phase, Option<String>)>>,
}

type Calls = FuturesUnordered<BoxFuture<'static, Said>>;

impl<'a> Following<'a> {
    fn new(watch: Watch<'a>, look: Look, screen: Screen) -> Self {
        let id = watch.execution.execution_id.clone();
        let status = watch.execution.status.as_ref();
        Self {
            events: Subscription::new(watch.daemon.clone(), id, watch.from),
            renderer: if watch.json {
                Renderer::json(watch.execution)
            } else {
                Renderer::plain(look, watch.execution)
            },
            screen,
            desk: Desk::new(status.map_or(&[], |status| &status.approvals)),
            typed: Typed::default(),
            asks: look.asks,
            told: !watch.json && !look.quiet,
            history: status.map_or(0, |status| status.seq),
            held: Vec::new(),
            asked: None,
            cancelling: false,
            end: None,
            watch,
        }
    }

    async fn run(&mut self, signals: &mut Signals, calls: &mut Calls) -> Result<Outcome> {
        let unclaimed = tokio::time::sleep(UNCLAIMED);
        tokio::pin!(unclaimed);
        let mut claimed = false;
        if self.watch.from > self.history {
            self.ask();
        }
        loop {
            if self.screen.is_idle() {
                let pieces = self.renderer.take();
                if !pieces.is_empty() {
                    self.screen.write(pieces);
                } else if let Some(end) = self.end.take() {
                    let (phase, reason) = end?;
                    return self.outcome(phase, reason);
                }
            }
            tokio::select! {
                biased;
                signal = signals.asked() => self.signal(signal, calls)?,
                written = self.screen.written() => written?,
                Some(said) = calls.next(), if !calls.is_empty() => self.said(said),
                line = self.typed.line(), if self.desk.is_asking() => self.line(line, calls),
                () = &mut unclaimed, if !claimed => {
                    claimed = true;
                    self.renderer.note("no agent runner has taken it yet; see what runs with: stigmer local status");
                }
                heard = self.events.next(), if self.screen.is_idle() && self.end.is_none() => {
                    claimed |= self.take(heard);
                    // What is there already is shown at once with it.
                    for _ in 0..BATCH {
                        if self.end.is_some() {
                            break;
                        }
                        match self.events.next().now_or_never() {
                            Some(heard) => claimed |= self.take(heard),
                            None => break,
                        }
                    }
                }
            }
        }
    }

    /// True if it says that somebody works on it.
    fn take(&mut self, heard: Result<Heard>) -> bool {
        match heard {
            Ok(Heard::Event(event)) => {
                let claimed = !is_pending(&event);
                self.hear(*event);
                return claimed;
            }
            Ok(Heard::Lost) => {
                self.renderer
                    .note("lost the Stigmer daemon; trying to find it again...");
            }
            Err(failure) => self.end = Some(Err(failure)),
        }
        false
    }

    fn hear(&mut self, event: Event) {
        let seq = event.seq;
        let phase = final_phase(&event);
        if let (Some(phase), Some(What::Phase(change))) = (phase, &event.what) {
            self.end = Some(Ok((phase, change.error.as_ref().map(describe))));
        }
        let withdrawn = self.asks && self.desk.hear(&event);
        if self.desk.is_asking() {
            self.held.push(event);
            if self.held.len() < HELD {
                return;
            }
            self.release();
            self.renderer.prompt();
            return;
        }
        if withdrawn {
            self.release();
        }
        self.renderer.event(&event);
        if seq >= self.history {
            self.ask();
        }
    }

    /// Shows what waited behind a question.
    fn release(&mut self) {
        for event in std::mem::take(&mut self.held) {
            self.renderer.event(&event);
        }
    }

    fn ask(&mut self) {
        if !self.asks || self.end.is_some() {
            return;
        }
        if let Some(approval) = self.desk.next() {
            self.typed.open();
            self.renderer.ask(&approval);
        }
    }

    fn line(&mut self, line: Option<String>, calls: &mut Calls) {
        let Some(line) = line else {
            // The terminal is gone, or Ctrl-D was pressed.
            self.asks = false;
            self.desk = Desk::default();
            self.release();
            self.renderer
                .stop_asking(&self.watch.execution.execution_id);
            return;
        };
        self.renderer.answered();
        match self.desk.answer(&line) {
            Answer::Unclear => self.renderer.prompt(),
            Answer::Decided {
                call,
                allow,
                reason,
            } => {
                self.release();
                let mut executions = self.watch.daemon.executions();
                let request = DecideRequest {
                    execution_id: self.watch.execution.execution_id.clone(),
                    tool_call_id: call,
                    allow,
                    reason,
                };
                let deciding = async move { executions.decide(request).await.map(drop) };
                calls.push(deciding.map(Said::Decided).boxed());
            }
        }
    }

    fn said(&mut self, said: Said) {
        match said {
            Said::Decided(Ok(())) => self.desk.settled(),
            Said::Decided(Err(status))
                if has_code(&status, ErrorCode::Conflict)
                    || has_code(&status, ErrorCode::NotFound) =>
            {
                self.renderer
                    .note("somebody else answered before, or it waits no more");
                self.desk.settled();
            }
            Said::Decided(Err(status)) => {
                let problems = Failure::from(status).problems.join(", ");
                self.renderer
                    .note(&format!("the answer did not arrive: {problems}"));
                self.desk.unsettled();
            }
            Said::Cancelled(Ok(())) => self.cancelling = false,
            Said::Cancelled(Err(status)) => {
                self.cancelling = false;
                let problems = Failure::from(status).problems.join(", ");
                self.renderer.note(&format!("cannot cancel it: {problems}"));
            }
        }
        self.ask();
    }

    /// The first signal cancels what is ours, and leaves what is not.
    fn signal(&mut self, signal: Signal, calls: &mut Calls) -> Result<()> {
        let id = &self.watch.execution.execution_id;
        if !self.watch.owned || self.asked.is_some() {
            return Err(Failure::interrupted(signal.number()));
        }
        self.asked = Some(signal);
        self.cancelling = true;
        self.release();
        self.renderer
            .note("Cancelling... (once more leaves at once)");
        let mut executions = self.watch.daemon.executions();
        let request = CancelExecutionRequest {
            execution_id: id.clone(),
            reason: "interrupted by the user".to_owned(),
        };
        let cancelling = async move { executions.cancel(request).await.map(drop) };
        calls.push(cancelling.map(Said::Cancelled).boxed());
        Ok(())
    }

    fn outcome(&self, phase: Phase, reason: Option<String>) -> Result<Outcome> {
        match (phase, self.asked) {
            (Phase::Completed, _) => Ok(Outcome::Success),
            (Phase::Cancelled, Some(signal)) => Err(Failure::interrupted(signal.number())),
            (Phase::Cancelled, None) => Err(Failure::failed("the execution was cancelled")),
            (Phase::Failed, _) if self.told => Ok(Outcome::Unfit),
            (Phase::Failed | Phase::Unspecified | Phase::Pending | Phase::InProgress, _) => {
                let mut failure = Failure::failed("the execution failed");
                failure.causes.extend(reason);
                Err(failure)
            }
        }
    }
}

fn is_pending(event: &Event) -> bool {
    match &event.what {
        Some(What::Phase(change)) => change.phase() == Phase::Pending,
        _ => true,
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
