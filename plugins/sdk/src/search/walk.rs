//! Going through a tree on a few threads.
//!
//! The work is a stack that all threads share: directories to list, and files of
//! large directories in batches. Taking the newest first keeps the directories
//! that are open few, about as many as the tree is deep.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::budget::Budget;
use super::ignore::{self, Ignore};
use super::pattern::{Pattern, Progress};
use super::{Entry, Tree};
use crate::{FileKind, Result};

/// Directories within directories. No project has nearly as many, and every
/// level may hold a descriptor.
const MAX_DEPTH: usize = 256;

/// Files that are worth another thread's while.
const BATCH: usize = 64;

/// Pieces of work that one thread has done in the time that another takes to
/// start.
const ALONE: usize = 8;

/// What to visit.
pub(super) struct Walk<'a, T: Tree> {
    pub(super) tree: &'a T,
    pub(super) budget: &'a Budget<'a>,
    /// `None` matches everything.
    pub(super) pattern: Option<Pattern>,
    pub(super) exclude: &'a [String],
    pub(super) gitignore: bool,
    /// Directories are visited too, not only entered.
    pub(super) directories: bool,
    /// Links are visited too. They are never entered.
    pub(super) links: bool,
}

/// A directory that is being searched.
pub(super) struct Open<D> {
    pub(super) dir: D,
    /// Below the root; empty for the root.
    path: String,
    depth: usize,
    progress: Progress,
    ignore: Option<Arc<Ignore>>,
}

impl<D> Open<D> {
    /// The path below the root of a name in it.
    pub(super) fn join(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            [self.path.as_str(), "/", name].concat()
        }
    }
}

enum Work<D> {
    Directory {
        parent: Arc<Open<D>>,
        name: String,
        progress: Progress,
    },
    Files {
        dir: Arc<Open<D>>,
        entries: Vec<Entry>,
    },
}

struct Queue<D> {
    state: Mutex<State<D>>,
    changed: Condvar,
}

struct State<D> {
    work: Vec<Work<D>>,
    /// Threads that may still add work.
    busy: usize,
    waiting: usize,
}

impl<T: Tree> Walk<'_, T> {
    /// Visits every entry that matches, on up to so many threads, each with a
    /// state of its own. Answers these states.
    ///
    /// # Errors
    /// That of listing the root. What goes wrong below it is the budget's.
    pub(super) fn run<S: Send>(
        &self,
        root: T::Dir,
        threads: usize,
        state: impl Fn() -> S + Sync,
        visit: impl Fn(&mut S, &Open<T::Dir>, Entry) + Sync,
    ) -> Result<Vec<S>> {
        let mut entries = Vec::new();
        self.tree.list(&root, &mut entries)?;
        let progress = self.pattern.as_ref().map(Pattern::start);
        let root = Open {
            dir: root,
            path: String::new(),
            depth: 0,
            progress: progress.unwrap_or_default(),
            ignore: None,
        };
        let queue = Queue {
            state: Mutex::new(State {
                work: Vec::new(),
                busy: 1,
                waiting: 0,
            }),
            changed: Condvar::new(),
        };
        let worker = Worker {
            walk: self,
            queue: &queue,
            visit: &visit,
        };
        let mut own = state();
        worker.sort(&mut own, root, entries);
        worker.work(&mut own, ALONE);
        if queue.is_empty() {
            queue.leave();
            return Ok(vec![own]);
        }
        let mut states = vec![];
        std::thread::scope(|scope| {
            let mut helpers = Vec::new();
            for _ in 1..threads {
                queue.lock().busy += 1;
                let helper = std::thread::Builder::new().spawn_scoped(scope, || {
                    let mut own = state();
                    worker.finish(&mut own);
                    own
                });
                match helper {
                    Ok(helper) => helpers.push(helper),
                    // The system has no more threads. One is enough.
                    Err(_) => {
                        queue.leave();
                        break;
                    }
                }
            }
            worker.finish(&mut own);
            for helper in helpers {
                match helper.join() {
                    Ok(state) => states.push(state),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        states.push(own);
        Ok(states)
    }
}

struct Worker<'a, T: Tree, V> {
    walk: &'a Walk<'a, T>,
    queue: &'a Queue<T::Dir>,
    visit: &'a V,
}

impl<T: Tree, V> Worker<'_, T, V> {
    /// Works until there is nothing to do, for any thread.
    fn finish<S>(&self, own: &mut S)
    where
        V: Fn(&mut S, &Open<T::Dir>, Entry),
    {
        let _leaving = Leaving(self.queue, self.walk.budget);
        loop {
            self.work(own, usize::MAX);
            if self.walk.budget.is_stopped() || !self.queue.wait() {
                return;
            }
        }
    }

    /// Does some pieces of work, as long as there are any.
    fn work<S>(&self, own: &mut S, most: usize)
    where
        V: Fn(&mut S, &Open<T::Dir>, Entry),
    {
        for _ in 0..most {
            if !self.walk.budget.lasts() {
                self.walk.budget.stop();
                return;
            }
            let Some(work) = self.queue.lock().work.pop() else {
                return;
            };
            match work {
                Work::Files { dir, entries } => self.visit(own, &dir, entries),
                Work::Directory {
                    parent,
                    name,
                    progress,
                } => self.directory(own, &parent, &name, progress),
            }
        }
    }

    fn visit<S>(&self, own: &mut S, dir: &Open<T::Dir>, entries: Vec<Entry>)
    where
        V: Fn(&mut S, &Open<T::Dir>, Entry),
    {
        for entry in entries {
            if !self.walk.budget.lasts() {
                return;
            }
            (self.visit)(own, dir, entry);
        }
    }

    fn directory<S>(&self, own: &mut S, parent: &Open<T::Dir>, name: &str, progress: Progress)
    where
        V: Fn(&mut S, &Open<T::Dir>, Entry),
    {
        let tree = self.walk.tree;
        let dir = match tree.enter(&parent.dir, name) {
            Ok(dir) => dir,
            Err(error) => return self.walk.budget.judge(error),
        };
        let mut entries = Vec::new();
        if let Err(error) = tree.list(&dir, &mut entries) {
            self.walk.budget.judge(error);
        }
        let open = Open {
            dir,
            path: parent.join(name),
            depth: parent.depth + 1,
            progress,
            ignore: parent.ignore.clone(),
        };
        self.sort(own, open, entries);
    }

    /// Gives away what others can do, and visits the rest.
    fn sort<S>(&self, own: &mut S, mut open: Open<T::Dir>, entries: Vec<Entry>)
    where
        V: Fn(&mut S, &Open<T::Dir>, Entry),
    {
        let walk = self.walk;
        let is_rules = |entry: &Entry| entry.kind == FileKind::File && entry.name == ignore::NAME;
        if walk.gitignore && entries.iter().any(is_rules) {
            self.read_rules(&mut open);
        }
        let mut below = Vec::new();
        let mut files = Vec::new();
        for entry in entries {
            if let Some(ignore) = &open.ignore {
                let is_directory = entry.kind == FileKind::Directory;
                if ignore.excludes(&open.join(&entry.name), is_directory) {
                    continue;
                }
            }
            let wanted = match entry.kind {
                FileKind::File => true,
                FileKind::Directory => {
                    if let Some(progress) = self.leads_on(&open, &entry.name) {
                        below.push((entry.name.clone(), progress));
                    }
                    walk.directories
                }
                FileKind::Symlink => walk.links,
                FileKind::Other => false,
            };
            let matches = |pattern: &Pattern| pattern.matches(&open.progress, &entry.name);
            if wanted && walk.pattern.as_ref().is_none_or(matches) {
                files.push(entry);
            }
        }
        let open = Arc::new(open);
        let mut work: Vec<_> = below
            .into_iter()
            .map(|(name, progress)| Work::Directory {
                parent: Arc::clone(&open),
                name,
                progress,
            })
            .collect();
        while files.len() > 2 * BATCH {
            work.push(Work::Files {
                dir: Arc::clone(&open),
                entries: files.split_off(files.len() - BATCH),
            });
        }
        self.queue.add(work);
        self.visit(own, &open, files);
    }

    /// Where in the pattern a directory leads, unless it is not to be entered.
    fn leads_on(&self, open: &Open<T::Dir>, name: &str) -> Option<Progress> {
        if self.walk.exclude.iter().any(|excluded| excluded == name) {
            return None;
        }
        let progress = match &self.walk.pattern {
            Some(pattern) => pattern.enter(&open.progress, name),
            None => Progress::default(),
        };
        if self.walk.pattern.is_some() && progress.is_lost() {
            return None;
        }
        if open.depth >= MAX_DEPTH {
            self.walk.budget.miss();
            return None;
        }
        Some(progress)
    }

    fn read_rules(&self, open: &mut Open<T::Dir>) {
        let budget = self.walk.budget;
        match self.walk.tree.open(&open.dir, ignore::NAME) {
            Ok(file) => match Ignore::read(file, &open.path, open.ignore.clone()) {
                Ok(ignore) => open.ignore = Some(Arc::new(ignore)),
                Err(error) => budget.judge_io(&error),
            },
            Err(error) => budget.judge(error),
        }
    }
}

/// Lets the other threads go when one ends, also by a panic: what it was busy
/// with will never be added.
struct Leaving<'a, D>(&'a Queue<D>, &'a Budget<'a>);

impl<D> Drop for Leaving<'_, D> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.1.stop();
        }
        self.0.leave();
    }
}

impl<D> Queue<D> {
    fn lock(&self) -> MutexGuard<'_, State<D>> {
        // Work that a panicking thread took is lost, and the rest is sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        self.lock().work.is_empty()
    }

    fn add(&self, work: Vec<Work<D>>) {
        if work.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.work.extend(work);
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }

    /// Waits for another thread to add work; `false` if none will.
    fn wait(&self) -> bool {
        let mut state = self.lock();
        if !state.work.is_empty() {
            return true;
        }
        state.busy -= 1;
        state.waiting += 1;
        if state.busy == 0 {
            self.changed.notify_all();
        }
        while state.work.is_empty() && state.busy > 0 {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        // Whether it goes on or leaves, it counts until it has left.
        state.busy += 1;
        !state.work.is_empty()
    }

    fn leave(&self) {
        let mut state = self.lock();
        state.busy -= 1;
        if state.busy == 0 && state.waiting > 0 {
            self.changed.notify_all();
        }
    }
}
