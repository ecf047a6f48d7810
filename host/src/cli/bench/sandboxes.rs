//! A thousand sandboxes: what one costs to make, to keep and to destroy.

use std::time::Instant;

use stigmer_sdk::wire::host;

use super::daemon::{Bench, memory};
use super::figures::{Figures, Samples, Target};
use crate::cli::failure::Result;

/// Sandboxes that have run a command, and so have processes.
const ACTIVE: usize = 50;

pub(super) async fn measure(figures: &mut Figures, count: usize) -> Result<()> {
    let bench = Bench::start(0).await?;
    let (mut create, mut destroy) = (Samples::default(), Samples::default());
    let mut ids = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        ids.push(bench.sandbox().await?.sandbox_id);
        create.push(start.elapsed());
    }
    for id in ids.iter().take(ACTIVE) {
        let run = host::Run {
            sandbox_id: id.clone(),
            program: Some(host::run::Program::Argv(host::Argv {
                args: vec!["/bin/true".to_owned()],
            })),
            ..Default::default()
        };
        bench
            .daemon
            .commands()
            .exec(host::ExecRequest {
                run: Some(run),
                ..Default::default()
            })
            .await?;
    }
    figures.add(
        &format!("daemon with {count} sandboxes"),
        bench.memory("VmRSS"),
        "MiB",
        Some(Target::AtMost(200.0)),
    );
    let private = private_memory_below(bench.pid());
    let each = private / ACTIVE as f64;
    figures.add(
        "private memory of a sandbox's processes",
        each,
        "MiB",
        Some(Target::AtMost(1.5)),
    );
    for id in ids {
        let start = Instant::now();
        bench
            .daemon
            .sandboxes()
            .destroy(host::DestroySandboxRequest { sandbox_id: id })
            .await?;
        destroy.push(start.elapsed());
    }
    figures.add(
        "create a sandbox",
        create.median(),
        "ms",
        Some(Target::AtMost(2.0)),
    );
    figures.add(
        "destroy a sandbox",
        destroy.median(),
        "ms",
        Some(Target::AtMost(2.0)),
    );
    Ok(())
}

/// Private memory of all descendants of a process, in MiB.
fn private_memory_below(root: u32) -> f64 {
    let mut tree = vec![root];
    let mut total = 0.0;
    while let Some(pid) = tree.pop() {
        tree.extend(children(pid));
        if pid != root {
            total += private_memory(pid).unwrap_or(0.0);
        }
    }
    total
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&child: &u32| parent(child) == Some(pid))
        .collect()
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))?
        .trim()
        .parse()
        .ok()
}

/// The launcher and what it forks cannot be read by other users, which root is
/// not; without that right, resident anonymous memory is the upper bound.
fn private_memory(pid: u32) -> Option<f64> {
    let Ok(rollup) = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else {
        return memory(pid, "RssAnon");
    };
    let kib: f64 = rollup
        .lines()
        .filter(|line| line.starts_with("Private_Clean:") || line.starts_with("Private_Dirty:"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok())
        .sum();
    Some(kib / 1024.0)
}
