//! The service `Commands`: waited for, followed, or left running.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::{StreamExt as _, stream};
use stigmer_sdk::wire::host::{
    self as pb, attach_process_request, attach_process_response, exec_stream_request,
    exec_stream_response,
};
use stigmer_sdk::wire::{invalid, required};
use stigmer_sdk::{Event, EventStream, Input, InputStream, Result, Signal, Terminal};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status, Streaming};

use super::convert::{
    capture, command, ended_out, exec_input, output_out, preview, process_out, result_out, timeout,
    without_values,
};
use super::generated::host::commands_server::Commands;
use super::status::{checked, from_status, to_status};
use super::streams::{Responses, alongside, fitting, inputs, until_failed};
use crate::config::Limits;
use crate::guard::Timeout;
use crate::ops::output::{self, Captured, OutputLimits};
use crate::processes::{Follow, MAX_KEEP_BYTES, Piece, Process, Start};
use crate::sandboxes::{Handle, Manager};

/// Room in a message for all that is not content.
const MESSAGE_MARGIN: u64 = 64 * 1024;

/// Commands in any sandbox the manager knows.
#[derive(Debug)]
pub(super) struct CommandsService {
    pub(super) manager: Arc<Manager>,
}

impl CommandsService {
    fn limits(&self) -> &Limits {
        &self.manager.guard().limits
    }

    /// What of each stream goes into one answer. Both must fit into a message.
    fn inline_bytes(&self, asked: Option<u64>) -> Result<u64> {
        let most = (self.limits().message_bytes as u64).saturating_sub(MESSAGE_MARGIN) / 2;
        match asked {
            None => Ok(self.limits().inline_bytes.min(most)),
            Some(bytes) if bytes <= most => Ok(bytes),
            Some(bytes) => Err(invalid(
                "max_inline_bytes",
                format_args!(
                    "{bytes} is above {most}, half of what fits into a message; capture to a file, or use ExecStream"
                ),
            )),
        }
    }

    async fn process(
        &self,
        sandbox_id: &str,
        process_id: &str,
    ) -> Result<(Arc<Handle>, Arc<Process>)> {
        let handle = self.manager.handle(sandbox_id).await?;
        let process = handle.processes.get(process_id)?;
        Ok((handle, process))
    }

    async fn exec_once(&self, request: pb::ExecRequest) -> Result<pb::ExecResponse> {
        let run = required("run", request.run)?;
        let handle = self.manager.handle(&run.sandbox_id).await?;
        let command = command(&run, &handle.info.shell, request.stdin.is_some())?;
        let limits = OutputLimits {
            max_inline_bytes: self.inline_bytes(request.max_inline_bytes)?,
            preview: request.preview.map(preview),
            capture: capture(request.capture, self.limits())?,
        };
        let input: InputStream = match request.stdin {
            Some(bytes) => stream::iter([Input::Stdin(bytes)]).boxed(),
            None => stream::empty().boxed(),
        };
        let started = Instant::now();
        let events = handle
            .sandbox
            .run(command, input, timeout(&run, Timeout::Default))
            .await?;
        let finished = output::collect(handle.as_dyn(), events, limits).await?;
        let captured = finished
            .capture_error
            .map(Err)
            .or(finished.captured.map(Ok));
        Ok(pb::ExecResponse {
            stdout: Some(output_out(finished.stdout)),
            stderr: Some(output_out(finished.stderr)),
            result: Some(result_out(finished.status, started.elapsed(), captured)),
        })
    }

    async fn start(&self, request: pb::StartProcessRequest) -> Result<pb::StartProcessResponse> {
        let run = required("run", request.run)?;
        let handle = self.manager.handle(&run.sandbox_id).await?;
        let keep_bytes = request.keep_bytes.unwrap_or(self.limits().keep_bytes);
        if keep_bytes > MAX_KEEP_BYTES {
            return Err(invalid(
                "keep_bytes",
                format_args!("{keep_bytes} is above the maximum of {MAX_KEEP_BYTES}"),
            ));
        }
        let start = Start {
            command: command(&run, &handle.info.shell, request.stdin)?,
            timeout: timeout(&run, Timeout::None),
            name: request.name,
            keep_bytes,
            capture: capture(request.capture, self.limits())?,
            run: without_values(run),
        };
        let guard = self.manager.guard();
        let process = handle
            .processes
            .start(guard, &handle.sandbox, start, self.manager.now_ms())
            .await?;
        Ok(pb::StartProcessResponse {
            process: Some(process_out(&process, handle.info.id.as_str())),
        })
    }

    async fn wait(&self, request: pb::WaitProcessRequest) -> Result<pb::WaitProcessResponse> {
        let (handle, process) = self
            .process(&request.sandbox_id, &request.process_id)
            .await?;
        process
            .wait(Duration::from_millis(request.timeout_ms))
            .await;
        // Before the output: what comes after it is no part of this answer, and
        // a result must not come without the output before it.
        let shown = process_out(&process, handle.info.id.as_str());
        let end = process.output_bytes();
        let (pieces, next_offset) = match request.offset {
            Some(offset) => {
                let most = (self.limits().message_bytes as u64).saturating_sub(MESSAGE_MARGIN);
                process.output_since(
                    offset,
                    request
                        .max_bytes
                        .unwrap_or(self.limits().inline_bytes)
                        .min(most),
                )
            }
            None => (Vec::new(), end),
        };
        let offset = pieces.first().map_or(next_offset, |piece| piece.offset);
        Ok(pb::WaitProcessResponse {
            process: Some(shown),
            output: joined(pieces).freeze(),
            offset,
            next_offset,
        })
    }
}

fn joined(pieces: Vec<Piece>) -> BytesMut {
    let mut output = BytesMut::with_capacity(pieces.iter().map(|piece| piece.bytes.len()).sum());
    for piece in pieces {
        output.extend_from_slice(&piece.bytes);
    }
    output
}

#[tonic::async_trait]
impl Commands for CommandsService {
    async fn exec(
        &self,
        request: Request<pb::ExecRequest>,
    ) -> Result<Response<pb::ExecResponse>, Status> {
        checked(self.exec_once(request.into_inner()).await).map(Response::new)
    }

    type ExecStreamStream = Responses<pb::ExecStreamResponse>;

    async fn exec_stream(
        &self,
        request: Request<Streaming<pb::ExecStreamRequest>>,
    ) -> Result<Response<Self::ExecStreamStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.input);
        let Some(exec_stream_request::Input::Start(start)) = first else {
            return Err(to_status(&invalid("start", "must come first")));
        };
        let run = checked(required("run", start.run))?;
        let handle = checked(self.manager.handle(&run.sandbox_id).await)?;
        let command = checked(command(&run, &handle.info.shell, start.stdin))?;
        let capture = checked(capture(start.capture, self.limits()))?;
        let (input, failed) = inputs(requests, exec_input);
        let started = Instant::now();
        let events = checked(
            handle
                .sandbox
                .run(command, input, timeout(&run, Timeout::Default))
                .await,
        )?;
        let (events, captured) = match capture {
            Some(capture) => {
                let (events, captured) = output::tee(handle.as_dyn(), events, capture);
                (events, Some(captured))
            }
            None => (events, None),
        };
        Ok(Response::new(answers(
            fitting(until_failed(events, failed)),
            started,
            captured,
        )))
    }

    async fn start_process(
        &self,
        request: Request<pb::StartProcessRequest>,
    ) -> Result<Response<pb::StartProcessResponse>, Status> {
        checked(self.start(request.into_inner()).await).map(Response::new)
    }

    type AttachProcessStream = Responses<pb::AttachProcessResponse>;

    async fn attach_process(
        &self,
        request: Request<Streaming<pb::AttachProcessRequest>>,
    ) -> Result<Response<Self::AttachProcessStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.input);
        let Some(attach_process_request::Input::Open(open)) = first else {
            return Err(to_status(&invalid("open", "must come first")));
        };
        let (_, process) = checked(self.process(&open.sandbox_id, &open.process_id).await)?;
        let follow = Arc::clone(&process).follow(open.offset);
        let responses = alongside(follow, steer(process, requests)).map(|item| match item {
            Ok(follow) => Ok(follow_out(follow)),
            Err(error) => Err(to_status(&error)),
        });
        Ok(Response::new(responses.boxed()))
    }

    async fn wait_process(
        &self,
        request: Request<pb::WaitProcessRequest>,
    ) -> Result<Response<pb::WaitProcessResponse>, Status> {
        checked(self.wait(request.into_inner()).await).map(Response::new)
    }

    async fn write_process(
        &self,
        request: Request<pb::WriteProcessRequest>,
    ) -> Result<Response<pb::WriteProcessResponse>, Status> {
        let request = request.into_inner();
        let (_, process) = checked(self.process(&request.sandbox_id, &request.process_id).await)?;
        if !request.stdin.is_empty() {
            checked(process.write(request.stdin).await)?;
        }
        if request.close_stdin {
            process.close_stdin().await;
        }
        Ok(Response::new(pb::WriteProcessResponse {}))
    }

    async fn signal_process(
        &self,
        request: Request<pb::SignalProcessRequest>,
    ) -> Result<Response<pb::SignalProcessResponse>, Status> {
        let request = request.into_inner();
        let signal = checked(Signal::from_wire(request.signal))?;
        let (_, process) = checked(self.process(&request.sandbox_id, &request.process_id).await)?;
        checked(process.signal(signal).await)?;
        Ok(Response::new(pb::SignalProcessResponse {}))
    }

    async fn stop_process(
        &self,
        request: Request<pb::StopProcessRequest>,
    ) -> Result<Response<pb::StopProcessResponse>, Status> {
        let request = request.into_inner();
        let (handle, process) =
            checked(self.process(&request.sandbox_id, &request.process_id).await)?;
        process.stop(self.limits().grace).await;
        let process = Some(process_out(&process, handle.info.id.as_str()));
        Ok(Response::new(pb::StopProcessResponse { process }))
    }

    async fn list_processes(
        &self,
        request: Request<pb::ListProcessesRequest>,
    ) -> Result<Response<pb::ListProcessesResponse>, Status> {
        let handle = checked(self.manager.handle(&request.into_inner().sandbox_id).await)?;
        let processes = handle.processes.list();
        let processes = processes
            .iter()
            .map(|process| process_out(process, handle.info.id.as_str()))
            .collect();
        Ok(Response::new(pb::ListProcessesResponse { processes }))
    }
}

/// Events as answers. The exit waits until the capture is complete, because it
/// says where that is.
fn answers(
    events: EventStream,
    started: Instant,
    captured: Option<oneshot::Receiver<Option<Result<Captured>>>>,
) -> Responses<pb::ExecStreamResponse> {
    let answer = |event| pb::ExecStreamResponse { event: Some(event) };
    stream::unfold(
        (events, captured),
        move |(mut events, mut captured)| async move {
            let next = match events.next().await? {
                Ok(Event::Stdout(bytes)) => Ok(answer(exec_stream_response::Event::Stdout(bytes))),
                Ok(Event::Stderr(bytes)) => Ok(answer(exec_stream_response::Event::Stderr(bytes))),
                Ok(Event::Exit(status)) => {
                    let captured = match captured.take() {
                        Some(captured) => captured.await.ok().flatten(),
                        None => None,
                    };
                    let result = result_out(status, started.elapsed(), captured);
                    Ok(answer(exec_stream_response::Event::Exit(result)))
                }
                Err(error) => Err(to_status(&error)),
            };
            Some((next, (events, captured)))
        },
    )
    .boxed()
}

/// Passes on what an attached client sends, until it says no more. What comes
/// too late for the process is no error: the exit is on its way.
async fn steer(
    process: Arc<Process>,
    mut requests: Streaming<pb::AttachProcessRequest>,
) -> Result<()> {
    while let Some(request) = requests.message().await.map_err(from_status)? {
        let passed = pass_on(&process, request).await;
        if process.ended().is_some() {
            return Ok(());
        }
        passed?;
    }
    Ok(())
}

async fn pass_on(process: &Process, request: pb::AttachProcessRequest) -> Result<()> {
    use attach_process_request::Input as Wire;
    match required("input", request.input)? {
        Wire::Open(_) => Err(invalid("open", "may only come first")),
        Wire::Stdin(bytes) => process.write(bytes).await,
        Wire::CloseStdin(_) => {
            process.close_stdin().await;
            Ok(())
        }
        Wire::Resize(terminal) => process.resize(Terminal::try_from(terminal)?).await,
        Wire::Signal(number) => process.signal(Signal::from_wire(number)?).await,
    }
}

fn follow_out(follow: Follow) -> pb::AttachProcessResponse {
    use attach_process_response::Event as Wire;
    let (offset, event) = match follow {
        Follow::Output(piece) if piece.stderr => (piece.offset, Wire::Stderr(piece.bytes)),
        Follow::Output(piece) => (piece.offset, Wire::Stdout(piece.bytes)),
        Follow::Exit(ended) => (0, Wire::Exit(ended_out(ended))),
    };
    pb::AttachProcessResponse {
        offset,
        event: Some(event),
    }
}
