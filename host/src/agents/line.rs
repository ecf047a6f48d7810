//! Who is next: executions that wait, in the order they were created, and one
//! at a time from each session.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// An execution, and the session it is in, by their numbers in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) execution: i64,
    pub(super) session: i64,
}

/// Everything that waits. A session that has an execution out has none that is
/// ready, and one that has none is not in here.
#[derive(Debug, Default)]
pub(super) struct Line {
    sessions: HashMap<i64, Waiting>,
    /// The first of each session that has none out.
    ready: BTreeMap<i64, i64>,
}

#[derive(Debug, Default)]
struct Waiting {
    executions: BTreeSet<i64>,
    out: bool,
}

impl Line {
    /// One that waits, new or given back: its number says where it belongs.
    pub(super) fn push(&mut self, place: Place) {
        let waiting = self.sessions.entry(place.session).or_default();
        waiting.executions.insert(place.execution);
        self.refresh(place.session);
    }

    /// One that waits no more, because it is over before it began.
    pub(super) fn remove(&mut self, place: Place) {
        if let Some(waiting) = self.sessions.get_mut(&place.session) {
            waiting.executions.remove(&place.execution);
        }
        self.ready.remove(&place.execution);
        self.refresh(place.session);
    }

    /// The next, which is then out.
    pub(super) fn take(&mut self) -> Option<Place> {
        let (execution, session) = self.ready.pop_first()?;
        let waiting = self.sessions.entry(session).or_default();
        waiting.executions.remove(&execution);
        waiting.out = true;
        Some(Place { execution, session })
    }

    /// The one of this session that was out is so no more.
    pub(super) fn back(&mut self, session: i64) {
        if let Some(waiting) = self.sessions.get_mut(&session) {
            waiting.out = false;
        }
        self.refresh(session);
    }

    /// Whether a session has none that waits or is out.
    pub(super) fn is_idle(&self, session: i64) -> bool {
        !self.sessions.contains_key(&session)
    }

    fn refresh(&mut self, session: i64) {
        let Some(waiting) = self.sessions.get(&session) else {
            return;
        };
        match waiting.executions.first() {
            None if !waiting.out => drop(self.sessions.remove(&session)),
            Some(&first) if !waiting.out => {
                // One that was given back goes before the one that is ready.
                if let Some(second) = waiting.executions.iter().nth(1) {
                    self.ready.remove(second);
                }
                self.ready.insert(first, session);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(execution: i64, session: i64) -> Place {
        Place { execution, session }
    }

    #[test]
    fn sessions_take_turns_in_the_order_of_creation() {
        let mut line = Line::default();
        for (execution, session) in [(1, 10), (2, 10), (3, 20), (4, 10)] {
            line.push(place(execution, session));
        }
        assert_eq!(line.take(), Some(place(1, 10)));
        assert_eq!(line.take(), Some(place(3, 20)));
        assert_eq!(line.take(), None);
        line.back(10);
        assert_eq!(line.take(), Some(place(2, 10)));
        // Given back, it is before those that came later.
        line.push(place(2, 10));
        line.back(10);
        assert_eq!(line.take(), Some(place(2, 10)));
        line.remove(place(4, 10));
        line.back(10);
        assert!(line.is_idle(10) && !line.is_idle(20));
        line.back(20);
        assert!(line.is_idle(20) && line.take().is_none());
    }

    #[test]
    fn one_that_is_removed_lets_the_next_through() {
        let mut line = Line::default();
        line.push(place(1, 10));
        line.push(place(2, 10));
        line.remove(place(1, 10));
        assert_eq!(line.take(), Some(place(2, 10)));
        line.back(10);
        assert!(line.is_idle(10));
    }

    #[test]
    fn one_that_comes_late_and_is_older_goes_first() {
        let mut line = Line::default();
        line.push(place(2, 10));
        line.push(place(1, 10));
        assert_eq!(line.take(), Some(place(1, 10)));
        assert_eq!(line.take(), None);
    }
}
