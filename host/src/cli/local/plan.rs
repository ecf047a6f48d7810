//! What is asked for: settings as somebody wrote them, how those differ from
//! what runs, and the key that they take.
//!
//! A setting that nobody wrote is not asked for. So `stigmer local start`
//! without any is content with a daemon that was started with some, and a
//! restart keeps what it does not change.

use std::net::SocketAddr;

use clap::Args;
use stigmer_sdk::wire::host::StatusResponse;

use super::super::agent_runner;
use super::super::failure::{Failure, Result};
use super::super::output::Output;
use super::prompt::Tty;
use crate::config::{Config, Flags, Provider, Secret, Source};
use crate::local::handover::Handover;
use crate::local::provider;

const SANDBOX_TYPE: &str = "SANDBOX_TYPE";
const SANDBOX_ROOT_DIR: &str = "SANDBOX_ROOT_DIR";
const PORT: &str = "STIGMER_PORT";
const PROVIDER: &str = "STIGMER_LLM_PROVIDER";
const MODEL: &str = "STIGMER_LLM_MODEL";

/// What a daemon is started with.
#[derive(Args, Debug)]
pub(super) struct SettingArgs {
    /// What sandboxes are made of [default: filesystem]
    #[arg(long, value_name = "TYPE")]
    sandbox: Option<String>,

    /// The directory that is the workspace [default: ./workspace]
    #[arg(long, value_name = "DIR")]
    root: Option<std::path::PathBuf>,

    /// The port on 127.0.0.1; 0: any that is free [default: 50051]
    #[arg(long, value_name = "N")]
    port: Option<String>,

    /// Whose model agents ask: anthropic, openai or ollama [default: ollama if it answers, else anthropic]
    #[arg(long, value_name = "P")]
    provider: Option<String>,

    /// Which model agents ask [default: the provider's]
    #[arg(long, value_name = "M")]
    model: Option<String>,

    /// Never ask for a key: fail if one is missing
    #[arg(long)]
    pub(super) no_input: bool,
}

impl SettingArgs {
    pub(super) fn add_to(&self, flags: &mut Flags) {
        flags.sandbox.clone_from(&self.sandbox);
        flags.root.clone_from(&self.root);
        flags.port.clone_from(&self.port);
        flags.provider.clone_from(&self.provider);
        flags.model.clone_from(&self.model);
    }
}

/// Whether somebody wrote a value for this setting.
pub(super) fn is_asked(config: &Config, variable: &str) -> bool {
    config.sources.iter().any(|row| {
        row.name == variable
            && match row.source {
                Source::Flag(_) | Source::Environment(_) | Source::File { .. } => true,
                Source::Default | Source::Unset | Source::Unread(_) => false,
            }
    })
}

/// The port that a daemon listens on.
pub(super) fn port(running: &StatusResponse) -> Option<u16> {
    let address: SocketAddr = running.tcp.parse().ok()?;
    Some(address.port())
}

/// A setting that the running daemon has another value of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    name: &'static str,
    running: String,
    asked: String,
    /// What a restart has to be told.
    flag: String,
}

/// What was asked for and does not run.
pub(super) fn differences(
    config: &Config,
    with_runner: bool,
    running: &StatusResponse,
) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut compare = |variable: Option<&str>, name, flag: &str, running: &str, asked: &str| {
        let asked_for = variable.is_none_or(|variable| is_asked(config, variable));
        if asked_for && running != asked {
            found.push(Difference {
                name,
                running: running.to_owned(),
                asked: asked.to_owned(),
                flag: format!("{flag} {}", quoted(asked)),
            });
        }
    };
    compare(
        Some(SANDBOX_TYPE),
        "sandbox type",
        "--sandbox",
        &running.sandbox_type,
        &config.sandbox,
    );
    compare(
        Some(SANDBOX_ROOT_DIR),
        "sandbox root",
        "--root",
        &running.sandbox_root,
        &config.root.display().to_string(),
    );
    // Any that is free is also the one it has.
    if config.port != 0 {
        let running = port(running).map_or_else(|| running.tcp.clone(), |port| port.to_string());
        compare(
            Some(PORT),
            "port",
            "--port",
            &running,
            &config.port.to_string(),
        );
    }
    match (&running.runner, with_runner) {
        (Some(runner), true) => {
            let provider = config.llm.provider.map_or("", Provider::as_str);
            compare(
                Some(PROVIDER),
                "provider",
                "--provider",
                &runner.provider,
                provider,
            );
            let model = config.llm.model.as_deref().unwrap_or_default();
            compare(Some(MODEL), "model", "--model", &runner.model, model);
        }
        (None, false) => {}
        (running, with_runner) => {
            let word = |with: bool| if with { "yes" } else { "no" }.to_owned();
            let flag = if with_runner {
                "--agent-runner"
            } else {
                "--no-agent-runner"
            };
            found.push(Difference {
                name: "agent runner",
                running: word(running.is_some()),
                asked: word(with_runner),
                flag: flag.to_owned(),
            });
        }
    }
    found
}

/// The failure to have a daemon with other settings than the one there is.
pub(super) fn conflict(differences: &[Difference], running: &StatusResponse) -> Failure {
    let (lines, flags): (Vec<_>, Vec<_>) = differences
        .iter()
        .map(|difference| {
            let Difference {
                name,
                running,
                asked,
                flag,
            } = difference;
            let line = format!("\n  {name}: {running} is running, {asked} was asked for");
            (line, flag.as_str())
        })
        .unzip();
    Failure::failed(format!(
        "the daemon is already running, process {}, with other settings:{}",
        running.pid,
        lines.concat()
    ))
    .hint(format!(
        "to change them, which ends what is under way: stigmer local restart {}",
        flags.join(" ")
    ))
}

/// As a shell has to be told it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The flags of a restart: what was asked for, and of the rest what runs.
pub(super) fn keep(mut flags: Flags, config: &Config, running: &StatusResponse) -> Flags {
    let kept = |variable: &str, running: &str| {
        (!is_asked(config, variable) && !running.is_empty()).then(|| running.to_owned())
    };
    let port = port(running).map(|port| port.to_string());
    flags.sandbox = flags.sandbox.or(kept(SANDBOX_TYPE, &running.sandbox_type));
    flags.root = flags
        .root
        .or(kept(SANDBOX_ROOT_DIR, &running.sandbox_root).map(Into::into));
    flags.port = flags.port.or(kept(PORT, &port.unwrap_or_default()));
    if let Some(runner) = &running.runner {
        flags.provider = flags.provider.or(kept(PROVIDER, &runner.provider));
        // Another provider has other models.
        if flags
            .provider
            .as_deref()
            .is_none_or(|asked| asked == runner.provider)
        {
            flags.model = flags.model.or(kept(MODEL, &runner.model));
        }
    }
    flags
}

/// The model that the runner asks.
#[derive(Debug)]
pub(super) struct ModelChoice {
    pub(super) provider: Provider,
    pub(super) name: String,
}

/// Everything that a daemon is started with.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) config: &'a Config,
    /// `None`: without a runner.
    pub(super) model: Option<ModelChoice>,
    pub(super) keys: Handover,
    pub(super) output: &'a Output,
}

impl<'a> Plan<'a> {
    /// Decides what is left open, and asks for a key that is missing.
    pub(super) async fn make(
        config: &'a Config,
        with_runner: bool,
        no_input: bool,
        output: &'a Output,
    ) -> Result<Self> {
        let mut keys = given_keys(config)?;
        let mut model = None;
        if with_runner {
            let provider = provider::choose(&config.llm).await;
            // What a script needs is for it to say.
            if config.agent_runner.is_none() {
                agent_runner::reachable(&config.llm, provider)?;
                if let Some(variable) = config.llm.missing_key(provider) {
                    let key = ask(provider, variable, no_input, output).await?;
                    keys.insert(variable, key)?;
                    output.note(format!("✓ {} API key configured", provider.title()));
                }
            }
            model = Some(ModelChoice {
                provider,
                name: config.llm.model(provider).to_owned(),
            });
        }
        Ok(Self {
            config,
            model,
            keys,
            output,
        })
    }
}

/// The keys that are in our environment, which the daemon's is to be without.
/// Those in the config file it reads by itself.
fn given_keys(config: &Config) -> Result<Handover> {
    let mut keys = Handover::new();
    for (variable, value) in [
        ("STIGMER_API_KEY", Some(&config.api_key)),
        ("ANTHROPIC_API_KEY", config.llm.anthropic_api_key.as_ref()),
        ("OPENAI_API_KEY", config.llm.openai_api_key.as_ref()),
        ("DAYTONA_API_KEY", config.daytona.api_key.as_ref()),
    ] {
        let from_environment = config
            .sources
            .iter()
            .any(|row| row.name == variable && matches!(row.source, Source::Environment(_)));
        if let Some(value) = value
            && from_environment
        {
            keys.insert(variable, value.clone())?;
        }
    }
    Ok(keys)
}

async fn ask(
    provider: Provider,
    variable: &str,
    no_input: bool,
    output: &Output,
) -> Result<Secret> {
    let missing = |why: &str| {
        Failure::failed(format!(
            "failed to gather required secrets: {variable} is not set, and {why}"
        ))
        .hint(format!(
            "set {variable} in the environment, or choose a provider that needs no key: --provider ollama"
        ))
    };
    if no_input {
        return Err(missing("--no-input forbids to ask for it"));
    }
    let Some(terminal) = Tty::open()? else {
        return Err(missing("there is no terminal to ask for it on"));
    };
    terminal
        .key(&format!("{} API key", provider.title()), output)
        .await
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
