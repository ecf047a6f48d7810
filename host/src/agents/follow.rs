//! Reading what happened, and following what happens.
//!
//! Readers have a connection of their own, and so never keep the one that
//! writes waiting. They read in pages: what one of them holds in memory is a
//! page, however far behind it is.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use prost::Message as _;
use stigmer_sdk::wire::agent as pb;
use stigmer_sdk::wire::invalid;
use stigmer_sdk::{Error, ErrorCode, Result};
use tokio::sync::watch;

use super::desk::{Progress, failed, no_execution, no_session};
use super::fold::{Fold, ends};
use super::{Agents, ending, query, store, wire};

/// A page of events: an event at least, and one more than this at most.
const PAGE_BYTES: usize = 256 * 1024;
/// What one answer of a history has.
const ANSWER_BYTES: usize = 512 * 1024;

/// Events of one execution, in order.
pub type Events = BoxStream<'static, Result<pb::Event>>;
/// Parts of a session's history, in order.
pub type History = BoxStream<'static, Result<pb::HistoryResponse>>;

/// One who follows an execution.
struct Follower {
    agents: Arc<Agents>,
    execution_id: String,
    n: i64,
    next: u64,
    page: VecDeque<pb::Event>,
    feed: watch::Receiver<Progress>,
}

impl Follower {
    /// The next event, when it is there. `None` after the last.
    async fn next(&mut self) -> Result<Option<pb::Event>> {
        loop {
            if let Some(event) = self.page.pop_front() {
                self.next = event.seq + 1;
                return Ok(Some(event));
            }
            let progress = *self.feed.borrow_and_update();
            if self.next <= progress.seq {
                self.page = self
                    .agents
                    .page(self.n, self.next, progress.seq)
                    .await?
                    .into();
                if self.page.is_empty() {
                    return Err(no_execution(&self.execution_id));
                }
                continue;
            }
            if progress.over {
                return Ok(None);
            }
            tokio::select! {
                biased;
                changed = self.feed.changed() => {
                    // Without another word, it was deleted.
                    changed.map_err(|_| no_execution(&self.execution_id))?;
                }
                () = self.agents.stop.cancelled() => return Err(ending()),
            }
        }
    }
}

impl Agents {
    /// Every event of an execution from one on: first those recorded, then
    /// those to come, until the last.
    pub async fn subscribe(self: &Arc<Self>, execution_id: &str, from: u64) -> Result<Events> {
        let wanted = execution_id.to_owned();
        let (n, feed) = self.desk.ask(move |desk| desk.follow(&wanted)).await?;
        let follower = Follower {
            agents: Arc::clone(self),
            execution_id: execution_id.to_owned(),
            n,
            next: from.max(1),
            page: VecDeque::new(),
            feed,
        };
        let events = stream::try_unfold(Some(follower), |follower| async move {
            let Some(mut follower) = follower else {
                return Ok(None);
            };
            let event = follower.next().await?;
            Ok(event.map(|event| {
                let more = !ends(&event);
                (event, more.then_some(follower))
            }))
        });
        Ok(events.boxed())
    }

    /// An execution as it stands, messages included.
    pub async fn execution(&self, execution_id: &str) -> Result<pb::Execution> {
        let wanted = execution_id.to_owned();
        let read = move |db: &mut _| store::execution(db, &wanted).map_err(failed);
        let execution = self.reader.ask(read).await?;
        let execution = execution.ok_or_else(|| no_execution(execution_id))?;
        let fold = self
            .fold(execution.head.n, execution.head.status.seq)
            .await?;
        let mut shown = wire::shown_execution(execution);
        if let Some(status) = &mut shown.status {
            fold.into_status(status);
        }
        Ok(shown)
    }

    /// The messages of a session so far, over all of its executions or those
    /// before one.
    pub async fn history(
        self: &Arc<Self>,
        session_id: &str,
        before: Option<&str>,
    ) -> Result<History> {
        let wanted = session_id.to_owned();
        let before = before.map(str::to_owned);
        let read = move |db: &mut rusqlite::Connection| {
            let session = query::session_number(db, &wanted)
                .map_err(failed)?
                .ok_or_else(|| no_session(&wanted))?;
            let before = match before {
                None => i64::MAX,
                Some(id) => {
                    let head = store::head(db, &id).map_err(failed)?;
                    let head = head.ok_or_else(|| no_execution(&id))?;
                    if head.session != session {
                        let problem = format_args!("{id} is not in the session {wanted}");
                        return Err(invalid("before_execution_id", problem));
                    }
                    head.n
                }
            };
            query::of_session(db, session, before).map_err(failed)
        };
        let executions = self.reader.ask(read).await?;
        let agents = Arc::clone(self);
        let answers = stream::iter(executions)
            .then(move |(n, seq)| {
                let agents = Arc::clone(&agents);
                async move { agents.fold(n, seq).await.map(answers) }
            })
            .map_ok(|answers| stream::iter(answers).map(Ok))
            .try_flatten();
        Ok(answers.boxed())
    }

    /// What the events of an execution amount to, up to this one.
    async fn fold(&self, n: i64, seq: u64) -> Result<Fold> {
        let mut fold = Fold::default();
        let mut next = 1;
        while next <= seq {
            let page = self.page(n, next, seq).await?;
            let Some(last) = page.last() else {
                let message = "the execution was deleted while it was read";
                return Err(Error::new(ErrorCode::NotFound, message));
            };
            next = last.seq + 1;
            page.into_iter().for_each(|event| fold.push(event));
        }
        Ok(fold)
    }

    async fn page(&self, n: i64, from: u64, to: u64) -> Result<Vec<pb::Event>> {
        let read = move |db: &mut _| store::events(db, n, from, to, PAGE_BYTES).map_err(failed);
        self.reader.ask(read).await
    }
}

/// Messages and tool calls in pieces that fit into messages of the wire.
fn answers(fold: Fold) -> Vec<pb::HistoryResponse> {
    let mut answers = Vec::new();
    let mut answer = pb::HistoryResponse::default();
    let mut size = 0;
    let mut room = |answer: &mut pb::HistoryResponse, bytes: usize| {
        if size > 0 && size + bytes > ANSWER_BYTES {
            answers.push(std::mem::take(answer));
            size = 0;
        }
        size += bytes;
    };
    for message in fold.messages {
        room(&mut answer, message.encoded_len());
        answer.messages.push(message);
    }
    for call in fold.tool_calls {
        room(&mut answer, call.encoded_len());
        answer.tool_calls.push(call);
    }
    if size > 0 {
        answers.push(answer);
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_comes_in_pieces() {
        #[track_caller]
        fn check(messages: &[usize], calls: &[usize], expected: &[(usize, usize)]) {
            let mut fold = Fold::default();
            fold.messages
                .extend(messages.iter().map(|&bytes| pb::Message {
                    content: "x".repeat(bytes),
                    ..Default::default()
                }));
            fold.tool_calls
                .extend(calls.iter().map(|&bytes| pb::ToolCall {
                    result: "x".repeat(bytes),
                    ..Default::default()
                }));
            let sizes: Vec<_> = answers(fold)
                .iter()
                .map(|answer| (answer.messages.len(), answer.tool_calls.len()))
                .collect();
            assert_eq!(sizes, expected);
        }
        check(&[], &[], &[]);
        check(&[10, 10], &[10], &[(2, 1)]);
        check(&[ANSWER_BYTES, 10], &[10], &[(1, 0), (1, 1)]);
        check(
            &[10, ANSWER_BYTES],
            &[ANSWER_BYTES],
            &[(1, 0), (1, 0), (0, 1)],
        );
    }
}
