//! grep and glob over many files, beside the tools that people know.

use std::path::Path;
use std::time::Instant;

use stigmer_sdk::wire::host;
use tokio_stream::StreamExt;

use super::broken;
use super::commands::spawn;
use super::daemon::Bench;
use super::figures::{Figures, Samples, Target};
use crate::cli::failure::{Failure, Result};

const DIRECTORIES: usize = 200;
const FILES: usize = 100;
const NEEDLE: &str = "needle_in_a_haystack";

pub(super) async fn measure(figures: &mut Figures, rounds: usize) -> Result<()> {
    let bench = Bench::start(0).await?;
    let sandbox = bench.sandbox().await?;
    let workspace = sandbox.workspace.clone();
    let tree = workspace.clone();
    tokio::task::spawn_blocking(move || plant(Path::new(&tree)))
        .await
        .map_err(|error| broken("make a tree", &error))?
        .map_err(|error| broken("make a tree", &error))?;
    let (mut grep, mut glob) = (Samples::default(), Samples::default());
    let (mut rg, mut fd, mut rg_files) =
        (Samples::default(), Samples::default(), Samples::default());
    let have = |program: &str| spawn(program, &["--version"]).is_ok();
    let fd_name = ["fd", "fdfind"].into_iter().find(|name| have(name));
    let have_rg = have("rg");
    for _ in 0..rounds {
        grep.push(run_grep(&bench, &sandbox.sandbox_id).await?);
        glob.push(run_glob(&bench, &sandbox.sandbox_id).await?);
        if have_rg {
            rg.push(spawn(
                "rg",
                &["--hidden", "--no-ignore", "-F", NEEDLE, &workspace],
            )?);
            rg_files.push(spawn(
                "rg",
                &[
                    "--hidden",
                    "--no-ignore",
                    "--files",
                    "-g",
                    "*7.rs",
                    &workspace,
                ],
            )?);
        }
        if let Some(fd_name) = fd_name {
            fd.push(spawn(fd_name, &["-H", "-I", "-g", "*7.rs", &workspace])?);
        }
    }
    let target = Some(Target::RatioAtMost(1.5));
    let mut add = |name: &str, value: f64, peer: &str, present: bool, samples: &Samples| {
        if present {
            figures.compare(name, value, "ms", (peer, samples.median()), target);
        } else {
            figures.add(
                &format!("{name} ({peer} is not installed)"),
                value,
                "ms",
                None,
            );
        }
    };
    add(
        "grep a literal in 20,000 files",
        grep.median(),
        "rg",
        have_rg,
        &rg,
    );
    add(
        "glob in 20,000 files",
        glob.median(),
        "rg --files",
        have_rg,
        &rg_files,
    );
    add(
        "glob in 20,000 files",
        glob.median(),
        "fd",
        fd_name.is_some(),
        &fd,
    );
    Ok(())
}

/// Source-like files of 1 to 8 KiB, one in a hundred with the needle.
fn plant(root: &Path) -> std::io::Result<()> {
    let line = "    let value = compute(&input, offset)?; // nothing to see here\n";
    for directory in 0..DIRECTORIES {
        let dir = root.join(format!("crate{}/src/module{directory}", directory % 20));
        std::fs::create_dir_all(&dir)?;
        for file in 0..FILES {
            let mut text = line.repeat(16 + (directory * 31 + file * 17) % 112);
            if (directory * FILES + file).is_multiple_of(100) {
                text.push_str(NEEDLE);
                text.push('\n');
            }
            std::fs::write(dir.join(format!("file{file}.rs")), text)?;
        }
    }
    Ok(())
}

async fn run_grep(bench: &Bench, id: &str) -> Result<std::time::Duration> {
    let start = Instant::now();
    let request = host::GrepRequest {
        sandbox_id: id.to_owned(),
        patterns: vec![NEEDLE.to_owned()],
        ..Default::default()
    };
    let mut answers = bench.daemon.files().grep(request).await?.into_inner();
    let mut matches = 0;
    while let Some(answer) = answers.next().await {
        matches += answer?.matches.len();
    }
    check("grep", matches, DIRECTORIES * FILES / 100)?;
    Ok(start.elapsed())
}

async fn run_glob(bench: &Bench, id: &str) -> Result<std::time::Duration> {
    let start = Instant::now();
    let request = host::GlobRequest {
        sandbox_id: id.to_owned(),
        pattern: "*7.rs".to_owned(),
        max_results: Some(10_000),
        ..Default::default()
    };
    let mut answers = bench.daemon.files().glob(request).await?.into_inner();
    let mut found = 0;
    while let Some(answer) = answers.next().await {
        found += answer?.files.len();
    }
    check("glob", found, DIRECTORIES * FILES / 10)?;
    Ok(start.elapsed())
}

/// A search that is fast because it is wrong is not measured.
fn check(what: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{what} found {found} results instead of {expected}"
    )))
}
