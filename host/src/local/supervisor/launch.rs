//! With what a runner is started: its environment, and its keys.

use std::path::PathBuf;

use stigmer_sdk::Result;

use crate::config::{Config, Env, Provider, Secret};
use crate::local::handover::Handover;
use crate::local::{environment, keeper};
use crate::logging::LogFile;
use crate::server::Listening;

/// Everything that is needed to start a runner, again and again.
#[derive(Debug)]
pub(crate) struct Launch {
    /// All of it: nothing of the daemon's own environment comes along.
    pub(super) env: Env,
    pub(super) keys: Handover,
    /// What it prints goes here.
    pub(super) log: LogFile,
    pub(super) pid_file: PathBuf,
    pub(super) script: Option<PathBuf>,
    /// Empty if the runner is to choose.
    pub(super) provider: &'static str,
    pub(super) model: String,
}

impl Launch {
    /// For the runner of a daemon that listens there. It dials the daemon's
    /// socket; a script, which may not be able to, `localhost:PORT`.
    ///
    /// # Errors
    /// If the keys cannot be handed over.
    pub(crate) fn new(config: &Config, listening: &Listening, log: LogFile) -> Result<Self> {
        let endpoint = match config.agent_runner {
            Some(_) => format!("localhost:{}", listening.tcp.port()),
            None => format!("unix:{}", listening.socket.display()),
        };
        let mut env = environment::of_runner(config, endpoint);
        let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
        set("STIGMER_LOG_LEVEL", config.log_level.clone());
        set("STIGMER_LOG_FORMAT", "json".to_owned());
        if let Some(script) = &config.agent_runner {
            set("STIGMER_AGENT_RUNNER_SCRIPT", environment::text(script));
        }
        let llm = &config.llm;
        let keys = Handover::for_runner(config)?;
        Ok(Self {
            env,
            keys,
            log,
            pid_file: config.data_dir.join("agent-runner.pid"),
            script: config.agent_runner.clone(),
            provider: llm.provider.map_or("", Provider::as_str),
            model: llm
                .provider
                .map(|provider| llm.model(provider).to_owned())
                .or_else(|| llm.model.clone())
                .unwrap_or_default(),
        })
    }

    /// What must not be in the log, whatever a runner prints.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        self.keys.iter().map(|(_, key)| key.clone()).collect()
    }

    /// How long the runner may take to end when it is asked to.
    pub(super) fn grace(&self) -> std::time::Duration {
        match self.script {
            // The keepers are the ones who count to five.
            Some(_) => keeper::GRACE + keeper::MARGIN * 2,
            None => keeper::GRACE,
        }
    }
}
