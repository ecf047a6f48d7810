//! The service `Runners`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use stigmer_sdk::wire::agent as pb;
use tonic::{Request, Response, Status};

use super::super::generated::agent::runners_server;
use super::super::status::checked;
use super::super::streams::Responses;
use crate::agents::{Agents, Claimed};

#[derive(Debug)]
pub(in super::super) struct RunnersService(pub(in super::super) Arc<Agents>);

#[tonic::async_trait]
impl runners_server::Runners for RunnersService {
    type RegisterStream = Responses<pb::RegisterResponse>;

    async fn register(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> Result<Response<Self::RegisterStream>, Status> {
        let registration = checked(self.0.register(request.into_inner()).await)?;
        // The registration ends with the stream, when the runner is gone or the
        // daemon ends.
        let stop = self.0.closed().clone();
        let instructions = stream::unfold(registration, |mut registration| async move {
            let instruction = registration.instructions.recv().await?;
            Some((Ok(instruction), registration))
        });
        let instructions = instructions.take_until(stop.cancelled_owned());
        Ok(Response::new(instructions.boxed()))
    }

    async fn claim(
        &self,
        request: Request<pb::ClaimRequest>,
    ) -> Result<Response<pb::ClaimResponse>, Status> {
        let request = request.into_inner();
        let wait = Duration::from_millis(request.wait_ms);
        let work = match checked(self.0.claim(&request.runner_id, wait).await)? {
            Claimed::Work(work) => Some(*work),
            Claimed::Nothing => None,
            // The contract of sandboxes, whose errors the others are, has none
            // for this.
            Claimed::Unregistered => {
                return Err(Status::failed_precondition(format!(
                    "the runner '{}' is not registered, or not any more",
                    request.runner_id.escape_debug()
                )));
            }
        };
        Ok(Response::new(pb::ClaimResponse { work }))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::HeartbeatResponse>, Status> {
        let answer = self.0.heartbeat(request.into_inner()).await;
        checked(answer).map(Response::new)
    }

    async fn update_status(
        &self,
        request: Request<pb::UpdateStatusRequest>,
    ) -> Result<Response<pb::UpdateStatusResponse>, Status> {
        let answer = self.0.update(request.into_inner()).await;
        checked(answer).map(Response::new)
    }

    async fn release(
        &self,
        request: Request<pb::ReleaseRequest>,
    ) -> Result<Response<pb::ReleaseResponse>, Status> {
        checked(self.0.release(request.into_inner()).await)?;
        Ok(Response::new(pb::ReleaseResponse {}))
    }
}
