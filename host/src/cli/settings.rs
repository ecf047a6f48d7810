//! `stigmer config`: what is in effect.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::exit::Outcome;
use super::failure::Result;
use super::output::{Output, table};
use crate::config::{Config, Row};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show every value and where it came from; secrets are masked
    #[command(after_help = AFTER_HELP)]
    Show(ShowArgs),
}

#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) const AFTER_HELP: &str = "\
Examples:
  stigmer config show
  MODE=cloud stigmer config show --json

A flag wins over the environment, that over config.toml in the data directory,
and that over the default.";

/// A setting as JSON has it.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    value: &'a str,
    source: String,
    secret: bool,
}

impl<'a> From<&'a Row> for Shown<'a> {
    fn from(row: &'a Row) -> Self {
        Self {
            name: row.name,
            value: &row.value,
            source: row.source.to_string(),
            secret: row.secret,
        }
    }
}

pub(super) fn show(args: &ShowArgs, config: &Config, output: &Output) -> Result<Outcome> {
    let settings: Vec<_> = config.sources.iter().map(Shown::from).collect();
    if args.json {
        output.json(&settings)?;
    } else {
        output.text(text(&settings))?;
    }
    Ok(Outcome::Success)
}

fn text(settings: &[Shown<'_>]) -> String {
    let or_none = |value: &str| {
        if value.is_empty() {
            "-".to_owned()
        } else {
            value.to_owned()
        }
    };
    let rows: Vec<_> = settings
        .iter()
        .map(|setting| {
            vec![
                setting.name.to_owned(),
                or_none(setting.value),
                setting.source.clone(),
            ]
        })
        .collect();
    table(&["NAME", "VALUE", "SOURCE"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    #[test]
    fn every_value_says_where_it_came_from() {
        let row = |name, value: &str, source, secret| Row {
            name,
            value: value.to_owned(),
            source,
            secret,
        };
        let rows = [
            row("MODE", "local", Source::Flag("--mode"), false),
            row(
                "STIGMER_API_KEY",
                "***",
                Source::Environment("STIGMER_API_KEY"),
                true,
            ),
            row("REDIS_PASSWORD", "", Source::Unset, true),
        ];
        let settings: Vec<_> = rows.iter().map(Shown::from).collect();
        assert_eq!(
            text(&settings),
            "\
NAME             VALUE  SOURCE
MODE             local  flag --mode
STIGMER_API_KEY  ***    environment STIGMER_API_KEY
REDIS_PASSWORD   -      not set"
        );
    }
}
