//! A command, what goes into it, and what comes out.

use super::backend::env_out;
use super::sandbox::exec_request::{CloseStdin, Input as WireInput};
use super::sandbox::exec_response::Event as WireEvent;
use super::sandbox::exit_status::Status as WireStatus;
use super::{at, invalid, named, required, sandbox};
use crate::{Command, Error, Event, ExitStatus, Input, Result, SandboxPath, Signal, Terminal};

impl From<Terminal> for sandbox::Terminal {
    fn from(terminal: Terminal) -> Self {
        Self {
            columns: terminal.columns().into(),
            rows: terminal.rows().into(),
        }
    }
}

impl TryFrom<sandbox::Terminal> for Terminal {
    type Error = Error;

    fn try_from(wire: sandbox::Terminal) -> Result<Self> {
        Self::new(wire.columns, wire.rows).map_err(at("terminal"))
    }
}

impl From<Signal> for sandbox::Signal {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Hangup => Self::Hangup,
            Signal::Interrupt => Self::Interrupt,
            Signal::Quit => Self::Quit,
            Signal::Kill => Self::Kill,
            Signal::User1 => Self::User1,
            Signal::User2 => Self::User2,
            Signal::Terminate => Self::Terminate,
            Signal::Continue => Self::Continue,
            Signal::Stop => Self::Stop,
        }
    }
}

impl TryFrom<sandbox::Signal> for Signal {
    type Error = Error;

    fn try_from(signal: sandbox::Signal) -> Result<Self> {
        Ok(match signal {
            sandbox::Signal::Unspecified => return Err(invalid("signal", "is missing")),
            sandbox::Signal::Hangup => Self::Hangup,
            sandbox::Signal::Interrupt => Self::Interrupt,
            sandbox::Signal::Quit => Self::Quit,
            sandbox::Signal::Kill => Self::Kill,
            sandbox::Signal::User1 => Self::User1,
            sandbox::Signal::User2 => Self::User2,
            sandbox::Signal::Terminate => Self::Terminate,
            sandbox::Signal::Continue => Self::Continue,
            sandbox::Signal::Stop => Self::Stop,
        })
    }
}

impl Signal {
    /// The signal that an enum field of a message holds.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidArgument`](crate::ErrorCode::InvalidArgument) if it holds none.
    pub fn from_wire(number: i32) -> Result<Self> {
        named::<sandbox::Signal>("signal", number)?.try_into()
    }
}

impl From<Command> for sandbox::Command {
    fn from(command: Command) -> Self {
        Self {
            argv: command.argv().to_vec(),
            env: env_out(command.envs().clone()),
            cwd: command.working_dir().map(|cwd| cwd.as_str().to_owned()),
            user: command.run_as().map(str::to_owned),
            terminal: command.terminal_size().map(Into::into),
            merge_stderr: command.merges_stderr(),
            stdin: command.connects_stdin(),
        }
    }
}

impl TryFrom<sandbox::Command> for Command {
    type Error = Error;

    fn try_from(wire: sandbox::Command) -> Result<Self> {
        let mut command = Self::new(wire.argv)
            .map_err(at("argv"))?
            .merge_stderr(wire.merge_stderr)
            .stdin(wire.stdin);
        for (name, value) in wire.env {
            command = command.env(name, value).map_err(at("env"))?;
        }
        if let Some(cwd) = wire.cwd {
            command = command.cwd(SandboxPath::new(cwd).map_err(at("cwd"))?);
        }
        if let Some(user) = wire.user {
            if user.is_empty() || user.contains('\0') {
                return Err(invalid("user", "is empty or has a NUL byte"));
            }
            command = command.user(user);
        }
        if let Some(terminal) = wire.terminal {
            command = command.terminal(terminal.try_into()?);
        }
        Ok(command)
    }
}

impl From<Input> for sandbox::ExecRequest {
    fn from(input: Input) -> Self {
        let input = match input {
            Input::Stdin(bytes) => WireInput::Stdin(bytes),
            Input::CloseStdin => WireInput::CloseStdin(CloseStdin {}),
            Input::Resize(terminal) => WireInput::Resize(terminal.into()),
            Input::Signal(signal) => WireInput::Signal(sandbox::Signal::from(signal).into()),
        };
        Self { input: Some(input) }
    }
}

impl TryFrom<sandbox::ExecRequest> for Input {
    type Error = Error;

    fn try_from(wire: sandbox::ExecRequest) -> Result<Self> {
        Ok(match required("input", wire.input)? {
            WireInput::Start(_) => return Err(invalid("start", "may only come first")),
            WireInput::Stdin(bytes) => Self::Stdin(bytes),
            WireInput::CloseStdin(CloseStdin {}) => Self::CloseStdin,
            WireInput::Resize(terminal) => Self::Resize(terminal.try_into()?),
            WireInput::Signal(number) => Self::Signal(Signal::from_wire(number)?),
        })
    }
}

impl From<ExitStatus> for sandbox::ExitStatus {
    fn from(status: ExitStatus) -> Self {
        let status = match status {
            ExitStatus::Code(code) => WireStatus::Code(code.into()),
            ExitStatus::Signal(number) => WireStatus::Signal(number),
            ExitStatus::TimedOut => WireStatus::TimedOut(true),
            ExitStatus::Limit(limit) => WireStatus::Limit(limit),
        };
        Self {
            status: Some(status),
        }
    }
}

impl TryFrom<sandbox::ExitStatus> for ExitStatus {
    type Error = Error;

    fn try_from(wire: sandbox::ExitStatus) -> Result<Self> {
        Ok(match required("exit.status", wire.status)? {
            WireStatus::Code(code) => Self::Code(u8::try_from(code).map_err(|_| {
                invalid("exit.code", format_args!("{code} is not within 0 to 255"))
            })?),
            WireStatus::Signal(number) if (1..=127).contains(&number) => Self::Signal(number),
            WireStatus::Signal(number) => {
                return Err(invalid(
                    "exit.signal",
                    format_args!("{number} is not within 1 to 127"),
                ));
            }
            WireStatus::TimedOut(true) => Self::TimedOut,
            WireStatus::TimedOut(false) => {
                return Err(invalid("exit.timed_out", "can only be true"));
            }
            WireStatus::Limit(limit) => Self::Limit(limit),
        })
    }
}

impl From<Event> for sandbox::ExecResponse {
    fn from(event: Event) -> Self {
        let event = match event {
            Event::Stdout(bytes) => WireEvent::Stdout(bytes),
            Event::Stderr(bytes) => WireEvent::Stderr(bytes),
            Event::Exit(status) => WireEvent::Exit(status.into()),
        };
        Self { event: Some(event) }
    }
}

impl TryFrom<sandbox::ExecResponse> for Event {
    type Error = Error;

    fn try_from(wire: sandbox::ExecResponse) -> Result<Self> {
        Ok(match required("event", wire.event)? {
            WireEvent::Stdout(bytes) => Self::Stdout(bytes),
            WireEvent::Stderr(bytes) => Self::Stderr(bytes),
            WireEvent::Exit(status) => Self::Exit(status.try_into()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ErrorCode;

    #[test]
    fn commands_survive_the_trip() {
        #[track_caller]
        fn check(command: Command) {
            let wire = sandbox::Command::from(command.clone());
            assert_eq!(Command::try_from(wire).unwrap(), command);
        }
        let plain = Command::new(["a", ""]).unwrap();
        check(plain.clone());
        check(plain.clone().merge_stderr(true));
        check(
            plain
                .env("A", "b")
                .unwrap()
                .cwd("c/d".try_into().unwrap())
                .user("1000")
                .stdin(true)
                .merge_stderr(true)
                .terminal(Terminal::new(80, 24).unwrap()),
        );
    }

    #[test]
    fn inputs_survive_the_trip() {
        let signals = Signal::ALL.into_iter().map(Input::Signal);
        let others = [
            Input::Stdin(Bytes::from_static(b"\xff")),
            Input::CloseStdin,
            Input::Resize(Terminal::new(1, 2).unwrap()),
        ];
        for input in signals.chain(others) {
            let wire = sandbox::ExecRequest::from(input.clone());
            assert_eq!(Input::try_from(wire).unwrap(), input);
        }
    }

    #[test]
    fn signals_are_numbered_as_on_linux() {
        for signal in Signal::ALL {
            assert_eq!(sandbox::Signal::from(signal) as i32, signal.number());
        }
    }

    #[test]
    fn events_survive_the_trip() {
        let exits = [
            ExitStatus::Code(0),
            ExitStatus::Code(255),
            ExitStatus::Signal(64),
            ExitStatus::TimedOut,
            ExitStatus::Limit("memory".to_owned()),
        ];
        let outputs = [
            Event::Stdout(Bytes::from_static(b"\0a")),
            Event::Stderr(Bytes::from_static(b"b")),
        ];
        for event in exits.map(Event::Exit).into_iter().chain(outputs) {
            let wire = sandbox::ExecResponse::from(event.clone());
            assert_eq!(Event::try_from(wire).unwrap(), event);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_field() {
        #[track_caller]
        fn check<T: std::fmt::Debug>(result: Result<T>, code: ErrorCode, field: &str) {
            let error = result.unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.message().contains(field), "{error}");
        }
        let argv = || vec!["a".to_owned()];
        let command = |wire| Command::try_from(wire);
        let invalid = ErrorCode::InvalidArgument;
        check(command(sandbox::Command::default()), invalid, "argv");
        let cwd = Some(String::new());
        check(
            command(sandbox::Command {
                argv: argv(),
                cwd,
                ..Default::default()
            }),
            ErrorCode::InvalidPath,
            "cwd",
        );
        let user = Some(String::new());
        check(
            command(sandbox::Command {
                argv: argv(),
                user,
                ..Default::default()
            }),
            invalid,
            "user",
        );
        let terminal = Some(sandbox::Terminal {
            columns: 0,
            rows: 1,
        });
        check(
            command(sandbox::Command {
                argv: argv(),
                terminal,
                ..Default::default()
            }),
            invalid,
            "terminal",
        );

        let input = |input| Input::try_from(sandbox::ExecRequest { input });
        check(input(None), invalid, "input");
        check(input(Some(WireInput::Signal(0))), invalid, "signal");
        check(input(Some(WireInput::Signal(4))), invalid, "signal");
        check(
            input(Some(WireInput::Start(sandbox::ExecStart::default()))),
            invalid,
            "start",
        );

        let exit = |status| ExitStatus::try_from(sandbox::ExitStatus { status });
        check(exit(None), invalid, "exit.status");
        check(exit(Some(WireStatus::Code(256))), invalid, "exit.code");
        check(exit(Some(WireStatus::Code(-1))), invalid, "exit.code");
        check(exit(Some(WireStatus::Signal(0))), invalid, "exit.signal");
        check(
            exit(Some(WireStatus::TimedOut(false))),
            invalid,
            "exit.timed_out",
        );
        check(
            Event::try_from(sandbox::ExecResponse { event: None }),
            invalid,
            "event",
        );
    }
}
