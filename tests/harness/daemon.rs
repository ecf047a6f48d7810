//! A daemon, and its end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{Cli, Home, Output, Running, process};

/// A daemon that is ready. Dropped, it is killed, and whatever it started ends.
#[derive(Debug)]
pub struct Daemon {
    running: Option<Running>,
    tcp: SocketAddr,
    socket: PathBuf,
}

impl Daemon {
    /// Starts one with these arguments, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become so.
    #[track_caller]
    #[must_use]
    pub fn start(home: &Home, args: &[&str]) -> Self {
        Self::started(home.stigmer(Self::args(args)))
    }

    /// How to start one on a port that is free.
    pub fn args<'a>(more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["server", "--mode", "local", "--port", "0"];
        args.extend(more);
        args
    }

    /// Waits until the daemon that `cli` starts is ready.
    ///
    /// # Panics
    /// If it does not become so.
    #[track_caller]
    #[must_use]
    pub fn started(cli: Cli) -> Self {
        // As long as any test takes.
        let running = cli.deadline(Duration::from_secs(3600)).start();
        let limit = Instant::now() + Duration::from_secs(30);
        let line = loop {
            if let Some((line, _)) = running.stdout().split_once('\n') {
                break line.to_owned();
            }
            assert!(
                !running.has_ended() && Instant::now() < limit,
                "the daemon is not ready: {}",
                running.stderr()
            );
            std::thread::sleep(Duration::from_millis(2));
        };
        let (tcp, socket) = line
            .strip_prefix("listening on ")
            .and_then(|line| line.split_once(" and "))
            .unwrap_or_else(|| panic!("the daemon said {line:?}"));
        Self {
            running: Some(running),
            tcp: tcp.parse().expect("an address"),
            socket: socket.into(),
        }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("not waited for")
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.running().pid()
    }

    /// Where it listens on loopback.
    #[must_use]
    pub fn tcp(&self) -> SocketAddr {
        self.tcp
    }

    /// Its Unix socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.running().stderr()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.running().signal(signal);
    }

    /// Kills it, and waits until everything it had started is gone.
    #[track_caller]
    pub fn kill(mut self) {
        let below = process::descendants(self.pid());
        self.signal(Signal::KILL);
        let running = self.running.take().expect("not waited for");
        drop(running);
        process::all_end("what a killed daemon had started", &below);
    }

    /// Ends it as an administrator would, and waits until it has.
    #[track_caller]
    pub fn stop(self) -> Output {
        let below = process::descendants(self.pid());
        self.signal(Signal::TERM);
        let output = self.wait();
        assert!(output.status().success(), "{output}");
        process::all_end("what a daemon had started", &below);
        output
    }

    /// Waits for an end that was asked for.
    ///
    /// # Panics
    /// If it does not come within a minute.
    #[track_caller]
    #[must_use]
    pub fn wait(mut self) -> Output {
        crate::eventually("the daemon ends", Duration::from_secs(60), || {
            self.running().has_ended()
        });
        self.running.take().expect("not waited for").wait()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let below = process::descendants(running.pid());
            drop(running);
            if !std::thread::panicking() {
                process::all_end("what a daemon had started", &below);
            }
        }
    }
}
