//! `stigmer doctor`: what this machine can do, and how to mend what it cannot.
//!
//! [`kernel`] asks what commands run on, [`place`] where Stigmer keeps and
//! serves things. A check fails only if the default backend needs what is
//! missing; the rest are warnings.

mod kernel;
mod place;

use clap::Args;
use serde::Serialize;

use super::exec::NOT_CONTAINED;
use super::exit::Outcome;
use super::failure::Result;
use super::output::Output;
use crate::config::Config;

#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) const AFTER_HELP: &str = "\
Examples:
  stigmer doctor
  stigmer doctor --json | jq '.checks[] | select(.status != \"ok\")'

Exits with 1 if something fails that the default backend needs.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    /// Something is worse than it could be.
    Warn,
    /// The default backend cannot work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    found: String,
    /// What to do, unless all is well.
    remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    fn warn(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Warn,
            found: found.into(),
            remedy: Some(remedy.into()),
        }
    }

    fn fail(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Fail,
            found: found.into(),
            remedy: Some(remedy.into()),
        }
    }
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    backend: String,
    notice: Option<&'static str>,
    checks: Vec<Check>,
}

pub(super) async fn run(args: &DoctorArgs, config: &Config, output: &Output) -> Result<Outcome> {
    let mut checks = kernel::checks();
    checks.extend(place::checks(config).await);
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        backend: config.sandbox.clone(),
        notice: (config.sandbox == "filesystem").then_some(NOT_CONTAINED),
        checks,
    };
    if args.json {
        output.json(&report)?;
    } else {
        output.line(text(&report))?;
    }
    let fit = report
        .checks
        .iter()
        .all(|check| check.status != Status::Fail);
    Ok(if fit {
        Outcome::Success
    } else {
        Outcome::Unfit
    })
}

fn text(report: &Report) -> String {
    let mut lines = vec![
        format!("Stigmer {}, backend {}", report.version, report.backend),
        String::new(),
    ];
    for check in &report.checks {
        let mark = match check.status {
            Status::Ok => "✓",
            Status::Warn => "⚠",
            Status::Fail => "✗",
        };
        lines.push(format!("{mark} {:<16} {}", check.name, check.found));
        if let Some(remedy) = &check.remedy {
            lines.push(format!("  {:<16} → {remedy}", ""));
        }
    }
    if let Some(notice) = report.notice {
        lines.extend([String::new(), notice.to_owned()]);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_shows_each_check_with_its_remedy() {
        let report = Report {
            version: "1.2.3",
            backend: "filesystem".to_owned(),
            notice: Some("It confines nothing."),
            checks: vec![
                Check::ok("kernel", "6.12"),
                Check::fail("shell", "no /bin/sh", "install one"),
            ],
        };
        assert_eq!(
            text(&report),
            "\
Stigmer 1.2.3, backend filesystem

✓ kernel           6.12
✗ shell            no /bin/sh
                   → install one

It confines nothing."
        );
    }

    #[test]
    fn json_names_the_status() {
        let check = Check::warn("a", "b", "c");
        assert_eq!(
            serde_json::to_string(&check).unwrap(),
            r#"{"name":"a","status":"warn","found":"b","remedy":"c"}"#
        );
    }
}
