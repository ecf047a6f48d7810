//! One short command: through the daemon, and as a whole process.

use std::process::Stdio;
use std::time::{Duration, Instant};

use stigmer_sdk::wire::host;

use super::broken;
use super::daemon::{Bench, memory, process, scratch};
use super::figures::{Figures, Samples, Target};
use crate::cli::failure::{Failure, Result};

const BALLAST: u64 = 2 << 30;

pub(super) async fn measure(figures: &mut Figures, rounds: usize) -> Result<()> {
    through_the_daemon(figures, rounds).await?;
    one_shot(figures, rounds.min(100))
}

async fn through_the_daemon(figures: &mut Figures, rounds: usize) -> Result<()> {
    let light = Bench::start(0).await?;
    let heavy = Bench::start(BALLAST).await?;
    let (light_sandbox, heavy_sandbox) = (light.sandbox().await?, heavy.sandbox().await?);
    let (mut bare, mut exec, mut laden) =
        (Samples::default(), Samples::default(), Samples::default());
    for round in 0..rounds + 20 {
        let spawned = spawn("/bin/true", &[])?;
        let executed = run_true(&light, &light_sandbox.sandbox_id).await?;
        let executed_laden = run_true(&heavy, &heavy_sandbox.sandbox_id).await?;
        // The first ones warm caches.
        if round >= 20 {
            bare.push(spawned);
            exec.push(executed);
            laden.push(executed_laden);
        }
    }
    let target = Some(Target::RatioAtMost(1.4));
    figures.compare(
        "exec /bin/true through the daemon",
        exec.median(),
        "ms",
        ("spawn + wait", bare.median()),
        target,
    );
    let p99 = Some(Target::RatioAtMost(3.0));
    figures.compare(
        "  its 99th percentile",
        exec.p99(),
        "ms",
        ("its median", exec.median()),
        p99,
    );
    let target = Some(Target::RatioAtMost(1.1));
    figures.compare(
        "  with 2 GiB held by the daemon",
        laden.median(),
        "ms",
        ("without", exec.median()),
        target,
    );
    Ok(())
}

async fn run_true(bench: &Bench, sandbox_id: &str) -> Result<Duration> {
    let args = host::Argv {
        args: vec!["/bin/true".to_owned()],
    };
    let run = host::Run {
        sandbox_id: sandbox_id.to_owned(),
        program: Some(host::run::Program::Argv(args)),
        ..Default::default()
    };
    let mut commands = bench.daemon.commands();
    let request = host::ExecRequest {
        run: Some(run),
        ..Default::default()
    };
    let start = Instant::now();
    let answer = commands.exec(request).await?.into_inner();
    let elapsed = start.elapsed();
    match answer.result {
        Some(result) if result.exit_code == 0 => Ok(elapsed),
        _ => Err(Failure::failed("/bin/true failed in a sandbox")),
    }
}

/// From start to end of a process.
pub(super) fn spawn(program: &str, args: &[&str]) -> Result<Duration> {
    let start = Instant::now();
    process(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| broken(&format!("run {program}"), &error))?;
    Ok(start.elapsed())
}

fn one_shot(figures: &mut Figures, rounds: usize) -> Result<()> {
    let root = scratch()?;
    let program = std::env::current_exe().map_err(|error| broken("find this program", &error))?;
    let (program, root_arg) = (program.to_string_lossy(), root.to_string_lossy());
    let args = [
        "exec",
        "--mode",
        "local",
        "--root",
        &root_arg,
        "--",
        "/bin/true",
    ];
    let (mut bare, mut whole) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        bare.push(spawn("/bin/true", &[])?);
        whole.push(spawn(&program, &args)?);
    }
    let above = whole.median() - bare.median();
    figures.add(
        "stigmer exec -- /bin/true, above /bin/true",
        above,
        "ms",
        Some(Target::AtMost(12.0)),
    );

    let mut child = process(&program)
        .args([
            "exec", "--mode", "local", "--root", &root_arg, "--", "sleep", "0.3",
        ])
        .spawn()
        .map_err(|error| broken("run stigmer exec", &error))?;
    let mut peak = f64::NAN;
    while child
        .try_wait()
        .map_err(|error| broken("wait for stigmer exec", &error))?
        .is_none()
    {
        // The high-water mark only grows, so the last look is the peak.
        peak = memory(child.id(), "VmHWM").unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(5));
    }
    figures.add("  its peak memory", peak, "MiB", Some(Target::AtMost(40.0)));
    std::fs::remove_dir_all(&root).map_err(|error| broken("clean up", &error))
}
