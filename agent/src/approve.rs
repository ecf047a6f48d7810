//! Which tool calls wait for somebody's word.

use stigmer_sdk::wire::agent::approval_rule::Answer;
use stigmer_sdk::wire::agent::approvals::Mode;
use stigmer_sdk::wire::agent::{ApprovalRule, Approvals};

/// What to do with a call. The text says which rule, or the mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Run,
    Ask(String),
    Deny(String),
}

/// What holds for the calls of one execution.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    mode: Mode,
    rules: Vec<ApprovalRule>,
}

impl Policy {
    /// `layers` are the execution's own word, the agent's and the operator's,
    /// as far as there is one. What the operator denies nobody allows.
    pub(crate) fn of(layers: [Option<&Approvals>; 3]) -> Self {
        let said = layers
            .into_iter()
            .flatten()
            .map(Approvals::mode)
            .find(|&mode| mode != Mode::Unspecified);
        let denied = layers[2].into_iter().flat_map(|operator| &operator.rules);
        let denied = denied.filter(|rule| rule.answer() == Answer::Deny);
        let all = layers.into_iter().flatten().flat_map(|layer| &layer.rules);
        Self {
            mode: said.unwrap_or(Mode::Never),
            rules: denied.chain(all).cloned().collect(),
        }
    }

    /// The first rule that fits counts, else the mode. A call has several
    /// subjects if its path can be written in more than one way, and fits if
    /// any of them does.
    pub(crate) fn judge(&self, tool: &str, changes: bool, subjects: &[String]) -> Verdict {
        let fits = |rule: &&ApprovalRule| {
            (rule.tool.is_empty() || rule.tool == tool)
                && (rule.pattern.is_empty()
                    || subjects.iter().any(|subject| {
                        matches(&rule.pattern, subject, rule.answer() == Answer::Allow)
                    }))
        };
        if let Some(rule) = self.rules.iter().find(fits) {
            return match rule.answer() {
                Answer::Allow => Verdict::Run,
                Answer::Deny => Verdict::Deny(described(rule)),
                // A rule from a later version is not to let anything pass.
                Answer::Ask | Answer::Unspecified => Verdict::Ask(described(rule)),
            };
        }
        match self.mode {
            Mode::Ask if changes => Verdict::Ask("it changes something (approve: ask)".to_owned()),
            Mode::Always => Verdict::Ask("every call is asked about (approve: always)".to_owned()),
            Mode::Ask | Mode::Never | Mode::Unspecified => Verdict::Run,
        }
    }
}

fn described(rule: &ApprovalRule) -> String {
    let tool = if rule.tool.is_empty() {
        "any tool"
    } else {
        &rule.tool
    };
    if rule.pattern.is_empty() {
        format!("the rule for {tool}")
    } else {
        format!("the rule for {tool} with '{}'", rule.pattern)
    }
}

/// What makes more than one command of a line of shell, or sends it elsewhere.
const SHELL: &[char] = &[';', '&', '|', '<', '>', '(', ')', '`', '$', '\n'];

/// Whether the whole text is what the pattern says, in which `*` stands for any
/// text, also for none and for several lines. `narrowly`, it stands for nothing
/// of [`SHELL`] unless it is the whole pattern: who allows `git *` does not mean
/// `git status; rm -rf ~`.
fn matches(pattern: &str, text: &str, narrowly: bool) -> bool {
    let meant = |text: &str| text.matches(SHELL).count();
    if narrowly && pattern != "*" && meant(text) > meant(pattern) {
        return false;
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    // The earliest place for each part leaves the most for those after it.
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        #[track_caller]
        fn check(pattern: &str, text: &str, expected: bool) {
            assert_eq!(matches(pattern, text, false), expected, "{pattern} {text}");
        }
        check("git push", "git push", true);
        check("git push", "git push --force", false);
        check("git *", "git push\nrm -rf /", true);
        check("*", "", true);
        check("*rm*", "sudo rm -rf /", true);
        check("*rm -rf*", "rm -r", false);
        check("a*b*c", "abc", true);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "ac", false);
        check("ab*ba", "aba", false);
        check("src/*.rs", "src/a/b.rs", true);
        check("**", "x", true);
        check("", "x", false);
    }

    fn rule(tool: &str, pattern: &str, answer: Answer) -> ApprovalRule {
        ApprovalRule {
            tool: tool.to_owned(),
            pattern: pattern.to_owned(),
            answer: answer.into(),
        }
    }

    fn approvals(mode: Mode, rules: Vec<ApprovalRule>) -> Approvals {
        Approvals {
            mode: mode.into(),
            rules,
        }
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let own = approvals(
            Mode::Unspecified,
            vec![
                rule("execute", "git status*", Answer::Allow),
                rule("delete", "*", Answer::Allow),
            ],
        );
        let default = approvals(
            Mode::Ask,
            vec![
                rule("execute", "git *", Answer::Ask),
                rule("", "*.env", Answer::Deny),
                rule("delete", "", Answer::Deny),
            ],
        );
        let policy = Policy::of([Some(&own), None, Some(&default)]);
        let judge =
            |tool: &str, changes, subject: &str| policy.judge(tool, changes, &[subject.to_owned()]);
        assert_eq!(judge("execute", true, "git status -s"), Verdict::Run);
        assert_eq!(
            judge("execute", true, "git push"),
            Verdict::Ask("the rule for execute with 'git *'".to_owned())
        );
        assert_eq!(
            judge("read_file", false, "a/.env"),
            Verdict::Deny("the rule for any tool with '*.env'".to_owned())
        );
        assert_eq!(
            judge("delete", true, "a"),
            Verdict::Deny("the rule for delete".to_owned())
        );
        assert!(matches!(judge("write_file", true, "a"), Verdict::Ask(_)));
        assert_eq!(judge("read_file", false, "a"), Verdict::Run);
        // Any spelling of the path will do.
        let both = ["x".to_owned(), "/w/.env".to_owned()];
        assert!(matches!(policy.judge("ls", false, &both), Verdict::Deny(_)));
    }

    #[test]
    fn what_is_allowed_is_one_command() {
        #[track_caller]
        fn check(pattern: &str, text: &str, expected: bool) {
            assert_eq!(matches(pattern, text, true), expected, "{pattern} {text}");
        }
        check("git *", "git status -s", true);
        for more in [
            "git status; rm -rf ~",
            "git log | sh",
            "git x\nrm y",
            "git $(rm y)",
            "git `rm y`",
            "git x >y",
            "git x & rm y",
        ] {
            check("git *", more, false);
        }
        check("git log | head *", "git log | head -3", true);
        check("git log | head *", "git log | head -3; rm y", false);
        check("*", "anything; at all", true);
    }

    #[test]
    fn the_mode_is_the_executions_own_before_the_operators() {
        #[track_caller]
        fn check(own: Mode, default: Mode, changes: bool, asks: bool) {
            let policy = Policy::of([
                Some(&approvals(own, Vec::new())),
                None,
                Some(&approvals(default, Vec::new())),
            ]);
            let verdict = policy.judge("x", changes, &[String::new()]);
            assert_eq!(matches!(verdict, Verdict::Ask(_)), asks, "{verdict:?}");
        }
        check(Mode::Unspecified, Mode::Unspecified, true, false);
        check(Mode::Unspecified, Mode::Ask, true, true);
        check(Mode::Unspecified, Mode::Ask, false, false);
        check(Mode::Never, Mode::Always, true, false);
        check(Mode::Always, Mode::Never, false, true);
        assert_eq!(Policy::of([None; 3]).judge("x", true, &[]), Verdict::Run);
    }
}
