//! Small files one by one, large ones as streams, and output.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stigmer_sdk::wire::host;
use tokio_stream::StreamExt;

use super::broken;
use super::daemon::{Bench, process};
use super::figures::{Figures, Samples, Target, mib_per_second};
use crate::cli::failure::{Failure, Result};

const LARGE: u64 = 64 << 20;
const OUTPUT: u64 = 1 << 30;
const CHUNK: usize = 1 << 20;

pub(super) async fn measure(figures: &mut Figures, rounds: usize) -> Result<()> {
    let bench = Bench::start(0).await?;
    let id = bench.sandbox().await?.sandbox_id;
    small(figures, &bench, &id, rounds).await?;
    large(figures, &bench, &id, rounds.div_ceil(50)).await?;
    output(figures, &bench, &id, rounds.div_ceil(100)).await?;
    figures.add(
        "peak memory of that daemon",
        bench.memory("VmHWM"),
        "MiB",
        None,
    );
    Ok(())
}

async fn small(figures: &mut Figures, bench: &Bench, id: &str, rounds: usize) -> Result<()> {
    let data = Bytes::from(vec![b'x'; 4096]);
    let (mut stat, mut read, mut write) =
        (Samples::default(), Samples::default(), Samples::default());
    let mut files = bench.daemon.files();
    let mut floor = Samples::default();
    for _ in 0..rounds + 20 {
        floor.push(replace(bench.dir(), &data, 1)?);
        let path = "small".to_owned();
        let start = Instant::now();
        let request = host::WriteFileRequest {
            sandbox_id: id.to_owned(),
            path: path.clone(),
            data: data.clone(),
            ..Default::default()
        };
        files.write_file(request).await?;
        write.push(start.elapsed());
        let start = Instant::now();
        let request = host::StatRequest {
            sandbox_id: id.to_owned(),
            path: path.clone(),
            follow: true,
        };
        files.stat(request).await?;
        stat.push(start.elapsed());
        let start = Instant::now();
        let request = host::ReadTextRequest {
            sandbox_id: id.to_owned(),
            path,
            ..Default::default()
        };
        files.read_text(request).await?;
        read.push(start.elapsed());
    }
    let target = Some(Target::AtMost(0.25));
    figures.add("stat over the socket", stat.median(), "ms", target);
    figures.add("read 4 KiB over the socket", read.median(), "ms", target);
    let floor = ("write and rename here", floor.median());
    figures.compare(
        "write 4 KiB over the socket",
        write.median(),
        "ms",
        floor,
        target,
    );
    Ok(())
}

async fn large(figures: &mut Figures, bench: &Bench, id: &str, rounds: usize) -> Result<()> {
    use host::upload_request::Part;
    let chunk = Bytes::from(vec![b'x'; CHUNK]);
    let (mut up, mut down) = (Samples::default(), Samples::default());
    let mut files = bench.daemon.files();
    let mut floor = Samples::default();
    for _ in 0..rounds {
        floor.push(replace(bench.dir(), &chunk, LARGE / CHUNK as u64)?);
        let mut parts = vec![
            Part::Start(host::UploadStart {
                sandbox_id: id.to_owned(),
            }),
            Part::File(host::UploadFile {
                path: "large".to_owned(),
                ..Default::default()
            }),
        ];
        parts.extend((0..LARGE / CHUNK as u64).map(|_| Part::Data(chunk.clone())));
        parts.push(Part::End(host::upload_request::End {}));
        let requests = parts
            .into_iter()
            .map(|part| host::UploadRequest { part: Some(part) });
        let start = Instant::now();
        let answer = files
            .upload(tokio_stream::iter(requests))
            .await?
            .into_inner();
        up.push(start.elapsed());
        if !matches!(
            answer.results.as_slice(),
            [host::UploadResult {
                outcome: Some(host::upload_result::Outcome::Metadata(_)),
                ..
            }]
        ) {
            return Err(Failure::failed("a large upload failed"));
        }

        let start = Instant::now();
        let request = host::DownloadRequest {
            sandbox_id: id.to_owned(),
            paths: vec!["large".to_owned()],
            ..Default::default()
        };
        let mut answers = files.download(request).await?.into_inner();
        let mut bytes = 0;
        while let Some(answer) = answers.next().await {
            if let Some(host::download_response::Part::Data(data)) = answer?.part {
                bytes += data.len() as u64;
            }
        }
        down.push(start.elapsed());
        if bytes != LARGE {
            return Err(Failure::failed(format!(
                "a large download had {bytes} bytes"
            )));
        }
    }
    let target = Some(Target::AtLeast(800.0));
    let floor = (
        "write and rename here",
        mib_per_second(LARGE, floor.median()),
    );
    let value = mib_per_second(LARGE, up.median());
    figures.compare("upload 64 MiB", value, "MiB/s", floor, target);
    figures.add(
        "download 64 MiB",
        mib_per_second(LARGE, down.median()),
        "MiB/s",
        target,
    );
    Ok(())
}

/// Replaces a file as a careful program does, without a sandbox: writes these
/// bytes so many times under another name, and renames.
fn replace(dir: &Path, bytes: &[u8], times: u64) -> Result<Duration> {
    let write = || -> std::io::Result<Duration> {
        let start = Instant::now();
        let mut file = File::create(dir.join("floor.new"))?;
        for _ in 0..times {
            file.write_all(bytes)?;
        }
        std::fs::rename(dir.join("floor.new"), dir.join("floor"))?;
        Ok(start.elapsed())
    };
    write().map_err(|error| broken("write a file", &error))
}

async fn output(figures: &mut Figures, bench: &Bench, id: &str, rounds: usize) -> Result<()> {
    let (mut bare, mut streamed) = (Samples::default(), Samples::default());
    let count = OUTPUT.to_string();
    for _ in 0..rounds {
        let start = Instant::now();
        let mut child = process("head")
            .args(["-c", &count, "/dev/zero"])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| broken("run head", &error))?;
        let mut buffer = vec![0; 64 << 10];
        if let Some(mut stdout) = child.stdout.take() {
            while stdout
                .read(&mut buffer)
                .map_err(|error| broken("read from head", &error))?
                > 0
            {}
        }
        child
            .wait()
            .map_err(|error| broken("wait for head", &error))?;
        bare.push(start.elapsed());

        let args = ["head", "-c", &count, "/dev/zero"]
            .map(str::to_owned)
            .to_vec();
        let run = host::Run {
            sandbox_id: id.to_owned(),
            program: Some(host::run::Program::Argv(host::Argv { args })),
            ..Default::default()
        };
        let start = Instant::now();
        let input = host::exec_stream_request::Input::Start(host::ExecStart {
            run: Some(run),
            ..Default::default()
        });
        let requests = tokio_stream::iter([host::ExecStreamRequest { input: Some(input) }]);
        let mut answers = bench
            .daemon
            .commands()
            .exec_stream(requests)
            .await?
            .into_inner();
        let mut bytes = 0;
        while let Some(answer) = answers.next().await {
            if let Some(host::exec_stream_response::Event::Stdout(data)) = answer?.event {
                bytes += data.len() as u64;
            }
        }
        streamed.push(start.elapsed());
        if bytes != OUTPUT {
            return Err(Failure::failed(format!(
                "a stream of output had {bytes} bytes"
            )));
        }
    }
    let floor = mib_per_second(OUTPUT, bare.median());
    let value = mib_per_second(OUTPUT, streamed.median());
    figures.compare(
        "1 GiB of stdout, streamed",
        value,
        "MiB/s",
        ("a bare pipe", floor),
        Some(Target::AtLeast(800.0)),
    );
    Ok(())
}
