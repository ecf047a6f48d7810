//! What agents may do, unless an execution or its agent says otherwise.

use std::fmt;
use std::time::Duration;

use super::file::{APPROVALS, Table};
use super::lookup::{Resolver, did_you_mean};
use super::settings;
use super::{ConfigFile, Problem, Row, Source, values};

/// What an agent's tools are called. A rule about a tool that is misspelt
/// would be one about nothing.
pub const TOOLS: [&str; 10] = [
    "execute",
    "process",
    "read_file",
    "write_file",
    "edit_file",
    "ls",
    "glob",
    "grep",
    "delete",
    "write_todos",
];

/// Which tool calls wait for somebody's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approve {
    /// None but those that a rule says.
    Never,
    /// Those that change something.
    Ask,
    /// All.
    Always,
}

impl Approve {
    const ALL: [Self; 3] = [Self::Never, Self::Ask, Self::Always];

    /// As `STIGMER_APPROVE` spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Ask => "ask",
            Self::Always => "always",
        }
    }
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It goes ahead.
    Allow,
    /// Somebody is asked.
    Ask,
    /// It does not.
    Deny,
}

impl Answer {
    const ALL: [Self; 3] = [Self::Allow, Self::Ask, Self::Deny];

    /// As the config file spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}

/// One of `[[approvals]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalRule {
    /// A tool's name; `None`: any.
    pub tool: Option<String>,
    /// The whole command, or the path, with `*` for any text; `None`: any.
    pub pattern: Option<String>,
    /// What becomes of a call that fits.
    pub answer: Answer,
}

impl fmt::Display for ApprovalRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tool = self.tool.as_deref().unwrap_or("any tool");
        write!(f, "{} {tool}", self.answer.as_str())?;
        match &self.pattern {
            Some(pattern) => write!(f, " '{}'", pattern.escape_debug()),
            None => Ok(()),
        }
    }
}

/// What agents may do, unless somebody says otherwise. A bound that is `None`
/// is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPolicy {
    /// For calls that no rule fits.
    pub approve: Approve,
    /// The first that fits counts.
    pub approvals: Vec<ApprovalRule>,
    /// Calls of the model in one execution.
    pub max_turns: Option<u32>,
    /// Input and output together, in one execution.
    pub max_tokens: Option<u64>,
    /// Of one execution.
    pub execution_timeout: Option<Duration>,
    /// Of one execution, in millionths of a US dollar.
    pub max_cost_microusd: Option<u64>,
}

impl Default for AgentPolicy {
    fn default() -> Self {
        Self {
            // As with a command that is typed: whoever starts an agent in a
            // sandbox means it to work.
            approve: Approve::Never,
            approvals: Vec::new(),
            // What needs more has mostly lost its way.
            max_turns: Some(100),
            max_tokens: None,
            // Two full builds of the longest command there may be by default.
            execution_timeout: Some(Duration::from_secs(60 * 60)),
            max_cost_microusd: None,
        }
    }
}

impl AgentPolicy {
    /// The rules as `config show` prints them, if there are any.
    pub(super) fn row(&self, file: Option<&ConfigFile>) -> Option<Row> {
        let file = file?;
        let first = file.approvals.first()?;
        let rules: Vec<_> = self.approvals.iter().map(ToString::to_string).collect();
        Some(Row {
            name: APPROVALS,
            value: rules.join(", "),
            source: Source::File {
                path: file.path.clone(),
                line: first.line,
            },
            secret: false,
        })
    }
}

impl Resolver<'_> {
    pub(super) fn agents(&mut self) -> AgentPolicy {
        fn or_none<T>(bound: Option<&T>, show: impl Fn(&T) -> String) -> String {
            bound.map_or_else(|| "none".to_owned(), show)
        }
        let defaults = AgentPolicy::default();
        AgentPolicy {
            approve: self.value(
                &settings::APPROVE,
                defaults.approve,
                |value| {
                    named(
                        value,
                        "approval is asked for",
                        Approve::ALL,
                        Approve::as_str,
                    )
                },
                |approve| approve.as_str().to_owned(),
            ),
            approvals: self.approvals(),
            max_turns: self.value(
                &settings::MAX_TURNS,
                defaults.max_turns,
                |value| values::bound(value, values::count),
                |bound| or_none(bound.as_ref(), u32::to_string),
            ),
            max_tokens: self.value(
                &settings::MAX_TOKENS,
                defaults.max_tokens,
                |value| values::bound(value, values::count),
                |bound| or_none(bound.as_ref(), u64::to_string),
            ),
            execution_timeout: self.value(
                &settings::EXECUTION_TIMEOUT,
                defaults.execution_timeout,
                |value| values::bound(value, values::duration),
                |bound| {
                    or_none(bound.as_ref(), |bound| {
                        humantime::format_duration(*bound).to_string()
                    })
                },
            ),
            max_cost_microusd: self.value(
                &settings::MAX_COST,
                defaults.max_cost_microusd,
                |value| values::bound(value, values::dollars),
                |bound| or_none(bound.as_ref(), |cost| values::show_dollars(*cost)),
            ),
        }
    }

    fn approvals(&mut self) -> Vec<ApprovalRule> {
        let Some(file) = self.inputs.file else {
            return Vec::new();
        };
        let mut rules = Vec::with_capacity(file.approvals.len());
        for table in &file.approvals {
            match rule(table) {
                Ok(rule) => rules.push(rule),
                Err(problems) => {
                    let at = |(line, problem)| {
                        Problem(format!("{}:{line}: {problem}", file.path.display()))
                    };
                    self.problems.extend(problems.into_iter().map(at));
                }
            }
        }
        rules
    }
}

/// The one of `all` with this name.
fn named<T: Copy, const N: usize>(
    value: &str,
    what: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> Result<T, String> {
    let names = all.map(name);
    all.into_iter()
        .find(|one| name(*one) == value)
        .ok_or_else(|| {
            let meant = did_you_mean(value, &names);
            format!("{what} {}{meant}", names.join(", "))
        })
}

/// What a table means, or everything that is wrong with it and on which line.
fn rule(table: &Table) -> Result<ApprovalRule, Vec<(usize, String)>> {
    const KEYS: [&str; 3] = ["tool", "pattern", "answer"];
    let mut problems = Vec::new();
    for (key, entry) in &table.entries {
        let key = key.escape_debug().to_string();
        if !KEYS.contains(&key.as_str()) {
            let meant = did_you_mean(&key, &KEYS);
            problems.push((
                entry.line,
                format!(
                    "a rule of [[approvals]] has the unknown key '{key}'{meant}; allowed are {}",
                    KEYS.join(", ")
                ),
            ));
        } else if entry.value.as_str().is_none_or(str::is_empty) {
            let what = match &entry.value {
                toml::Value::String(_) => "empty",
                other => other.type_str(),
            };
            problems.push((
                entry.line,
                format!("{key} is {what}: it is a string, and left out for any"),
            ));
        }
    }
    // What was just said of a value is not said again.
    let text = |key: &str| {
        let entry = table.entries.get(key)?;
        let value = entry.value.as_str().filter(|value| !value.is_empty())?;
        Some((entry.line, value))
    };
    let tool = text("tool");
    if let Some((line, tool)) = tool
        && !TOOLS.contains(&tool)
    {
        let meant = did_you_mean(tool, &TOOLS);
        problems.push((
            line,
            format!(
                "tool is '{}': there is no such tool{meant}; there are {}",
                tool.escape_debug(),
                TOOLS.join(", ")
            ),
        ));
    }
    let answer = match text("answer") {
        Some((line, answer)) => named(answer, "an answer is", Answer::ALL, Answer::as_str)
            .map_err(|rule| {
                let answer = answer.escape_debug();
                problems.push((line, format!("answer is '{answer}': {rule}")));
            })
            .ok(),
        None => {
            if !table.entries.contains_key("answer") {
                problems.push((
                    table.line,
                    "a rule of [[approvals]] has no answer: allow, ask or deny".to_owned(),
                ));
            }
            None
        }
    };
    match answer {
        Some(answer) if problems.is_empty() => Ok(ApprovalRule {
            tool: tool.map(|(_, tool)| tool.to_owned()),
            pattern: text("pattern").map(|(_, pattern)| pattern.to_owned()),
            answer,
        }),
        _ => {
            problems.sort();
            Err(problems)
        }
    }
}
