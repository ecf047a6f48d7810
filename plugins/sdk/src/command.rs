//! A command, what goes into it, and what comes out.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;

use bytes::Bytes;

use crate::{Error, ErrorCode, Result, SandboxPath};

/// The name of an environment variable: not empty, without `=` or NUL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnvName(String);

impl EnvName {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] if no process could have such a variable.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!(
                    "'{}' cannot name an environment variable",
                    name.escape_debug()
                ),
            ));
        }
        Ok(Self(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The value of an environment variable: anything without NUL.
///
/// Its `Debug` shows nothing, because a value may be a secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EnvValue(String);

impl EnvValue {
    /// Checks and wraps a value.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] if it has a NUL byte.
    pub fn new(value: impl Into<String>) -> Result<Self> {
        let value = value.into();
        if value.contains('\0') {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                "an environment value may not contain a NUL byte",
            ));
        }
        Ok(Self(value))
    }

    /// The value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EnvValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The size of a terminal, in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    columns: NonZeroU16,
    rows: NonZeroU16,
}

impl Terminal {
    /// A terminal of this size.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] if either is 0 or above 65,535.
    pub fn new(columns: u32, rows: u32) -> Result<Self> {
        let cells = |count: u32| u16::try_from(count).ok().and_then(NonZeroU16::new);
        match (cells(columns), cells(rows)) {
            (Some(columns), Some(rows)) => Ok(Self { columns, rows }),
            _ => Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("a terminal cannot have {columns} columns and {rows} rows"),
            )),
        }
    }

    /// Cells in a row.
    #[must_use]
    pub fn columns(self) -> u16 {
        self.columns.get()
    }

    /// Rows on the screen.
    #[must_use]
    pub fn rows(self) -> u16 {
        self.rows.get()
    }
}

/// One command: a program with its arguments, and how it runs.
///
/// Nothing is ever parsed by a shell that the caller did not name. A command
/// gets a session and a process group of its own.
///
/// ```
/// # fn main() -> stigmer_sdk::Result<()> {
/// let command = stigmer_sdk::Command::new(["cargo", "test"])?.env("CI", "1")?.cwd("app".try_into()?);
/// assert_eq!(command.argv(), ["cargo", "test"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    argv: Vec<String>,
    env: BTreeMap<EnvName, EnvValue>,
    cwd: Option<SandboxPath>,
    user: Option<String>,
    terminal: Option<Terminal>,
    merge_stderr: bool,
    stdin: bool,
}

impl Command {
    /// A program and its arguments, with everything else at its default: the
    /// workspace, the sandbox's environment and user, no stdin, no terminal,
    /// and streams apart.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] if there is no program, its name is
    /// empty, or a word has a NUL byte.
    pub fn new<W: Into<String>>(argv: impl IntoIterator<Item = W>) -> Result<Self> {
        let argv: Vec<String> = argv.into_iter().map(Into::into).collect();
        let problem = if argv.first().is_none_or(String::is_empty) {
            "a command needs a program"
        } else if argv.iter().any(|word| word.contains('\0')) {
            "a command's words may not contain a NUL byte"
        } else {
            return Ok(Self {
                argv,
                env: BTreeMap::new(),
                cwd: None,
                user: None,
                terminal: None,
                merge_stderr: false,
                stdin: false,
            });
        };
        Err(Error::new(ErrorCode::InvalidArgument, problem))
    }

    /// Adds a variable to the sandbox's own, or replaces it.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`] as for [`EnvName`] and [`EnvValue`].
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Result<Self> {
        self.env.insert(EnvName::new(name)?, EnvValue::new(value)?);
        Ok(self)
    }

    /// Starts in this directory instead of the workspace.
    #[must_use]
    pub fn cwd(mut self, cwd: SandboxPath) -> Self {
        self.cwd = Some(cwd);
        self
    }

    /// Runs as this user, a name or a number, instead of the sandbox's own.
    /// Needs [`Feature::Users`](crate::Feature::Users).
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Runs under a terminal, which merges stderr into stdout. Needs
    /// [`Feature::Terminal`](crate::Feature::Terminal). Implies stdin.
    #[must_use]
    pub fn terminal(mut self, terminal: Terminal) -> Self {
        self.terminal = Some(terminal);
        self
    }

    /// Sends stderr where stdout goes, so that their order is exact. Without
    /// it, two pipes are read and the order between them is that of reading.
    #[must_use]
    pub fn merge_stderr(mut self, merge: bool) -> Self {
        self.merge_stderr = merge;
        self
    }

    /// Connects stdin to [`Input::Stdin`]. Otherwise it is at its end from the
    /// start, and programs that search a piped stdin before files do not.
    #[must_use]
    pub fn stdin(mut self, connect: bool) -> Self {
        self.stdin = connect;
        self
    }

    /// The program and its arguments; never empty.
    #[must_use]
    pub fn argv(&self) -> &[String] {
        &self.argv
    }

    /// The variables added to the sandbox's own.
    #[must_use]
    pub fn envs(&self) -> &BTreeMap<EnvName, EnvValue> {
        &self.env
    }

    /// Where it starts, if not in the workspace.
    #[must_use]
    pub fn working_dir(&self) -> Option<&SandboxPath> {
        self.cwd.as_ref()
    }

    /// The user it runs as, if not the sandbox's own.
    #[must_use]
    pub fn run_as(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The terminal it runs under.
    #[must_use]
    pub fn terminal_size(&self) -> Option<Terminal> {
        self.terminal
    }

    /// Whether stderr goes where stdout goes. A terminal always does that.
    #[must_use]
    pub fn merges_stderr(&self) -> bool {
        self.merge_stderr || self.terminal.is_some()
    }

    /// Whether stdin is connected. A terminal's always is.
    #[must_use]
    pub fn connects_stdin(&self) -> bool {
        self.stdin || self.terminal.is_some()
    }
}

/// A signal that may be sent to a running command, numbered as on Linux.
///
/// `Terminate` and `Kill` reach every process the command started, wherever it
/// moved; the others its process group, or the foreground group of its
/// terminal. One that a backend cannot deliver is ignored; all deliver `Kill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Signal {
    Hangup = 1,
    Interrupt = 2,
    Quit = 3,
    Kill = 9,
    User1 = 10,
    User2 = 12,
    Terminate = 15,
    Continue = 18,
    Stop = 19,
}

impl Signal {
    /// Every signal there is.
    pub const ALL: [Self; 9] = [
        Self::Hangup,
        Self::Interrupt,
        Self::Quit,
        Self::Kill,
        Self::User1,
        Self::User2,
        Self::Terminate,
        Self::Continue,
        Self::Stop,
    ];

    /// Its number on Linux.
    #[must_use]
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// The signal with this number on Linux, if it is one of these.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|signal| signal.number() == number)
    }
}

/// What the host may send to a running command.
///
/// The end of the stream of inputs closes stdin as [`Self::CloseStdin`] does,
/// and then nothing can follow, not even a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Bytes for stdin, if the command connects it; otherwise ignored.
    Stdin(Bytes),
    /// A new size of its terminal, if it has one; otherwise ignored.
    Resize(Terminal),
    /// A signal.
    Signal(Signal),
    /// The end of stdin, after which sizes and signals may still follow. What
    /// is written to stdin later is ignored; so is a second end.
    CloseStdin,
}

/// What a running command sends back: output in the order it happened, and
/// then exactly one exit, with which the stream ends.
///
/// A stream that ends without an exit was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes of stdout, or of the terminal. Never empty.
    Stdout(Bytes),
    /// Bytes of stderr. Never empty.
    Stderr(Bytes),
    /// The end of the program itself; see [`Sandbox::exec`](crate::Sandbox::exec).
    Exit(ExitStatus),
}

/// How a command ended. None of these is an error.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// It exited. 127: there is no such program. 126: it cannot be executed.
    Code(u8),
    /// A signal ended it, with this number in the sandbox.
    Signal(i32),
    /// It was stopped at a deadline.
    TimedOut,
    /// It was stopped for exceeding another limit, named here: `memory`.
    Limit(String),
}

impl ExitStatus {
    /// The status of a program that does not exist.
    pub const NO_SUCH_PROGRAM: Self = Self::Code(127);
    /// The status of a program that cannot be executed.
    pub const NOT_EXECUTABLE: Self = Self::Code(126);

    /// The number people see, as shells and `timeout(1)` have it: the code,
    /// 128 + the signal, 124 at a deadline, and 137 at another limit.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Code(code) => *code,
            Self::Signal(number) => u8::try_from(number.saturating_add(128)).unwrap_or(u8::MAX),
            Self::TimedOut => 124,
            Self::Limit(_) => 137,
        }
    }

    /// Whether it exited with 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        *self == Self::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => write!(f, "signal {number}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Limit(limit) => write!(f, "exceeded its {limit} limit"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_cannot_be_empty_or_hold_nul() {
        assert!(Command::new(Vec::<String>::new()).is_err());
        assert!(Command::new([""]).is_err());
        assert!(Command::new(["a", "b\0"]).is_err());
        let command = Command::new(["a", ""]).unwrap();
        assert!(command.clone().env("A=B", "").is_err());
        assert!(command.clone().env("", "").is_err());
        assert!(command.env("A", "b\0").is_err());
    }

    #[test]
    fn values_of_variables_are_not_shown() {
        let command = Command::new(["a"]).unwrap().env("KEY", "hunter2").unwrap();
        assert!(!format!("{command:?}").contains("hunter2"));
    }

    #[test]
    fn people_see_shell_exit_codes() {
        #[track_caller]
        fn check(status: ExitStatus, code: u8) {
            assert_eq!(status.exit_code(), code);
        }
        check(ExitStatus::Code(0), 0);
        check(ExitStatus::Code(255), 255);
        check(ExitStatus::Signal(9), 137);
        check(ExitStatus::Signal(64), 192);
        check(ExitStatus::TimedOut, 124);
        check(ExitStatus::Limit("memory".to_owned()), 137);
    }

    #[test]
    fn signals_are_found_by_number() {
        for signal in Signal::ALL {
            assert_eq!(Signal::from_number(signal.number()), Some(signal));
        }
        assert_eq!(Signal::from_number(4), None);
    }
}
