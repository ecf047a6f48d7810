//! `stigmer agent-runner`: what asks a language model and does what it says,
//! by hand or under a daemon; or the keeper of a program that does.

use std::future::Future;
use std::io::BufReader;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::time::Duration;

use clap::Args;
use stigmer_sdk::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::Outcome;
use super::failure::{Failure, Result};
use super::output::Output;
use super::value::Environment;
use crate::config::{Config, Flags, Llm, Mode, Provider};
use crate::local::handover::Handover;
use crate::local::keeper::{self, Kept};
use crate::local::life_line::life_line;
use crate::local::{environment, private, provider};

#[derive(Args, Debug)]
pub(super) struct AgentRunnerArgs {
    /// Who makes the model: anthropic, openai or ollama
    #[arg(long, value_name = "PROVIDER")]
    provider: Option<String>,

    /// The model to ask when nobody says which
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// How many executions to work on at once
    #[arg(long, value_name = "N", default_value_t = CONCURRENCY)]
    concurrency: NonZeroUsize,

    /// Take keys from stdin, and end with it: as a daemon starts a runner
    #[arg(long, hide = true)]
    supervised: bool,

    /// Keep a script for the keeper that started this one
    #[arg(long, hide = true, requires = "supervised")]
    second: bool,
}

/// As many as the original took. Nearly all of the time they wait for a model.
const CONCURRENCY: NonZeroUsize = NonZeroUsize::new(10).expect("not zero");

pub(super) const AFTER_HELP: &str = "\
Examples:
  MODE=local stigmer agent-runner
  MODE=local stigmer agent-runner --provider anthropic --concurrency 4

`stigmer local start` runs one beside the daemon. More of them can share it.
Without a mode this is the cloud's runner, which needs the cloud's variables.
STIGMER_AGENT_RUNNER_SCRIPT names a program to run instead.";

impl AgentRunnerArgs {
    pub(super) fn add_to(&self, flags: &mut Flags) {
        flags.provider.clone_from(&self.provider);
        flags.model.clone_from(&self.model);
    }

    /// What is set around this process, with the keys that a daemon hands over.
    pub(super) fn environment(&self, environment: &Environment) -> Result<Environment> {
        if !self.supervised {
            return Ok(environment.clone());
        }
        private::keep_private()?;
        // A list of processes shows it, and /proc/self/exe is no name.
        let _unnamed = rustix::thread::set_name(c"stigmer-runner");
        if !self.second {
            // By its session, a daemon finds what is left of a runner.
            rustix::process::setsid().map_err(|error| {
                Failure::failed("cannot leave the daemon's session")
                    .because(&std::io::Error::from(error))
            })?;
        }
        // A byte at a time, so that no buffer is left with what it read.
        let stdin = BufReader::with_capacity(1, Unbuffered);
        Ok(environment.with(&Handover::read_line(stdin)?))
    }
}

/// Stdin as the system has it: that of the standard library keeps a copy.
pub(super) struct Unbuffered;

impl std::io::Read for Unbuffered {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        Ok(rustix::io::read(rustix::stdio::stdin(), bytes)?)
    }
}

pub(super) async fn run(
    args: &AgentRunnerArgs,
    config: Config,
    output: &Output,
) -> Result<Outcome> {
    let mut stop = Stop::new(args.supervised)?;
    if let Some(script) = &config.agent_runner {
        let kept = if args.supervised && !args.second {
            Kept::Second(Handover::for_runner(&config)?)
        } else {
            Kept::Script {
                program: script.clone(),
                env: environment::of_script(&config),
                cwd: config.data_dir.clone(),
            }
        };
        let ended = keeper::keep(kept, async {
            let _either = stop.asked().await;
        })
        .await?;
        return Ok(Outcome::Command(ended));
    }
    available(&config)?;
    let provider = provider::choose(&config.llm).await;
    usable(&config.llm, provider)?;
    output.text(banner(&config, provider))?;
    tracing::info!("✓ Signal handlers registered (SIGTERM, SIGINT)");

    let shutdown = CancellationToken::new();
    let ready = || tracing::info!("🚀 Worker ready, polling for tasks...");
    let mut work = std::pin::pin!(work(
        &config,
        provider,
        args.concurrency,
        ready,
        shutdown.clone().cancelled_owned(),
    ));
    let asked = tokio::select! {
        ended = &mut work => return ended.map(|()| Outcome::Success),
        asked = stop.asked() => asked,
    };
    tracing::info!("🛑 Received shutdown signal, stopping worker gracefully...");
    shutdown.cancel();
    let patience = match asked {
        Asked::Signal(_) => None,
        Asked::Orphaned => Some(ORPHANED),
    };
    tokio::select! {
        ended = work => ended?,
        again = stop.asked() => return Err(match again {
            Asked::Signal(number) => Failure::interrupted(number),
            Asked::Orphaned => Failure::failed("the daemon ended"),
        }),
        () = tokio::time::sleep(patience.unwrap_or_default()), if patience.is_some() => {
            return Err(Failure::failed("the daemon ended"));
        }
    }
    tracing::info!("✅ Graceful shutdown complete");
    Ok(Outcome::Success)
}

/// How long a runner may go on that has no daemon to report to.
const ORPHANED: Duration = Duration::from_secs(2);

/// Why this process is to end.
enum Asked {
    /// By this signal.
    Signal(i32),
    /// The daemon died.
    Orphaned,
}

/// Everything that asks this process to end.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    /// Until it ended.
    life_line: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Stop {
    fn new(supervised: bool) -> Result<Self> {
        let failed =
            |error: std::io::Error| Failure::failed("cannot listen for signals").because(&error);
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            life_line: if supervised {
                Some(Box::pin(life_line()?))
            } else {
                None
            },
        })
    }

    /// Waits for the next of them.
    async fn asked(&mut self) -> Asked {
        let life_line = async {
            match &mut self.life_line {
                Some(life_line) => life_line.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => Asked::Signal(Signal::Terminate.number()),
            _ = self.interrupt.recv() => Asked::Signal(Signal::Interrupt.number()),
            () = life_line => {
                self.life_line = None;
                Asked::Orphaned
            }
        }
    }
}

/// Works until `shutdown` is over.
#[cfg(feature = "agent")]
async fn work(
    config: &Config,
    provider: Provider,
    concurrency: NonZeroUsize,
    ready: impl FnOnce() + Send,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let runner = runner(config, provider, concurrency);
    stigmer_agent::run(runner, ready, shutdown)
        .await
        .map_err(|error| match std::error::Error::source(&error) {
            Some(source) => Failure::failed(error.to_string()).because(source),
            None => Failure::failed(error.to_string()),
        })
}

#[cfg(not(feature = "agent"))]
async fn work(
    _: &Config,
    _: Provider,
    _: NonZeroUsize,
    _: impl FnOnce() + Send,
    _: impl Future<Output = ()> + Send,
) -> Result<()> {
    Err(unavailable())
}

/// What the runner has to know.
#[cfg(feature = "agent")]
fn runner(config: &Config, provider: Provider, concurrency: NonZeroUsize) -> stigmer_agent::Config {
    use stigmer_agent::model::{Endpoint, Key, Providers};

    let llm = &config.llm;
    let endpoint = |provider| Endpoint {
        base_url: llm.base_url(provider).url.clone(),
        key: llm.key(provider).map(|key| Key::new(key.expose())),
    };
    stigmer_agent::Config {
        endpoint: daemon(config),
        api_key: Key::new(config.api_key.expose()),
        runner_id: runner_id(config.mode),
        providers: Providers {
            default: theirs(provider),
            model: llm.model.clone(),
            anthropic: endpoint(Provider::Anthropic),
            openai: endpoint(Provider::OpenAi),
            ollama: endpoint(Provider::Ollama),
        },
        concurrency: concurrency.get(),
    }
}

/// The same provider, as the runner calls it.
#[cfg(feature = "agent")]
fn theirs(provider: Provider) -> stigmer_agent::model::Provider {
    match provider {
        Provider::Anthropic => stigmer_agent::model::Provider::Anthropic,
        Provider::OpenAi => stigmer_agent::model::Provider::OpenAi,
        Provider::Ollama => stigmer_agent::model::Provider::Ollama,
    }
}

/// Unique at the daemon: of one machine, the number of the process is.
#[cfg(feature = "agent")]
fn runner_id(mode: Mode) -> String {
    let pid = std::process::id();
    match mode {
        Mode::Local => format!("local-{pid}"),
        Mode::Cloud => {
            let machine = rustix::system::uname();
            format!("{}-{pid}", machine.nodename().to_string_lossy())
        }
    }
}

/// Where the daemon is: if nobody says, its socket is nearer than its port.
fn daemon(config: &Config) -> String {
    let socket = config.socket_path();
    if config.endpoint_is_default && socket.exists() {
        format!("unix:{}", socket.display())
    } else {
        config.endpoint.clone()
    }
}

/// What a runner says of itself before anything else.
fn banner(config: &Config, provider: Provider) -> String {
    let rule = "=".repeat(60);
    let mode = config.mode.as_str().to_uppercase();
    let mut lines = vec![
        rule.clone(),
        format!("🚀 Stigmer Agent Runner - {mode} Mode"),
        rule.clone(),
        format!("Backend: {}", daemon(config)),
        format!("Model: {provider}/{}", config.llm.model(provider)),
    ];
    match config.mode {
        Mode::Local => lines.extend([
            format!(
                "Sandbox: {} (root: {})",
                config.sandbox,
                config.root.display()
            ),
            "Note: Using gRPC to Stigmer Daemon for state/streaming".to_owned(),
        ]),
        Mode::Cloud => lines.push(format!("Sandbox: {}", config.sandbox)),
    }
    lines.push(rule);
    lines.join("\n")
}

/// Fails if there is neither a runner in this build nor a script.
pub(super) fn available(config: &Config) -> Result<()> {
    if cfg!(feature = "agent") || config.agent_runner.is_some() {
        Ok(())
    } else {
        Err(unavailable())
    }
}

/// Fails if a provider is out of this build's reach.
#[cfg(feature = "agent")]
pub(super) fn reachable(llm: &Llm, provider: Provider) -> Result<()> {
    stigmer_agent::model::check_base_url(theirs(provider), &llm.base_url(provider).url)
        .map_err(|refused| Failure::usage(refused.to_string()))
}

/// Without a runner there is nobody to reach it.
#[cfg(not(feature = "agent"))]
pub(super) fn reachable(_: &Llm, _: Provider) -> Result<()> {
    Ok(())
}

/// Fails if a provider is out of reach, or asks for a key that nobody set.
pub(super) fn usable(llm: &Llm, provider: Provider) -> Result<()> {
    reachable(llm, provider)?;
    match llm.missing_key(provider) {
        None => Ok(()),
        Some(variable) => Err(Failure::usage(format!(
            "{variable} is not set, and {provider} needs it"
        ))
        .hint("set it, or choose another with --provider or STIGMER_LLM_PROVIDER")),
    }
}

/// What there is to say for a build that has no runner.
fn unavailable() -> Failure {
    Failure::failed("the agent runner is not part of this build")
        .hint("STIGMER_AGENT_RUNNER_SCRIPT names a program to run instead")
}
