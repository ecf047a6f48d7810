//! Approvals that wait for the person at this terminal.
//!
//! Anybody may answer: a question is withdrawn when somebody else did, or when
//! what it is about has ended. Only one is asked at a time.

use std::collections::VecDeque;

use stigmer_sdk::wire::agent::{
    Approval, ApprovalState, Event, Phase, ToolCallStatus, event::What,
};

/// What a line that was typed means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing that can be acted on.
    Unclear,
    Decided {
        call: String,
        allow: bool,
        reason: String,
    },
}

#[derive(Debug, Default)]
pub(super) struct Desk {
    waiting: VecDeque<Approval>,
    /// The first of those waiting is on the screen.
    asked: bool,
    /// Answered here, and not confirmed by the daemon.
    answered: Option<Approval>,
}

impl Desk {
    /// Begins with those that wait already.
    pub(super) fn new(approvals: &[Approval]) -> Self {
        let mut desk = Self::default();
        for approval in approvals {
            if approval.state() == ApprovalState::Pending {
                desk.wait(approval);
            }
        }
        desk
    }

    fn wait(&mut self, approval: &Approval) {
        let id = &approval.tool_call_id;
        let mut known = self.waiting.iter().chain(&self.answered);
        if !known.any(|known| known.tool_call_id == *id) {
            self.waiting.push_back(approval.clone());
        }
    }

    /// Takes note of what happened. True if the question on the screen is
    /// withdrawn by it.
    pub(super) fn hear(&mut self, event: &Event) -> bool {
        match &event.what {
            Some(What::Approval(approval)) => match approval.state() {
                ApprovalState::Pending => {
                    self.wait(approval);
                    false
                }
                ApprovalState::Unspecified | ApprovalState::Allowed | ApprovalState::Denied => {
                    self.drop_call(&approval.tool_call_id)
                }
            },
            Some(What::ToolCall(call)) => match call.status() {
                ToolCallStatus::Completed | ToolCallStatus::Failed => {
                    self.drop_call(&call.tool_call_id)
                }
                ToolCallStatus::Unspecified | ToolCallStatus::Pending | ToolCallStatus::Running => {
                    false
                }
            },
            // The runner that asked has given it up, or it is over.
            Some(What::Phase(change)) if change.phase() != Phase::InProgress => {
                self.waiting.clear();
                self.answered = None;
                std::mem::take(&mut self.asked)
            }
            _ => false,
        }
    }

    fn drop_call(&mut self, call: &str) -> bool {
        if self
            .answered
            .as_ref()
            .is_some_and(|approval| approval.tool_call_id == call)
        {
            self.answered = None;
        }
        let first = self.waiting.front();
        let on_screen = self.asked && first.is_some_and(|first| first.tool_call_id == call);
        self.waiting
            .retain(|approval| approval.tool_call_id != call);
        if on_screen {
            self.asked = false;
        }
        on_screen
    }

    pub(super) fn is_asking(&self) -> bool {
        self.asked
    }

    /// What to ask next, if nothing is being asked. It is then on the screen.
    pub(super) fn next(&mut self) -> Option<Approval> {
        if self.asked || self.answered.is_some() {
            return None;
        }
        let next = self.waiting.front()?.clone();
        self.asked = true;
        Some(next)
    }

    /// Takes a line that was typed at the question on the screen. Nothing but a
    /// plain yes allows anything.
    pub(super) fn answer(&mut self, line: &str) -> Answer {
        let line = line.trim();
        let (allow, reason) = match line.to_ascii_lowercase().as_str() {
            "" => return Answer::Unclear,
            "y" | "yes" => (true, ""),
            "n" | "no" => (false, ""),
            _ => (false, line),
        };
        if !self.asked {
            return Answer::Unclear;
        }
        let Some(approval) = self.waiting.pop_front() else {
            return Answer::Unclear;
        };
        self.asked = false;
        let call = approval.tool_call_id.clone();
        self.answered = Some(approval);
        Answer::Decided {
            call,
            allow,
            reason: reason.to_owned(),
        }
    }

    /// The daemon took the answer, or somebody was faster.
    pub(super) fn settled(&mut self) {
        self.answered = None;
    }

    /// The answer did not reach the daemon: it is asked for again.
    pub(super) fn unsettled(&mut self) {
        self.waiting.extend(self.answered.take());
        self.waiting
            .rotate_right(usize::from(!self.waiting.is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stigmer_sdk::wire::agent::{PhaseChange, ToolCall};

    fn approval(call: &str, state: ApprovalState) -> Event {
        let approval = Approval {
            tool_call_id: call.to_owned(),
            state: state.into(),
            ..Approval::default()
        };
        Event {
            what: Some(What::Approval(approval)),
            ..Event::default()
        }
    }

    fn desk(calls: &[&str]) -> Desk {
        let mut desk = Desk::default();
        for call in calls {
            assert!(!desk.hear(&approval(call, ApprovalState::Pending)));
        }
        desk
    }

    fn asked(desk: &mut Desk) -> Option<String> {
        desk.next().map(|approval| approval.tool_call_id)
    }

    #[test]
    fn only_a_plain_yes_allows() {
        #[track_caller]
        fn check(line: &str, expected: Option<(bool, &str)>) {
            let mut desk = desk(&["a"]);
            desk.next().unwrap();
            let expected = expected.map_or(Answer::Unclear, |(allow, reason)| Answer::Decided {
                call: "a".to_owned(),
                allow,
                reason: reason.to_owned(),
            });
            assert_eq!(desk.answer(line), expected);
            assert_eq!(desk.is_asking(), expected == Answer::Unclear);
        }
        check("y\n", Some((true, "")));
        check(" YES ", Some((true, "")));
        check("n", Some((false, "")));
        check("No", Some((false, "")));
        check("yes but only once", Some((false, "yes but only once")));
        check("use rm -i", Some((false, "use rm -i")));
        check("  \n", None);
    }

    #[test]
    fn one_is_asked_after_the_other() {
        let mut desk = desk(&["a", "b"]);
        assert_eq!(asked(&mut desk).as_deref(), Some("a"));
        assert_eq!(asked(&mut desk), None);
        assert_ne!(desk.answer("y"), Answer::Unclear);
        assert_eq!(asked(&mut desk), None, "until the daemon has the answer");
        desk.settled();
        assert!(!desk.hear(&approval("a", ApprovalState::Allowed)));
        assert_eq!(asked(&mut desk).as_deref(), Some("b"));
    }

    #[test]
    fn an_answer_that_got_lost_is_asked_for_again() {
        let mut desk = desk(&["a", "b"]);
        desk.next();
        desk.answer("n");
        desk.unsettled();
        assert_eq!(asked(&mut desk).as_deref(), Some("a"));
        desk.answer("n");
        desk.settled();
        assert_eq!(asked(&mut desk).as_deref(), Some("b"));
    }

    #[test]
    fn a_question_is_withdrawn_when_it_is_settled_elsewhere() {
        #[track_caller]
        fn check(what: What, withdrawn: bool, next: Option<&str>) {
            let mut desk = desk(&["a", "b"]);
            desk.next();
            let event = Event {
                what: Some(what),
                ..Event::default()
            };
            assert_eq!(desk.hear(&event), withdrawn);
            assert_eq!(desk.is_asking(), !withdrawn);
            desk.asked = false;
            assert_eq!(asked(&mut desk).as_deref(), next);
        }
        let decided = |call| approval(call, ApprovalState::Denied).what.unwrap();
        let ended = |call: &str| {
            What::ToolCall(ToolCall {
                tool_call_id: call.to_owned(),
                status: ToolCallStatus::Failed.into(),
                ..ToolCall::default()
            })
        };
        let phase = |phase: Phase| {
            What::Phase(PhaseChange {
                phase: phase.into(),
                ..PhaseChange::default()
            })
        };
        check(decided("a"), true, Some("b"));
        check(decided("b"), false, Some("a"));
        check(ended("a"), true, Some("b"));
        check(phase(Phase::Cancelled), true, None);
        check(phase(Phase::Pending), true, None);
        check(phase(Phase::InProgress), false, Some("a"));
    }

    #[test]
    fn what_is_typed_without_a_question_is_nothing() {
        let mut desk = desk(&["a"]);
        assert_eq!(desk.answer("y"), Answer::Unclear);
        assert_eq!(asked(&mut desk).as_deref(), Some("a"));
    }
}
