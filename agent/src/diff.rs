//! What changed between two texts, as a unified diff.
//!
//! Lines are compared by Myers' greedy algorithm. Its work is bounded: two
//! texts that have very little in common are shown as one replaced by the
//! other, which is what a reader would see anyway.

use std::fmt::Write as _;

/// Lines of context around a change.
const CONTEXT: usize = 3;
/// Lines removed and added that are searched for. It bounds memory to the
/// square of this.
const MOST_EDITS: usize = 1000;

/// The difference of two texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Diff {
    /// Lines.
    pub(crate) added: u32,
    /// Lines.
    pub(crate) removed: u32,
    /// Hunks without a header; empty if the texts are the same.
    pub(crate) unified: String,
}

/// One step from the old lines to the new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Keep,
    Remove,
    Add,
}

/// Compares two texts line by line.
pub(crate) fn diff(old: &str, new: &str) -> Diff {
    let old: Vec<&str> = old.split_inclusive('\n').collect();
    let new: Vec<&str> = new.split_inclusive('\n').collect();
    let steps = steps(&old, &new);
    let count = |wanted| steps.iter().filter(|&&step| step == wanted).count();
    Diff {
        added: u32::try_from(count(Step::Add)).unwrap_or(u32::MAX),
        removed: u32::try_from(count(Step::Remove)).unwrap_or(u32::MAX),
        unified: unified(&old, &new, &steps),
    }
}

fn steps(old: &[&str], new: &[&str]) -> Vec<Step> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[head..], &new[head..]);
    let tail = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
    let mut steps = vec![Step::Keep; head];
    match shortest(old, new) {
        Some(between) => steps.extend(between),
        None => {
            steps.extend(vec![Step::Remove; old.len()]);
            steps.extend(vec![Step::Add; new.len()]);
        }
    }
    steps.extend(vec![Step::Keep; tail]);
    steps
}

/// The shortest way, unless it is longer than [`MOST_EDITS`].
fn shortest(old: &[&str], new: &[&str]) -> Option<Vec<Step>> {
    let most = (old.len() + new.len()).min(MOST_EDITS);
    // `reach[offset + k]`: how far into `old` the best path on diagonal k is.
    let offset = most + 1;
    let mut reach = vec![0_usize; 2 * most + 3];
    let mut history: Vec<Vec<usize>> = Vec::new();
    for edits in 0..=most {
        history.push(reach[offset - edits..=offset + edits].to_vec());
        for step in 0..=edits {
            // k = x - y, from -edits to edits by twos.
            let k = offset + 2 * step - edits;
            let down = step == 0 || (step != edits && reach[k - 1] < reach[k + 1]);
            let mut x = if down { reach[k + 1] } else { reach[k - 1] + 1 };
            if x + offset < k {
                continue;
            }
            let mut y = x + offset - k;
            while x < old.len() && y < new.len() && old[x] == new[y] {
                x += 1;
                y += 1;
            }
            reach[k] = x;
            if x >= old.len() && y >= new.len() {
                return Some(back(&history, old.len(), new.len()));
            }
        }
    }
    None
}

/// Walks from the end to the beginning by what each round had reached before it.
fn back(history: &[Vec<usize>], old: usize, new: usize) -> Vec<Step> {
    let (mut x, mut y) = (old, new);
    let mut steps = Vec::with_capacity(old + new);
    for (edits, before) in history.iter().enumerate().rev() {
        if edits == 0 {
            break;
        }
        // `before[edits + k]`, k = x - y, both shifted to stay above zero.
        let k = edits + x - y;
        let down = k == 0 || (k != 2 * edits && before[k - 1] < before[k + 1]);
        let from_k = if down { k + 1 } else { k - 1 };
        let from_x = before[from_k];
        let from_y = from_x + edits - from_k;
        let (mid_x, mid_y) = if down {
            (from_x, from_y + 1)
        } else {
            (from_x + 1, from_y)
        };
        while x > mid_x && y > mid_y {
            steps.push(Step::Keep);
            x -= 1;
            y -= 1;
        }
        steps.push(if down { Step::Add } else { Step::Remove });
        (x, y) = (from_x, from_y);
    }
    steps.extend(vec![Step::Keep; x.min(y)]);
    steps.reverse();
    steps
}

fn unified(old: &[&str], new: &[&str], steps: &[Step]) -> String {
    let mut text = String::new();
    let (mut at_old, mut at_new, mut at) = (0, 0, 0);
    while let Some(next) = steps[at..].iter().position(|&step| step != Step::Keep) {
        let lead = next.min(CONTEXT);
        at += next - lead;
        at_old += next - lead;
        at_new += next - lead;
        let end = at + hunk_length(&steps[at..]);
        let hunk = &steps[at..end];
        let olds = hunk.iter().filter(|&&step| step != Step::Add).count();
        let news = hunk.iter().filter(|&&step| step != Step::Remove).count();
        writeln!(
            text,
            "@@ -{} +{} @@",
            range(at_old, olds),
            range(at_new, news)
        )
        .expect("a string takes everything");
        for step in hunk {
            let (mark, line) = match step {
                Step::Keep => (' ', old[at_old]),
                Step::Remove => ('-', old[at_old]),
                Step::Add => ('+', new[at_new]),
            };
            at_old += usize::from(*step != Step::Add);
            at_new += usize::from(*step != Step::Remove);
            text.push(mark);
            text.push_str(line);
            if !line.ends_with('\n') {
                text.push_str("\n\\ No newline at end of file\n");
            }
        }
        at = end;
    }
    text
}

/// Up to where context follows that no further change is near.
fn hunk_length(steps: &[Step]) -> usize {
    let mut end = 0;
    let mut kept = 0;
    for (index, &step) in steps.iter().enumerate() {
        if step != Step::Keep {
            kept = 0;
            end = index + 1;
            continue;
        }
        kept += 1;
        if end > 0 && kept > 2 * CONTEXT {
            break;
        }
    }
    (end + CONTEXT).min(steps.len())
}

/// `start,length` as `diff -u` writes it: an empty range names the line before.
fn range(start: usize, length: usize) -> String {
    match length {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        _ => format!("{},{length}", start + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `patch` would make of it.
    fn apply(old: &str, unified: &str) -> String {
        let old: Vec<&str> = old.split_inclusive('\n').collect();
        let (mut new, mut at) = (String::new(), 0);
        let mut lines = unified.split_inclusive('\n').peekable();
        while let Some(line) = lines.next() {
            let without_end = matches!(lines.peek(), Some(next) if next.starts_with('\\'));
            let body = &line[1..];
            let body = if without_end {
                body.trim_end_matches('\n')
            } else {
                body
            };
            match line.as_bytes()[0] {
                b'@' => {
                    let range = line.split(' ').nth(1).unwrap();
                    let (start, length) = range[1..].split_once(',').unwrap_or((&range[1..], "1"));
                    let start: usize = start.parse().unwrap();
                    let start = if length == "0" { start } else { start - 1 };
                    new.extend(old[at..start].iter().copied());
                    at = start;
                }
                b' ' => {
                    assert_eq!(old[at], body);
                    new.push_str(body);
                    at += 1;
                }
                b'-' => {
                    assert_eq!(old[at], body);
                    at += 1;
                }
                b'+' => new.push_str(body),
                b'\\' => {}
                other => panic!("{other}"),
            }
        }
        new.extend(old[at..].iter().copied());
        new
    }

    #[test]
    fn diffs_read_as_people_know_them() {
        #[track_caller]
        fn check(old: &str, new: &str, expected: &str) {
            assert_eq!(diff(old, new).unified, expected);
        }
        check("a\n", "a\n", "");
        check("", "a\nb\n", "@@ -0,0 +1,2 @@\n+a\n+b\n");
        check("a\n", "", "@@ -1 +0,0 @@\n-a\n");
        check(
            "a\nb\nc\n",
            "a\nB\nc\n",
            "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n",
        );
        check(
            "a",
            "a\n",
            "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n",
        );
        check(
            "1\n2\n3\n4\n5\n6\n7\n8\n9\n",
            "1\n2\n3\n4\n5\n6\n7\n8\n9\nx\n",
            "@@ -7,3 +7,4 @@\n 7\n 8\n 9\n+x\n",
        );
    }

    #[test]
    fn changes_far_apart_are_hunks_of_their_own() {
        let old: String = (0..40).map(|line| format!("{line}\n")).collect();
        let new = old.replace("\n5\n", "\nfive\n").replace("\n30\n", "\n");
        let diff = diff(&old, &new);
        assert_eq!((diff.added, diff.removed), (1, 2));
        assert_eq!(diff.unified.matches("@@ -").count(), 2, "{}", diff.unified);
        assert_eq!(apply(&old, &diff.unified), new);
    }

    /// A small generator of numbers that look random and never change.
    fn numbers(mut seed: u64) -> impl FnMut(u64) -> u64 {
        move |below| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        }
    }

    #[test]
    fn applying_a_diff_gives_the_new_text() {
        let mut next = numbers(7);
        for _ in 0..3000 {
            let mut text = |most: u64| {
                let lines = next(most + 1);
                let mut text: String = (0..lines)
                    .map(|_| format!("{}\n", char::from(b'a' + u8::try_from(next(4)).unwrap())))
                    .collect();
                if next(4) == 0 {
                    text.pop();
                }
                text
            };
            let (old, new) = (text(25), text(25));
            let found = diff(&old, &new);
            assert_eq!(
                apply(&old, &found.unified),
                new,
                "{old:?} {new:?}\n{}",
                found.unified
            );
            let grown = i64::from(found.added) - i64::from(found.removed);
            let lines = |text: &str| i64::try_from(text.split_inclusive('\n').count()).unwrap();
            assert_eq!(grown, lines(&new) - lines(&old));
        }
    }

    #[test]
    fn texts_with_nothing_in_common_take_no_time() {
        let text =
            |from: u32| -> String { (from..from + 50_000).map(|n| format!("{n}\n")).collect() };
        let (old, new) = (text(0), text(1_000_000));
        let found = diff(&old, &new);
        assert_eq!((found.added, found.removed), (50_000, 50_000));
        assert_eq!(apply(&old, &found.unified), new);
    }
}
