//! A running command and the person who runs it: output goes out as it comes,
//! stdin and signals go in.
//!
//! [`channel`] makes what the command is fed from, and [`follow`] is the one
//! loop that owns both sides until the exit. It is the same for a sandbox in
//! this process and for one behind the daemon.
//!
//! Two threads may block: one reads stdin, one writes what came last. The loop
//! itself never does, so that Ctrl-C is heard however slow a reader is.

use std::io;
use std::task::Poll;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use stigmer_sdk::{Event, EventStream, ExitStatus, Input, InputStream, Signal};
use tokio::signal::unix::{Signal as Listener, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::events::JsonEvents;
use super::failure::{Failure, Result};
use super::output::{Output, RawStream};
use super::terminal;

/// How much of stdin is read at once.
const CHUNK: usize = 64 * 1024;

/// The signals that ask a run to end, in the order of `Signals::asked`.
const ENDING: [Signal; 4] = [
    Signal::Interrupt,
    Signal::Terminate,
    Signal::Hangup,
    Signal::Quit,
];

/// Signals to this process, from the moment this exists.
#[derive(Debug)]
pub(super) struct Signals {
    ending: [Listener; 4],
    resized: Listener,
}

impl Signals {
    pub(super) fn listen() -> Result<Self> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::failed("cannot listen for signals").because(&error))
        };
        Ok(Self {
            ending: [
                listen(SignalKind::interrupt())?,
                listen(SignalKind::terminate())?,
                listen(SignalKind::hangup())?,
                listen(SignalKind::quit())?,
            ],
            resized: listen(SignalKind::window_change())?,
        })
    }

    async fn next(&mut self) -> Told {
        let [interrupt, terminate, hangup, quit] = &mut self.ending;
        // A listener's `recv` never ends.
        let which = tokio::select! {
            _ = interrupt.recv() => 0,
            _ = terminate.recv() => 1,
            _ = hangup.recv() => 2,
            _ = quit.recv() => 3,
            _ = self.resized.recv() => return Told::Resized,
        };
        Told::End(ENDING[which])
    }
}

impl Signals {
    /// A signal that asks us to end.
    pub(super) async fn asked(&mut self) -> Signal {
        loop {
            if let Told::End(signal) = self.next().await {
                return signal;
            }
        }
    }

    /// Does something that has no way of its own to be told to end.
    pub(super) async fn unless_asked<T, E: Into<Failure>>(
        &mut self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            signal = self.asked() => Err(Failure::interrupted(signal.number())),
            done = work => done.map_err(Into::into),
        }
    }
}

enum Told {
    End(Signal),
    Resized,
}

/// The way to a command for what a person does: few and small inputs.
#[derive(Debug)]
pub(super) struct Controls(mpsc::UnboundedSender<Input>);

/// Makes a command's input, with our stdin in it if `stdin`. Signals and sizes
/// go before what waits in stdin, and go on after its end.
pub(super) fn channel(stdin: bool, output: &Output) -> (Controls, InputStream) {
    let (sender, mut controls) = mpsc::unbounded_channel();
    let mut data = stdin.then(|| {
        let (chunks, data) = mpsc::channel(4);
        let output = output.clone();
        // It ends with stdin, with the command's input, or with the process: a
        // read from a terminal cannot be called off.
        std::thread::spawn(move || {
            if let Err(error) = read_stdin(&chunks) {
                output.warn(format!("stdin cannot be read any further: {error}"));
            }
        });
        data
    });
    let inputs = stream::poll_fn(
        move |context| match (controls.poll_recv(context), &mut data) {
            (Poll::Ready(Some(input)), _) => Poll::Ready(Some(input)),
            (otherwise, None) => otherwise,
            (_, Some(chunks)) => match chunks.poll_recv(context) {
                Poll::Ready(Some(bytes)) => Poll::Ready(Some(Input::Stdin(bytes))),
                Poll::Ready(None) => {
                    data = None;
                    Poll::Ready(Some(Input::CloseStdin))
                }
                Poll::Pending => Poll::Pending,
            },
        },
    );
    (Controls(sender), inputs.boxed())
}

fn read_stdin(chunks: &mpsc::Sender<Bytes>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                if chunks
                    .blocking_send(Bytes::copy_from_slice(&buffer[..length]))
                    .is_err()
                {
                    return Ok(());
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let stdin = rustix::stdio::stdin();
                let mut ready = [rustix::event::PollFd::new(
                    &stdin,
                    rustix::event::PollFlags::IN,
                )];
                rustix::event::poll(&mut ready, None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// How the output looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Raw,
    /// One event a line.
    Json,
}

/// Where output goes, and as what.
#[derive(Debug)]
pub(super) struct Sink {
    format: Format,
    stdout: RawStream,
    stderr: RawStream,
}

impl Sink {
    pub(super) fn new(format: Format) -> Result<Self> {
        Ok(Self {
            format,
            stdout: RawStream::stdout()?,
            stderr: RawStream::stderr()?,
        })
    }
}

/// Passes everything on until the command has ended.
///
/// The first signal that asks us to end is passed to the command, the second
/// kills it, and the third gives it up, as does the first when there is no way
/// to it any more: dropping the events ends the whole tree.
pub(super) async fn follow(
    mut events: EventStream,
    controls: Controls,
    signals: &mut Signals,
    sink: Sink,
) -> Result<ExitStatus> {
    let Controls(inputs) = controls;
    let Sink {
        format,
        stdout,
        stderr,
    } = sink;
    let mut json = JsonEvents::default();
    let mut asked = 0;
    let mut writing: Option<JoinHandle<Result<()>>> = None;
    loop {
        tokio::select! {
            biased;
            told = signals.next() => match told {
                Told::Resized => {
                    // Nobody listens once the command has ended, which is seen below.
                    let _ended = inputs.send(Input::Resize(terminal::size()));
                }
                Told::End(signal) => {
                    asked += 1;
                    let pass = if asked == 1 { signal } else { Signal::Kill };
                    if asked > 2 || inputs.send(Input::Signal(pass)).is_err() {
                        return Err(Failure::interrupted(signal.number()));
                    }
                }
            },
            written = written(&mut writing) => written?,
            event = events.next(), if writing.is_none() => {
                let Some(event) = event else {
                    return Err(Failure::failed("the sandbox was lost before the command ended"));
                };
                let event = event?;
                let (stream, bytes) = match (format, &event) {
                    (Format::Json, event) => (&stdout, json.lines(event)),
                    (Format::Raw, Event::Stdout(bytes)) => (&stdout, bytes.clone()),
                    (Format::Raw, Event::Stderr(bytes)) => (&stderr, bytes.clone()),
                    (Format::Raw, Event::Exit(_)) => (&stdout, Bytes::new()),
                };
                if let Event::Exit(status) = event {
                    stream.write(&bytes)?;
                    return Ok(status);
                }
                if bytes.is_empty() {
                    continue;
                }
                let stream = stream.clone();
                writing = Some(tokio::task::spawn_blocking(move || stream.write(&bytes)));
            }
        }
    }
}

/// The end of a write, if there is one.
async fn written(writing: &mut Option<JoinHandle<Result<()>>>) -> Result<()> {
    let Some(write) = writing else {
        return std::future::pending().await;
    };
    let written = write.await;
    *writing = None;
    written.unwrap_or_else(|error| Err(Failure::failed("a write broke off").because(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::Reason;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    fn pipe() -> (std::fs::File, RawStream) {
        let (reader, writer): (OwnedFd, OwnedFd) = rustix::pipe::pipe().unwrap();
        (reader.into(), RawStream::of("stdout", writer))
    }

    async fn run(
        format: Format,
        events: Vec<stigmer_sdk::Result<Event>>,
        stdout: RawStream,
    ) -> Result<ExitStatus> {
        let (controls, _inputs) = channel(false, &Output::new(true, true));
        let sink = Sink {
            format,
            stderr: stdout.clone(),
            stdout,
        };
        let mut signals = Signals::listen()?;
        follow(stream::iter(events).boxed(), controls, &mut signals, sink).await
    }

    fn out(text: &'static str) -> stigmer_sdk::Result<Event> {
        Ok(Event::Stdout(Bytes::from_static(text.as_bytes())))
    }

    #[tokio::test]
    async fn output_comes_in_order_and_then_the_exit() {
        let (mut reader, stdout) = pipe();
        let events = vec![
            out("a"),
            Ok(Event::Stderr(Bytes::from_static(b"b"))),
            out("c"),
            Ok(Event::Exit(ExitStatus::Code(3))),
        ];
        assert_eq!(
            run(Format::Raw, events, stdout).await,
            Ok(ExitStatus::Code(3))
        );
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
    }

    #[tokio::test]
    async fn json_ends_with_the_exit() {
        let (mut reader, stdout) = pipe();
        run(
            Format::Json,
            vec![out("a"), Ok(Event::Exit(ExitStatus::Signal(9)))],
            stdout,
        )
        .await
        .unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let last = text.lines().last().unwrap();
        assert_eq!(
            last,
            r#"{"exit_code":137,"signal":9,"status":"signalled","type":"exit"}"#
        );
    }

    #[tokio::test]
    async fn a_reader_that_left_ends_it_quietly() {
        let (reader, stdout) = pipe();
        drop(reader);
        let events = vec![out("a"), out("b"), Ok(Event::Exit(ExitStatus::Code(0)))];
        let failure = run(Format::Raw, events, stdout).await.unwrap_err();
        assert_eq!(
            (failure.reason, failure.problems.len()),
            (Reason::BrokenPipe, 0)
        );
    }

    #[tokio::test]
    async fn a_stream_without_an_exit_was_lost() {
        let (_reader, stdout) = pipe();
        let failure = run(Format::Raw, vec![out("a")], stdout).await.unwrap_err();
        assert_eq!(
            failure.problems,
            ["the sandbox was lost before the command ended"]
        );
    }

    #[tokio::test]
    async fn signals_go_in_until_we_are_done() {
        let (controls, mut inputs) = channel(false, &Output::new(true, true));
        controls.0.send(Input::Signal(Signal::Interrupt)).unwrap();
        assert_eq!(inputs.next().await, Some(Input::Signal(Signal::Interrupt)));
        drop(controls);
        assert_eq!(inputs.next().await, None);
    }
}
