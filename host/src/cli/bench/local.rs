//! Local mode: how long it takes to start, to look at and to stop, what it
//! weighs while nothing happens, and how late a model's first word is.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::broken;
use super::daemon::{memory, process, scratch};
use super::figures::{Figures, Samples, Target};
use crate::cli::failure::{Failure, Result};

/// What the model says first, and what it is recognised by.
const FIRST: &str = "Primes";

pub(super) fn measure(figures: &mut Figures, rounds: usize) -> Result<()> {
    let model = Model::serve()?;
    let local = Local::new(&model)?;
    let (mut start, mut status, mut stop) =
        (Samples::default(), Samples::default(), Samples::default());
    let mut weight = Samples::default();
    for _ in 0..rounds {
        start.push(local.timed(&["local", "start", "--no-input"])?);
        status.push(local.timed(&["local", "status"])?);
        weight.push(Duration::from_secs_f64(local.weight()? / 1e3));
        stop.push(local.timed(&["local", "stop"])?);
    }
    figures.add(
        "local start, until ready",
        start.median(),
        "ms",
        Some(Target::AtMost(300.0)),
    );
    figures.add(
        "local status",
        status.median(),
        "ms",
        Some(Target::AtMost(30.0)),
    );
    figures.add(
        "local stop, idle",
        stop.median(),
        "ms",
        Some(Target::AtMost(300.0)),
    );
    figures.add(
        "daemon and agent runner, idle",
        weight.median(),
        "MiB",
        Some(Target::AtMost(60.0)),
    );

    local.timed(&["local", "start", "--no-input"])?;
    let mut late = Samples::default();
    for _ in 0..rounds {
        late.push(local.first_word(&model)?);
    }
    figures.add(
        "first word of the model, from provider to stdout",
        late.median(),
        "ms",
        Some(Target::AtMost(10.0)),
    );
    Ok(())
}

/// `stigmer` with a data directory and a workspace of its own.
#[derive(Debug)]
struct Local {
    program: PathBuf,
    dir: PathBuf,
    base_url: String,
}

impl Local {
    fn new(model: &Model) -> Result<Self> {
        let dir = scratch()?;
        let program =
            std::env::current_exe().map_err(|error| broken("find this program", &error))?;
        std::fs::create_dir(dir.join("work"))
            .map_err(|error| broken("make a workspace", &error))?;
        Ok(Self {
            program,
            dir,
            base_url: model.base_url.clone(),
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = process(&self.program.to_string_lossy());
        command
            .args(args)
            .env_clear()
            .envs([("PATH", "/usr/bin:/bin"), ("MODE", "local")])
            .env("HOME", &self.dir)
            .env("STIGMER_DATA_DIR", self.dir.join("data"))
            .env("SANDBOX_ROOT_DIR", self.dir.join("work"))
            .envs([("STIGMER_PORT", "0"), ("STIGMER_LLM_PROVIDER", "ollama")])
            .env("OLLAMA_BASE_URL", &self.base_url)
            .stdin(Stdio::null());
        command
    }

    /// How long a run takes, which has to go well.
    fn timed(&self, args: &[&str]) -> Result<Duration> {
        let start = Instant::now();
        let output = self
            .command(args)
            .output()
            .map_err(|error| broken("run this program", &error))?;
        let took = start.elapsed();
        if output.status.success() {
            return Ok(took);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::failed(format!(
            "stigmer {} went wrong: {}",
            args.join(" "),
            said.trim()
        )))
    }

    /// Resident memory of the daemon and of its runner together, in MiB.
    fn weight(&self) -> Result<f64> {
        let data = self.dir.join("data");
        let of = |file: &str| memory(pid_in(&data.join(file))?, "VmRSS");
        of("daemon.pid")
            .zip(of("agent-runner.pid"))
            .map(|(daemon, runner)| daemon + runner)
            .ok_or_else(|| Failure::failed("the daemon or its agent runner is not there"))
    }

    /// How long after the provider sent it a first word is on stdout.
    fn first_word(&self, model: &Model) -> Result<Duration> {
        let mut child = self
            .command(&["--quiet", "run", "say something"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| broken("run this program", &error))?;
        let mut seen = String::new();
        let mut arrived = None;
        if let Some(mut stdout) = child.stdout.take() {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut buffer) {
                seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
                if arrived.is_none() && seen.contains(FIRST) {
                    arrived = Some(Instant::now());
                    // Only now does the model go on: nothing hides in a buffer.
                    model.go_on.send(()).ok();
                }
            }
        }
        let ended = child
            .wait()
            .map_err(|error| broken("wait for this program", &error))?;
        let sent = model.sent.recv_timeout(Duration::from_secs(1)).ok();
        match (ended.success(), arrived, sent) {
            (true, Some(arrived), Some(sent)) => Ok(arrived - sent),
            _ => Err(Failure::failed("the model's answer did not come through")),
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.timed(&["local", "stop"]).ok();
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

fn pid_in(file: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// A model's API on loopback: it says one word, tells when, and says the rest
/// once that has arrived.
#[derive(Debug)]
struct Model {
    base_url: String,
    sent: mpsc::Receiver<Instant>,
    go_on: mpsc::Sender<()>,
}

impl Model {
    fn serve() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .map_err(|error| broken("listen as a model would", &error))?;
        let address = listener
            .local_addr()
            .map_err(|error| broken("listen as a model would", &error))?;
        let (sent_at, sent) = mpsc::channel();
        let (go_on, proceed) = mpsc::channel();
        // Ends with this process, which measures and then exits.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &sent_at, &proceed).ok();
            }
        });
        Ok(Self {
            base_url: format!("http://{address}"),
            sent,
            go_on,
        })
    }
}

/// Serves one connection, as OpenAI's chat completions are streamed.
fn answer(
    mut stream: TcpStream,
    sent: &mpsc::Sender<Instant>,
    proceed: &mpsc::Receiver<()>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    let mut line = String::new();
    let mut asked = false;
    while reader.read_line(&mut line)? > 2 {
        asked |= line.starts_with("POST") && line.contains("/chat/completions");
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    if !asked {
        return stream
            .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}");
    }
    let chunk = |content: &str, finish: &str| {
        format!(
            r#"data: {{"id":"1","object":"chat.completion.chunk","model":"m","choices":[{{"index":0,"delta":{{"content":"{content}"}},"finish_reason":{finish}}}]}}"#
        ) + "\n\n"
    };
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/event-stream\r\n\r\n";
    stream.write_all(format!("{head}{}", chunk(FIRST, "null")).as_bytes())?;
    sent.send(Instant::now()).ok();
    proceed.recv_timeout(Duration::from_secs(10)).ok();
    stream.write_all(format!("{}data: [DONE]\n\n", chunk(" it is.", r#""stop""#)).as_bytes())
}
