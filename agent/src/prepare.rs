//! An execution as it was claimed, and what it needs before its first turn: its
//! model, its tools, its prompt, and what was said before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use stigmer_sdk::wire::agent::{self, EnvValue};
use stigmer_sdk::wire::required;
use stigmer_sdk::{Error, ErrorCode, Result};

use crate::approve::Policy;
use crate::ask::failed;
use crate::daemon::{Daemon, call, from_status};
use crate::history::Conversation;
use crate::limits::{Limits, Spent};
use crate::mask::Mask;
use crate::model::{Failure, Model, Provider, Providers};
use crate::prompt::{self, Place};
use crate::report::Reporter;
use crate::sandbox::{Sandbox, told};
use crate::skills;
use crate::tools::Toolbox;
use crate::turn::{Held, Job, Progress};

/// What tells a model that it is not the first to try. Its conversation begins
/// anew, as the record of an attempt does; the sandbox does not.
const AGAIN: &str = "An earlier attempt at this was interrupted, and you do not know how far it came. \
What it began may be half done or done already: look at how things are before you do it again.";

/// The models there are, by provider.
pub(crate) type Connect =
    dyn Fn(Provider) -> std::result::Result<Arc<dyn Model>, Failure> + Send + Sync;

/// What all executions of a runner share.
pub(crate) struct Shared {
    pub(crate) providers: Providers,
    pub(crate) connect: Box<Connect>,
}

/// An execution that was claimed, as far as it makes sense.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) execution: agent::Execution,
    session: agent::Session,
    pub(crate) lease: agent::Lease,
    default_limits: Option<agent::ExecutionLimits>,
    default_approvals: Option<agent::Approvals>,
}

impl TryFrom<agent::Work> for Claimed {
    type Error = Error;

    fn try_from(work: agent::Work) -> Result<Self> {
        Ok(Self {
            execution: required("work.execution", work.execution)?,
            session: required("work.session", work.session)?,
            lease: required("work.lease", work.lease)?,
            default_limits: work.default_limits,
            default_approvals: work.default_approvals,
        })
    }
}

impl Claimed {
    pub(crate) fn spec(&self) -> agent::ExecutionSpec {
        self.execution.spec.clone().unwrap_or_default()
    }

    pub(crate) fn status(&self) -> agent::ExecutionStatus {
        self.execution.status.clone().unwrap_or_default()
    }

    fn agent(&self) -> agent::AgentSpec {
        let spec = self.session.spec.as_ref();
        spec.and_then(|spec| spec.agent.clone()).unwrap_or_default()
    }

    pub(crate) fn ttl(&self) -> Duration {
        Duration::from_millis(self.lease.ttl_ms.max(1))
    }

    pub(crate) fn limits(&self) -> Limits {
        let (spec, agent) = (self.spec(), self.agent());
        Limits::first_of([
            spec.limits.as_ref(),
            agent.limits.as_ref(),
            self.default_limits.as_ref(),
        ])
    }

    /// The agent's variables, and the execution's over them.
    fn env(&self) -> HashMap<String, EnvValue> {
        let mut env = self.agent().env;
        env.extend(self.spec().env);
        env
    }
}

/// What is never shown: the secrets of the execution, and the keys to the
/// providers, should a server ever repeat one.
pub(crate) fn mask(shared: &Shared, claimed: &Claimed) -> Mask {
    let env = claimed.env();
    let secrets = env
        .values()
        .filter(|value| value.secret)
        .map(|value| value.value.as_str());
    let providers = &shared.providers;
    let keys = [&providers.anthropic, &providers.openai, &providers.ollama];
    let keys = keys
        .into_iter()
        .filter_map(|endpoint| endpoint.key.as_ref());
    Mask::new(secrets.chain(keys.map(|key| key.expose())))
}

/// Gathers everything that the work takes.
pub(crate) async fn prepare(
    shared: &Shared,
    daemon: &Daemon,
    claimed: &Claimed,
    held: &Arc<Held>,
    reporter: &Reporter,
) -> Result<Job> {
    let (spec, agent, status) = (claimed.spec(), claimed.agent(), claimed.status());
    let (provider, model_name) = chosen(&shared.providers, &spec, &agent);
    let model = (shared.connect)(provider).map_err(|failure| failed(&failure))?;
    let mask = Arc::new(mask(shared, claimed));
    let sandbox = Sandbox::open(daemon.clone(), &claimed.session.sandbox_id).await?;
    let env = claimed
        .env()
        .into_iter()
        .map(|(name, value)| (name, value.value))
        .collect();
    let tools = Toolbox::new(sandbox, &agent.tools, env, Arc::clone(&mask))?;
    skills::write(&tools.sandbox, &agent.skills).await?;
    let agents_md = agents_md(&tools.sandbox).await;
    let names: Vec<_> = tools.definitions().iter().map(|tool| tool.name).collect();
    let system = prompt::system(
        &agent,
        &Place {
            workspace: &tools.sandbox.workspace,
            tools: &names,
            agents_md: agents_md.as_deref().map(|text| mask.text(text)).as_deref(),
        },
    );
    let (messages, calls) = history(daemon, claimed).await?;
    let mut job = Job {
        name: format!("{}-{}", claimed.execution.execution_id, status.attempt),
        model,
        model_name,
        system,
        request: spec.message.clone(),
        tools,
        policy: Policy::of([
            spec.approvals.as_ref(),
            claimed.agent().approvals.as_ref(),
            claimed.default_approvals.as_ref(),
        ]),
        limits: claimed.limits(),
        mask,
        reporter: reporter.clone(),
        held: Arc::clone(held),
        conversation: Conversation::recorded(&messages, &calls),
        spent: Spent::from(status.usage),
        todos: None,
        progress: Progress::default(),
    };
    job.record_request();
    if status.attempt > 1 {
        job.nudge("tried again: the attempt before was interrupted", AGAIN);
    }
    Ok(job)
}

/// The provider and the model that an execution names, its agent, or the
/// configuration, in this order.
fn chosen(
    providers: &Providers,
    spec: &agent::ExecutionSpec,
    agent: &agent::AgentSpec,
) -> (Provider, String) {
    let named = [spec.model.as_deref().unwrap_or_default(), &agent.model];
    let Some(named) = named.into_iter().find(|name| !name.is_empty()) else {
        let model = providers.model.clone();
        let default = || providers.default.default_model().to_owned();
        return (providers.default, model.unwrap_or_else(default));
    };
    // A model's own name may have a `/` in it too.
    match named
        .split_once('/')
        .map(|(provider, model)| (Provider::named(provider), model))
    {
        Some((Some(provider), "")) => (provider, provider.default_model().to_owned()),
        Some((Some(provider), model)) => (provider, model.to_owned()),
        Some((None, _)) | None => (providers.default, named.to_owned()),
    }
}

/// `AGENTS.md` in the workspace. That it cannot be read is no reason not to
/// work.
async fn agents_md(sandbox: &Sandbox) -> Option<String> {
    let most = prompt::AGENTS_MD_BYTES as u64 + 1;
    match sandbox.read_head("AGENTS.md", most).await {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.code() == ErrorCode::NotFound => None,
        Err(error) => {
            tracing::warn!(error = told(&error), "cannot read AGENTS.md");
            None
        }
    }
}

/// What was said in the session before.
async fn history(
    daemon: &Daemon,
    claimed: &Claimed,
) -> Result<(Vec<agent::Message>, Vec<agent::ToolCall>)> {
    let request = agent::HistoryRequest {
        session_id: claimed.session.session_id.clone(),
        before_execution_id: Some(claimed.execution.execution_id.clone()),
    };
    let answer = daemon.sessions().history(call(request)).await;
    let mut parts = answer.map_err(from_status)?.into_inner();
    let (mut messages, mut calls) = (Vec::new(), Vec::new());
    while let Some(part) = parts.message().await.map_err(from_status)? {
        messages.extend(part.messages);
        calls.extend(part.tool_calls);
    }
    Ok((messages, calls))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Endpoint;

    fn providers() -> Providers {
        let endpoint = || Endpoint {
            base_url: "http://localhost:1".to_owned(),
            key: None,
        };
        Providers {
            default: Provider::OpenAi,
            model: Some("configured".to_owned()),
            anthropic: endpoint(),
            openai: endpoint(),
            ollama: endpoint(),
        }
    }

    #[test]
    fn the_nearest_model_is_chosen() {
        #[track_caller]
        fn check(execution: Option<&str>, agent: &str, expected: (Provider, &str)) {
            let spec = agent::ExecutionSpec {
                model: execution.map(str::to_owned),
                ..agent::ExecutionSpec::default()
            };
            let agent = agent::AgentSpec {
                model: agent.to_owned(),
                ..agent::AgentSpec::default()
            };
            let (provider, model) = chosen(&providers(), &spec, &agent);
            assert_eq!((provider, model.as_str()), expected);
        }
        check(None, "", (Provider::OpenAi, "configured"));
        check(Some(""), "", (Provider::OpenAi, "configured"));
        check(None, "gpt-x", (Provider::OpenAi, "gpt-x"));
        check(
            Some("anthropic/claude-x"),
            "gpt-x",
            (Provider::Anthropic, "claude-x"),
        );
        check(
            Some("ollama/"),
            "",
            (Provider::Ollama, Provider::Ollama.default_model()),
        );
        check(None, "meta/llama-3", (Provider::OpenAi, "meta/llama-3"));
        check(
            None,
            "ollama/meta/llama-3",
            (Provider::Ollama, "meta/llama-3"),
        );
    }

    #[test]
    fn an_executions_variables_come_over_the_agents() {
        let value = |value: &str, secret| EnvValue {
            value: value.to_owned(),
            secret,
        };
        let env = |values: &[(&str, EnvValue)]| {
            values
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect()
        };
        let agent = agent::AgentSpec {
            env: env(&[
                ("A", value("agent", false)),
                ("B", value("agent-secret", true)),
            ]),
            ..agent::AgentSpec::default()
        };
        let work = agent::Work {
            execution: Some(agent::Execution {
                spec: Some(agent::ExecutionSpec {
                    env: env(&[("A", value("run-secret", true))]),
                    ..agent::ExecutionSpec::default()
                }),
                ..agent::Execution::default()
            }),
            session: Some(agent::Session {
                spec: Some(agent::SessionSpec {
                    agent: Some(agent),
                    ..agent::SessionSpec::default()
                }),
                ..agent::Session::default()
            }),
            lease: Some(agent::Lease::default()),
            ..agent::Work::default()
        };
        let claimed = Claimed::try_from(work).unwrap();
        assert_eq!(claimed.env()["A"].value, "run-secret");
        assert_eq!(claimed.env()["B"].value, "agent-secret");
        let shared = Shared {
            providers: providers(),
            connect: Box::new(|_| unreachable!("nobody asks")),
        };
        let text = mask(&shared, &claimed).text("run-secret agent-secret agent");
        assert_eq!(text, "*** *** agent");
        let work = agent::Work::default();
        assert!(
            Claimed::try_from(work)
                .unwrap_err()
                .message()
                .contains("work.execution")
        );
    }
}
