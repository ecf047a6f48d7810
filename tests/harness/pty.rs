//! A terminal to run a program under.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use crate::{Home, binary};

/// A program under a terminal, and the person in front of it.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    master: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Runs `stigmer` with these arguments under a terminal of this size.
    ///
    /// Making a terminal the controlling one of a new session takes a call
    /// between fork and exec, which needs `unsafe`; `setsid --ctty` does it
    /// for us and then becomes the program.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(home: &Home, args: &[&str], columns: u16, rows: u16) -> Self {
        let mut stigmer = home.command("setsid");
        stigmer.arg("--ctty").arg(binary::path()).args(args);
        Self::run(stigmer, columns, rows)
    }

    /// Runs a command that makes the terminal on its stdin its own.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn run(mut command: Command, columns: u16, rows: u16) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pty");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let name = ptsname(&master, Vec::new()).expect("ptsname");
        let slave = rustix::fs::open(
            &name,
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .expect("the other side of the pty");
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).expect("a size");
        let copy = |fd: &OwnedFd| fd.try_clone().expect("a descriptor");
        let child = command
            .env("TERM", "xterm")
            .stdin(copy(&slave))
            .stdout(copy(&slave))
            .stderr(slave)
            .spawn()
            .expect("setsid of util-linux runs");
        let screen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&screen);
        let master = File::from(master);
        let mut reader = master.try_clone().expect("a descriptor");
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Fails when the last process that had the other side is gone.
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
                sink.extend_from_slice(&buffer[..length]);
            }
        });
        Self {
            child,
            master,
            screen,
        }
    }

    /// Its number.
    ///
    /// # Panics
    /// Never: numbers are small.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a small number")
    }

    /// Types something.
    ///
    /// # Panics
    /// If nobody has the other side.
    pub fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("a terminal");
    }

    /// Changes the size of the window.
    ///
    /// # Panics
    /// If nobody has the other side.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.master, size).expect("a size");
    }

    /// Whether it echoes what is typed, as it does when nobody has made it raw.
    ///
    /// # Panics
    /// If nobody has the other side.
    #[must_use]
    pub fn echoes(&self) -> bool {
        let settings = tcgetattr(&self.master).expect("a terminal");
        settings
            .local_modes
            .contains(rustix::termios::LocalModes::ECHO)
    }

    /// All its settings, to see whether they are as they were.
    ///
    /// # Panics
    /// If nobody has the other side.
    #[must_use]
    pub fn settings(&self) -> String {
        format!("{:?}", tcgetattr(&self.master).expect("a terminal"))
    }

    /// Everything that was shown.
    #[must_use]
    pub fn screen(&self) -> String {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&screen).into_owned()
    }

    /// Waits until it shows this.
    ///
    /// # Panics
    /// If it does not within half a minute.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        let start = Instant::now();
        while !self.screen().contains(text) {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "no {text:?} in {:?}",
                self.screen()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the end of the program.
    ///
    /// # Panics
    /// If it does not come within half a minute.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(30);
        crate::cli::wait_until(&mut self.child, deadline)
            .unwrap_or_else(|| panic!("it does not end: {:?}", self.screen()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // After `wait`, both say that there is nothing to do.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
