//! The flags of a command to run: the same for `exec` and `sandbox exec`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use stigmer_sdk::{Command, SandboxPath, wire};

use super::failure::Result;
use super::follow::Format;
use super::terminal;
use super::value::{self, EnvArg, Environment};

#[derive(Args, Clone, Debug)]
pub(super) struct RunArgs {
    /// Stop the command after this long (30s, 5m); 0 means never
    #[arg(long, value_name = "DURATION", value_parser = value::duration, default_value = "0", hide_default_value = true)]
    timeout: Duration,

    /// Set a variable for the command; NAME alone takes its value from here
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = value::env)]
    env: Vec<EnvArg>,

    /// Set the variables in this file, one NAME=VALUE a line
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,

    /// Start in this directory of the sandbox instead of the workspace
    #[arg(long, value_name = "DIR", value_parser = value::path)]
    cwd: Option<String>,

    /// Pass stdin on to the command
    #[arg(short, long)]
    interactive: bool,

    /// Run under a terminal like this one; implies -i
    #[arg(short, long, conflicts_with = "json")]
    tty: bool,

    /// Print events as JSON, one a line
    #[arg(long)]
    json: bool,

    /// The command; a single word is a line for the sandbox's shell
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,

    /// Even a single word is a program.
    #[arg(skip)]
    literal: bool,
}

impl RunArgs {
    /// Runs a program under this terminal.
    pub(super) fn under_terminal(program: String) -> Self {
        Self {
            timeout: Duration::ZERO,
            env: Vec::new(),
            env_file: None,
            cwd: None,
            interactive: true,
            tty: true,
            json: false,
            command: vec![program],
            literal: true,
        }
    }

    /// Fails for what can be seen to be wrong before anything is started.
    pub(super) fn check(&self) -> Result<()> {
        if self.tty {
            terminal::required("-t")
        } else {
            Ok(())
        }
    }

    pub(super) fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Raw }
    }

    pub(super) fn has_terminal(&self) -> bool {
        self.tty
    }

    pub(super) fn passes_stdin(&self) -> bool {
        self.interactive || self.tty
    }

    /// `None`: as long as it takes.
    pub(super) fn timeout(&self) -> Option<Duration> {
        (self.timeout > Duration::ZERO).then_some(self.timeout)
    }

    /// The variables that go in, and no others.
    pub(super) fn variables(&self, around: &Environment) -> Result<BTreeMap<String, String>> {
        value::variables(self.env_file.as_deref(), &self.env, around)
    }

    #[cfg(test)]
    pub(super) fn words(&self) -> &[String] {
        &self.command
    }

    /// The one word that is a line for a shell.
    fn line(&self) -> Option<&String> {
        match self.command.as_slice() {
            [line] if !self.literal => Some(line),
            _ => None,
        }
    }

    /// The command, for a sandbox in this process with this shell.
    pub(super) fn to_command(
        &self,
        shell: &[String],
        variables: BTreeMap<String, String>,
    ) -> Result<Command> {
        let argv = match self.line() {
            Some(line) => shell.iter().chain([line]).cloned().collect(),
            None => self.command.clone(),
        };
        let mut command = Command::new(argv)?.stdin(self.passes_stdin());
        for (name, value) in variables {
            command = command.env(name, value)?;
        }
        if let Some(cwd) = &self.cwd {
            command = command.cwd(SandboxPath::new(cwd)?);
        }
        if self.tty {
            command = command.terminal(terminal::size());
        }
        Ok(command)
    }

    /// The command, for the daemon.
    pub(super) fn to_wire(&self, sandbox: &str, around: &Environment) -> Result<wire::host::Run> {
        use wire::host::run::Program;
        let program = match self.line() {
            Some(line) => Program::Shell(line.clone()),
            None => Program::Argv(wire::host::Argv {
                args: self.command.clone(),
            }),
        };
        Ok(wire::host::Run {
            sandbox_id: sandbox.to_owned(),
            program: Some(program),
            env: self.variables(around)?.into_iter().collect(),
            cwd: self.cwd.clone(),
            user: None,
            merge_stderr: false,
            timeout_ms: Some(self.timeout().map_or(0, |timeout| {
                u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
            })),
            terminal: self.tty.then(|| {
                let size = terminal::size();
                wire::sandbox::Terminal {
                    columns: size.columns().into(),
                    rows: size.rows().into(),
                }
            }),
        })
    }
}
