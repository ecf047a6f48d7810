//! Creating, listing and destroying sandboxes.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use stigmer_sdk::wire::{host, sandbox as contract};

use crate::cli::daemon::{Daemon, incomplete};
use crate::cli::exec::NOT_CONTAINED;
use crate::cli::exit::Outcome;
use crate::cli::failure::{Failure, Result};
use crate::cli::output::{self, Output, now_ms, table, time};
use crate::cli::value::{self, EnvArg, Environment};

pub(super) fn create_help() -> String {
    format!(
        "\
Examples:
  stigmer sandbox create web --root ./app -e NODE_ENV=test
  stigmer sandbox create --label task=42 --idle 30m --json

Prints the name, or the id of a sandbox without one. If a live sandbox has the
name already, that one is returned.

{NOT_CONTAINED}"
    )
}

pub(super) const LIST_HELP: &str = "\
Examples:
  stigmer sandbox list --label task=42
  stigmer sandbox list --ids | xargs stigmer sandbox destroy";

pub(super) const PRUNE_HELP: &str = "\
Examples:
  stigmer sandbox prune                     those that expired, or are gone
  stigmer sandbox prune --all --dry-run     what would be destroyed
  stigmer sandbox prune --all --yes";

#[derive(Args, Debug)]
pub(in crate::cli) struct CreateArgs {
    /// A name for it, unique among live sandboxes
    name: Option<String>,

    /// The backend that provides it [default: the daemon's]
    #[arg(long, value_name = "TYPE")]
    backend: Option<String>,

    /// The directory that is its workspace [default: one of its own]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,

    /// Set a variable for all of its commands; NAME alone takes its value from here
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = value::env)]
    env: Vec<EnvArg>,

    /// Set the variables in this file, one NAME=VALUE a line
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,

    /// Label it, to find it by
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = value::label)]
    labels: Vec<(String, String)>,

    /// Memory it may use (512M, 2G)
    #[arg(long, value_name = "SIZE", value_parser = value::size)]
    memory: Option<u64>,

    /// Destroy it after this long (2h, 1day)
    #[arg(long, value_name = "DURATION", value_parser = value::some_time)]
    lifetime: Option<Duration>,

    /// Destroy it after this long without use
    #[arg(long, value_name = "DURATION", value_parser = value::some_time)]
    idle: Option<Duration>,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ListArgs {
    /// Only sandboxes with this label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = value::label)]
    labels: Vec<(String, String)>,

    /// Only sandboxes of this backend
    #[arg(long, value_name = "TYPE")]
    backend: Option<String>,

    /// Print ids only
    #[arg(short = 'q', long, conflicts_with = "json")]
    ids: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct InfoArgs {
    /// The sandbox
    sandbox: String,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct DestroyArgs {
    /// The sandboxes
    #[arg(required = true, value_name = "SANDBOX")]
    sandboxes: Vec<String>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct PruneArgs {
    /// Those that expired or are gone; the default
    #[arg(long, conflicts_with = "all")]
    expired: bool,

    /// All of them
    #[arg(long)]
    all: bool,

    /// Do not ask back
    #[arg(long)]
    yes: bool,

    /// Only say which
    #[arg(long)]
    dry_run: bool,

    /// Only sandboxes of this backend
    #[arg(long, value_name = "TYPE")]
    backend: Option<String>,
}

impl PruneArgs {
    pub(in crate::cli) fn check(&self) -> Result<()> {
        if self.all && !self.yes && !self.dry_run {
            return Err(
                Failure::usage("--all destroys every sandbox, with what runs in it")
                    .hint("say --yes to do it, or --dry-run to see which"),
            );
        }
        Ok(())
    }
}

/// A sandbox as JSON has it.
#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    name: &'a str,
    backend: &'a str,
    state: &'static str,
    isolation: &'static str,
    notice: &'a str,
    workspace: &'a str,
    shell: &'a [String],
    labels: BTreeMap<&'a str, &'a str>,
    created_ms: u64,
    used_ms: u64,
    expires_ms: Option<u64>,
}

impl<'a> Shown<'a> {
    fn of(sandbox: &'a host::Sandbox) -> Self {
        Self {
            id: &sandbox.sandbox_id,
            name: &sandbox.name,
            backend: &sandbox.backend,
            state: state(sandbox),
            isolation: isolation(sandbox),
            notice: &sandbox.notice,
            workspace: &sandbox.workspace,
            shell: &sandbox.shell,
            labels: labels(sandbox),
            created_ms: sandbox.created_ms,
            used_ms: sandbox.used_ms,
            expires_ms: sandbox.expires_ms,
        }
    }
}

fn labels(sandbox: &host::Sandbox) -> BTreeMap<&str, &str> {
    sandbox
        .labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

fn labels_text(sandbox: &host::Sandbox) -> String {
    let pairs: Vec<_> = labels(sandbox)
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}

fn state(sandbox: &host::Sandbox) -> &'static str {
    match sandbox.state() {
        host::SandboxState::Unspecified => "unknown",
        host::SandboxState::Ready => "ready",
        host::SandboxState::Unreachable => "unreachable",
        host::SandboxState::Gone => "gone",
    }
}

fn isolation(sandbox: &host::Sandbox) -> &'static str {
    match sandbox.isolation() {
        contract::Isolation::Unspecified => "unknown",
        contract::Isolation::None => "none",
        contract::Isolation::Workspace => "workspace",
        contract::Isolation::Strict => "strict",
    }
}

/// What people call it.
fn called(sandbox: &host::Sandbox) -> &str {
    if sandbox.name.is_empty() {
        &sandbox.sandbox_id
    } else {
        &sandbox.name
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) async fn create(
    args: &CreateArgs,
    daemon: &Daemon,
    environment: &Environment,
    output: &Output,
) -> Result<Outcome> {
    let source = args.root.as_deref().map(absolute).transpose()?;
    let limits = contract::Limits {
        memory_bytes: args.memory,
        lifetime_ms: args.lifetime.map(millis),
        idle_ms: args.idle.map(millis),
        ..contract::Limits::default()
    };
    let variables = value::variables(args.env_file.as_deref(), &args.env, environment)?;
    let spec = contract::SandboxSpec {
        source,
        env: variables.into_iter().collect(),
        limits: Some(limits),
        network: None,
        labels: args.labels.iter().cloned().collect(),
        options: String::new(),
    };
    let request = host::CreateSandboxRequest {
        backend: args.backend.clone(),
        spec: Some(spec),
        name: args.name.clone(),
        snapshot_id: None,
    };
    let answer = daemon.sandboxes().create(request).await?.into_inner();
    let sandbox = answer.sandbox.ok_or_else(incomplete)?;
    if answer.existed {
        output.note(format!("'{}' was there already", called(&sandbox)));
    }
    if args.json {
        output.json(&Shown::of(&sandbox))?;
    } else {
        output.line(called(&sandbox))?;
    }
    Ok(Outcome::Success)
}

/// A directory of this machine as the daemon must name it.
fn absolute(dir: &std::path::Path) -> Result<String> {
    let absolute = std::path::absolute(dir).map_err(|error| {
        Failure::usage(format!("cannot use --root '{}'", dir.display())).because(&error)
    })?;
    match absolute.into_os_string().into_string() {
        Ok(absolute) => Ok(absolute),
        Err(_) => Err(Failure::usage(format!(
            "--root '{}' is not UTF-8",
            dir.display()
        ))),
    }
}

/// All sandboxes that match, page by page.
async fn find(
    daemon: &Daemon,
    labels: HashMap<String, String>,
    backend: Option<String>,
) -> Result<Vec<host::Sandbox>> {
    let mut found = Vec::new();
    let mut request = host::ListSandboxesRequest {
        labels,
        backend,
        page_size: 0,
        page_token: String::new(),
    };
    loop {
        let page = daemon.sandboxes().list(request.clone()).await?.into_inner();
        found.extend(page.sandboxes);
        if page.next_page_token.is_empty() || page.next_page_token == request.page_token {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

pub(super) async fn list(args: &ListArgs, daemon: &Daemon, output: &Output) -> Result<Outcome> {
    let labels = args.labels.iter().cloned().collect();
    let sandboxes = find(daemon, labels, args.backend.clone()).await?;
    if args.json {
        output.json(&sandboxes.iter().map(Shown::of).collect::<Vec<_>>())?;
    } else if args.ids {
        for sandbox in &sandboxes {
            output.line(&sandbox.sandbox_id)?;
        }
    } else {
        output.text(listing(&sandboxes, now_ms()))?;
    }
    Ok(Outcome::Success)
}

fn listing(sandboxes: &[host::Sandbox], now_ms: u64) -> String {
    let rows: Vec<_> = sandboxes
        .iter()
        .map(|sandbox| {
            vec![
                called(sandbox).to_owned(),
                sandbox.backend.clone(),
                isolation(sandbox).to_owned(),
                state(sandbox).to_owned(),
                output::ago(sandbox.created_ms, now_ms),
                output::ago(sandbox.used_ms, now_ms),
                labels_text(sandbox),
            ]
        })
        .collect();
    table(
        &[
            "SANDBOX",
            "BACKEND",
            "ISOLATION",
            "STATE",
            "AGE",
            "UNUSED",
            "LABELS",
        ],
        &rows,
    )
}

pub(super) async fn info(args: &InfoArgs, daemon: &Daemon, output: &Output) -> Result<Outcome> {
    let sandbox = daemon.sandbox(&args.sandbox).await?;
    if args.json {
        output.json(&Shown::of(&sandbox))?;
    } else {
        output.text(description(&sandbox))?;
    }
    Ok(Outcome::Success)
}

fn description(sandbox: &host::Sandbox) -> String {
    let or_none = |text: String| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text
        }
    };
    let rows = [
        ("id", sandbox.sandbox_id.clone()),
        ("name", or_none(sandbox.name.clone())),
        ("backend", sandbox.backend.clone()),
        ("state", state(sandbox).to_owned()),
        ("isolation", isolation(sandbox).to_owned()),
        ("workspace", sandbox.workspace.clone()),
        ("shell", or_none(sandbox.shell.join(" "))),
        ("labels", or_none(labels_text(sandbox))),
        ("created", time(sandbox.created_ms)),
        ("last used", time(sandbox.used_ms)),
        (
            "expires",
            sandbox.expires_ms.map_or_else(|| "never".to_owned(), time),
        ),
    ];
    let mut lines: Vec<_> = rows
        .iter()
        .map(|(name, value)| format!("{name:<10} {value}"))
        .collect();
    if !sandbox.notice.is_empty() {
        lines.push(String::new());
        lines.push(format!("Not contained: {}", sandbox.notice));
    }
    lines.join("\n")
}

pub(super) async fn destroy(
    args: &DestroyArgs,
    daemon: &Daemon,
    output: &Output,
) -> Result<Outcome> {
    let mut problems = Vec::new();
    for name in &args.sandboxes {
        let request = host::DestroySandboxRequest {
            sandbox_id: name.clone(),
        };
        match daemon.sandboxes().destroy(request).await {
            Ok(_) => output.line(name)?,
            Err(status) if args.sandboxes.len() == 1 => return Err(status.into()),
            Err(status) => problems.push(format!(
                "'{name}': {}",
                Failure::from(status).problems.join(", ")
            )),
        }
    }
    if problems.is_empty() {
        Ok(Outcome::Success)
    } else {
        Err(Failure::several(problems))
    }
}

pub(super) async fn prune(args: &PruneArgs, daemon: &Daemon, output: &Output) -> Result<Outcome> {
    let now = now_ms();
    let mut sandboxes = find(daemon, HashMap::new(), args.backend.clone()).await?;
    if !args.all {
        sandboxes.retain(|sandbox| is_over(sandbox, now));
    }
    let mut problems = Vec::new();
    let mut destroyed = 0;
    for sandbox in &sandboxes {
        if !args.dry_run {
            let request = host::DestroySandboxRequest {
                sandbox_id: sandbox.sandbox_id.clone(),
            };
            if let Err(status) = daemon.sandboxes().destroy(request).await {
                problems.push(format!(
                    "'{}': {}",
                    called(sandbox),
                    Failure::from(status).problems.join(", ")
                ));
                continue;
            }
        }
        destroyed += 1;
        output.line(called(sandbox))?;
    }
    let verb = if args.dry_run {
        "would destroy"
    } else {
        "destroyed"
    };
    output.note(format!("{verb} {}", output::count(destroyed, "sandbox")));
    if problems.is_empty() {
        Ok(Outcome::Success)
    } else {
        Err(Failure::several(problems))
    }
}

fn is_over(sandbox: &host::Sandbox, now_ms: u64) -> bool {
    sandbox.state() == host::SandboxState::Gone
        || sandbox.expires_ms.is_some_and(|expires| expires <= now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox() -> host::Sandbox {
        host::Sandbox {
            sandbox_id: "filesystem:01".to_owned(),
            name: "web".to_owned(),
            backend: "filesystem".to_owned(),
            workspace: "/srv/app".to_owned(),
            shell: vec!["/bin/sh".to_owned(), "-c".to_owned()],
            labels: [("b", "2"), ("a", "1")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            state: host::SandboxState::Ready.into(),
            created_ms: 0,
            used_ms: 60_000,
            expires_ms: None,
            isolation: contract::Isolation::None.into(),
            notice: "it reads what you can read".to_owned(),
        }
    }

    #[test]
    fn a_list_is_a_table() {
        let nameless = host::Sandbox {
            name: String::new(),
            labels: HashMap::new(),
            ..sandbox()
        };
        assert_eq!(
            listing(&[sandbox(), nameless], 120_000),
            "\
SANDBOX        BACKEND     ISOLATION  STATE  AGE  UNUSED  LABELS
web            filesystem  none       ready  2m   1m      a=1,b=2
filesystem:01  filesystem  none       ready  2m   1m"
        );
    }

    #[test]
    fn info_says_once_what_is_not_contained() {
        let text = description(&sandbox());
        assert_eq!(text.matches("it reads what you can read").count(), 1);
        assert!(text.contains("isolation  none\n"), "{text}");
        assert!(text.contains("last used  1970-01-01T00:01:00Z\n"), "{text}");
        assert!(text.contains("expires    never\n"), "{text}");
    }

    #[test]
    fn only_what_is_over_is_pruned() {
        #[track_caller]
        fn check(state: host::SandboxState, expires_ms: Option<u64>, over: bool) {
            let sandbox = host::Sandbox {
                state: state.into(),
                expires_ms,
                ..sandbox()
            };
            assert_eq!(is_over(&sandbox, 1000), over);
        }
        check(host::SandboxState::Ready, None, false);
        check(host::SandboxState::Ready, Some(1001), false);
        check(host::SandboxState::Ready, Some(1000), true);
        check(host::SandboxState::Unreachable, None, false);
        check(host::SandboxState::Gone, None, true);
    }
}
