//! `stigmer bench`: what Stigmer costs on this machine, beside a floor or a
//! peer measured in the same run.
//!
//! It drives a daemon of its own, over its socket, as a client would. Rounds
//! of what is compared alternate, so that a machine that slows down slows both
//! sides; figures are medians.

mod agents;
mod commands;
mod daemon;
mod figures;
mod files;
mod local;
mod sandboxes;
mod search;

use clap::{Args, ValueEnum};

use super::exit::Outcome;
use super::failure::{Failure, Result};
use super::output::Output;
use figures::Figures;

pub(super) const AFTER_HELP: &str = "\
Every figure is a median over alternating rounds, beside a floor or a peer in the same run.

Examples:
  stigmer bench
  stigmer bench exec files --json";

#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    /// What to measure; everything if nothing is named
    #[arg(value_enum)]
    groups: Vec<Group>,
    /// A tenth of the rounds, for a first look
    #[arg(long)]
    quick: bool,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// One short command, through the daemon and on its own
    Exec,
    /// Small and large files, and a gigabyte of output
    Files,
    /// grep and glob over 20,000 files
    Search,
    /// A thousand sandboxes
    Sandboxes,
    /// Starting, stopping and weight of local mode, and a model's first word
    Local,
    /// Ten thousand executions with a million events
    Agents,
}

pub(super) async fn run(args: &BenchArgs, output: &Output) -> Result<Outcome> {
    let groups = if args.groups.is_empty() {
        Group::value_variants()
    } else {
        &args.groups
    };
    let rounds = |full: usize| if args.quick { full.div_ceil(10) } else { full };
    let mut figures = Figures::default();
    for &group in groups {
        output.note(format!("measuring {group:?} …"));
        match group {
            Group::Exec => commands::measure(&mut figures, rounds(500)).await?,
            Group::Files => files::measure(&mut figures, rounds(500)).await?,
            Group::Search => search::measure(&mut figures, rounds(20)).await?,
            Group::Sandboxes => sandboxes::measure(&mut figures, rounds(1000)).await?,
            Group::Local => local::measure(&mut figures, rounds(20))?,
            Group::Agents => agents::measure(&mut figures, rounds(10_000)).await?,
        }
    }
    if args.json {
        output.json(&figures.rows)?;
    } else {
        output.line(figures.table())?;
    }
    Ok(Outcome::Success)
}

/// Something that only breaks if the machine does.
fn broken(what: &str, error: &dyn std::error::Error) -> Failure {
    Failure::failed(format!("cannot {what}")).because(error)
}
