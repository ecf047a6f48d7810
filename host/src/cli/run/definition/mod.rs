//! `agent.toml`: what an agent is, as a file that can be kept with a project.
//!
//! Everything wrong with it is reported at once, with its line. Nothing in it
//! is a secret: a secret is taken `from` the environment.

mod source;

use std::path::{Path, PathBuf};

use stigmer_sdk::wire::agent::{
    AgentSpec, ApprovalRule, EnvValue, ExecutionLimits, approval_rule::Answer, approvals::Mode,
};

use self::source::{Source, Value};
use super::env;
use super::limits::{microdollars, millis};
use super::skill;
use crate::cli::failure::{Failure, Result};
use crate::cli::value::{self, Environment};
use crate::config;

/// What `--help` says of the file.
pub(super) const EXAMPLE: &str = "\
An agent file, of which everything is optional:
  name = \"reviewer\"
  instructions = \"You review Rust.\"          # or instructions_file = \"PROMPT.md\"
  provider = \"anthropic\"                     # anthropic, openai or ollama; with a model
  model = \"claude-sonnet-5-5\"
  tools = [\"execute\", \"read_file\", \"grep\"]   # all, if there is no list
  skills = [\"skills/clippy\"]                 # folders with a SKILL.md
  approve = \"ask\"                            # never, ask or always
  env = { CI = \"1\", TOKEN = { from = \"GITHUB_TOKEN\", secret = true } }
  limits = { max_turns = 50, max_tokens = 200000, timeout = \"30m\", max_cost = 1.50 }

  [[approvals]]                              # the first that fits counts
  tool = \"execute\"
  pattern = \"cargo *\"
  answer = \"allow\"                           # allow, ask or deny
Paths in it start at its own folder.";

const KEYS: &str = "name, instructions, instructions_file, provider, model, tools, skills, env, limits, approve, approvals";
const PROVIDERS: [(&str, &str); 3] = [
    ("anthropic", "anthropic"),
    ("openai", "openai"),
    ("ollama", "ollama"),
];
const MODES: [(&str, Mode); 3] = [
    ("never", Mode::Never),
    ("ask", Mode::Ask),
    ("always", Mode::Always),
];
const ANSWERS: [(&str, Answer); 3] = [
    ("allow", Answer::Allow),
    ("ask", Answer::Ask),
    ("deny", Answer::Deny),
];
/// More text than any model reads before it begins.
const INSTRUCTIONS_BYTES: u64 = 1024 * 1024;

/// Reads an agent file, with everything it names.
pub(super) fn load(path: &Path, around: &Environment) -> Result<AgentSpec> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("cannot read --agent '{}'", path.display())).because(&error)
    })?;
    parse(path, &text, around).map_err(|problems| {
        let mut failure = Failure::usage("");
        failure.problems = problems;
        failure
    })
}

fn parse(path: &Path, text: &str, around: &Environment) -> Result<AgentSpec, Vec<String>> {
    let mut reading = Reading {
        source: Source::new(path, text),
        folder: path.parent().unwrap_or(Path::new("")).to_owned(),
        around,
        agent: AgentSpec::default(),
        provider: None,
        model: None,
        instructed: 0,
    };
    reading.all();
    let problems = reading.source.into_problems();
    if problems.is_empty() {
        Ok(reading.agent)
    } else {
        Err(problems)
    }
}

struct Reading<'i> {
    source: Source<'i>,
    folder: PathBuf,
    around: &'i Environment,
    agent: AgentSpec,
    provider: Option<(usize, &'static str)>,
    model: Option<String>,
    /// How often instructions were given.
    instructed: u32,
}

impl<'i> Reading<'i> {
    fn all(&mut self) {
        let Some(table) = self.source.table() else {
            return;
        };
        for (key, value) in table.get_ref() {
            self.key(key.span().start, key.get_ref(), value);
        }
        self.agent.model = match (self.provider, self.model.take()) {
            (Some((_, provider)), Some(model)) => format!("{provider}/{model}"),
            (None, Some(model)) => model,
            (Some((at, _)), None) => {
                self.source
                    .problem(at, "'provider' needs a 'model' beside it");
                String::new()
            }
            (None, None) => String::new(),
        };
    }

    fn key(&mut self, at: usize, key: &str, value: &Value<'i>) {
        match key {
            "name" => {
                self.agent.name = self
                    .source
                    .string(key, value)
                    .unwrap_or_default()
                    .to_owned()
            }
            "instructions" => {
                self.agent.instructions = self
                    .source
                    .string(key, value)
                    .unwrap_or_default()
                    .to_owned();
                self.instructions(at);
            }
            "instructions_file" => {
                if let Some(path) = self.source.string(key, value) {
                    match read_text(&self.folder.join(path)) {
                        Ok(text) => self.agent.instructions = text,
                        Err(problem) => self
                            .source
                            .problem(value.span().start, format!("'{path}' {problem}")),
                    }
                }
                self.instructions(at);
            }
            "provider" => {
                let provider = self.source.word(key, value, &PROVIDERS);
                self.provider = provider.map(|provider| (at, provider));
            }
            "model" => self.model = self.source.string(key, value).map(str::to_owned),
            "tools" => {
                let tools = config::TOOLS.map(|tool| (tool, tool));
                for item in self.source.list(key, value) {
                    let tool = self.source.word(key, item, &tools);
                    self.agent.tools.extend(tool.map(str::to_owned));
                }
            }
            "skills" => self.skills(value),
            "env" => self.env(value),
            "limits" => self.limits(value),
            "approve" => {
                if let Some(mode) = self.source.word(key, value, &MODES) {
                    self.agent.approvals.get_or_insert_default().set_mode(mode);
                }
            }
            "approvals" => {
                for item in self.source.list(key, value) {
                    self.rule(item);
                }
            }
            _ => self.source.unknown(at, key, "an agent", KEYS),
        }
    }

    fn instructions(&mut self, at: usize) {
        self.instructed += 1;
        if self.instructed > 1 {
            let problem = "either 'instructions' or 'instructions_file', not both";
            self.source.problem(at, problem);
        }
    }

    fn skills(&mut self, value: &Value<'i>) {
        let mut budget = skill::ALL_BYTES;
        let skills = &mut self.agent.skills;
        for item in self.source.list("skills", value) {
            let Some(folder) = self.source.string("skills", item) else {
                continue;
            };
            let at = item.span().start;
            match skill::load(&self.folder.join(folder), &mut budget) {
                Ok(skill) if skills.iter().any(|other| other.name == skill.name) => self
                    .source
                    .problem(at, format!("there are two skills called '{}'", skill.name)),
                Ok(skill) => skills.push(skill),
                Err(problem) => self
                    .source
                    .problem(at, format!("the skill '{folder}': {problem}")),
            }
        }
    }

    fn env(&mut self, value: &Value<'i>) {
        let Some(table) = self.source.entries("env", value) else {
            return;
        };
        for (name, value) in table {
            let at = name.span().start;
            let name = name.get_ref().as_ref();
            if let Some(value) = self.env_value(at, name, value) {
                match env::check(name, &value.value) {
                    Ok(()) => drop(self.agent.env.insert(name.to_owned(), value)),
                    Err(problem) => self.source.problem(at, problem),
                }
            }
        }
    }

    fn env_value(&mut self, at: usize, name: &str, value: &Value<'i>) -> Option<EnvValue> {
        if let Some(text) = value.get_ref().as_str() {
            return Some(EnvValue {
                value: text.to_owned(),
                secret: false,
            });
        }
        let Some(table) = value.get_ref().as_table() else {
            self.source.problem(
                value.span().start,
                format!("'{name}' is a string, {{ value = \"…\" }} or {{ from = \"NAME\" }}"),
            );
            return None;
        };
        let mut given = Vec::new();
        let mut secret = false;
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "value" => given.push(self.source.string("value", value)?.to_owned()),
                "from" => {
                    let from = self.source.string("from", value)?;
                    match env::taken(from, self.around) {
                        Ok(Some(taken)) => given.push(taken.to_owned()),
                        Ok(None) => {
                            let problem = format!("{from} is not set in this environment");
                            self.source.problem(value.span().start, problem);
                            return None;
                        }
                        Err(problem) => {
                            self.source.problem(value.span().start, problem);
                            return None;
                        }
                    }
                }
                "secret" => secret = self.source.boolean("secret", value)?,
                other => {
                    self.source.unknown(
                        key.span().start,
                        other,
                        &format!("'{name}'"),
                        "value, from, secret",
                    );
                    return None;
                }
            }
        }
        if given.len() != 1 {
            self.source
                .problem(at, format!("'{name}' needs either 'value' or 'from'"));
            return None;
        }
        let value = given.pop()?;
        Some(EnvValue { value, secret })
    }

    fn limits(&mut self, value: &Value<'i>) {
        let Some(table) = self.source.entries("limits", value) else {
            return;
        };
        let mut limits = ExecutionLimits::default();
        for (key, value) in table {
            let source = &mut self.source;
            match key.get_ref().as_ref() {
                "max_turns" => limits.max_turns = source.number("max_turns", value),
                "max_tokens" => limits.max_tokens = source.number("max_tokens", value),
                "timeout" => {
                    let timeout = source.typed("timeout", value, value::duration);
                    limits.timeout_ms = timeout.map(millis);
                }
                "max_cost" => {
                    limits.max_cost_microusd = source.typed("max_cost", value, microdollars);
                }
                other => source.unknown(
                    key.span().start,
                    other,
                    "'limits'",
                    "max_turns, max_tokens, timeout, max_cost",
                ),
            }
        }
        self.agent.limits = Some(limits);
    }

    fn rule(&mut self, value: &Value<'i>) {
        let Some(table) = self.source.entries("approvals", value) else {
            return;
        };
        let source = &mut self.source;
        let mut rule = ApprovalRule::default();
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "tool" => {
                    let tools = config::TOOLS.map(|tool| (tool, tool));
                    rule.tool = source
                        .word("tool", value, &tools)
                        .unwrap_or_default()
                        .to_owned();
                }
                "pattern" => {
                    let pattern = source.string("pattern", value).unwrap_or_default();
                    rule.pattern = pattern.to_owned();
                }
                "answer" => {
                    rule.set_answer(source.word("answer", value, &ANSWERS).unwrap_or_default())
                }
                other => source.unknown(
                    key.span().start,
                    other,
                    "a rule of 'approvals'",
                    "tool, pattern, answer",
                ),
            }
        }
        if table.get("answer").is_none() {
            source.problem(
                value.span().start,
                "a rule of 'approvals' needs an 'answer': allow, ask or deny",
            );
        }
        self.agent
            .approvals
            .get_or_insert_default()
            .rules
            .push(rule);
    }
}

/// The text of a file, or what is wrong with it.
fn read_text(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut text = String::new();
    let read = file.take(INSTRUCTIONS_BYTES + 1).read_to_string(&mut text);
    match read {
        Ok(length) if length as u64 > INSTRUCTIONS_BYTES => Err("is longer than 1 MiB".to_owned()),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests;
