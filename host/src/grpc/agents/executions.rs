//! The service `Executions`.

use std::sync::Arc;

use futures_util::StreamExt as _;
use stigmer_sdk::wire::agent as pb;
use stigmer_sdk::wire::invalid;
use tonic::{Request, Response, Status};

use super::super::generated::agent::executions_server;
use super::super::status::{checked, to_status};
use super::super::streams::Responses;
use super::{slice, token};
use crate::agents::{Agents, Filter};

#[derive(Debug)]
pub(in super::super) struct ExecutionsService(pub(in super::super) Arc<Agents>);

#[tonic::async_trait]
impl executions_server::Executions for ExecutionsService {
    type SubscribeStream = Responses<pb::SubscribeResponse>;

    async fn create(
        &self,
        request: Request<pb::CreateExecutionRequest>,
    ) -> Result<Response<pb::CreateExecutionResponse>, Status> {
        let execution = checked(self.0.create_execution(request.into_inner()).await)?;
        Ok(Response::new(pb::CreateExecutionResponse {
            execution: Some(execution),
        }))
    }

    async fn get(
        &self,
        request: Request<pb::GetExecutionRequest>,
    ) -> Result<Response<pb::GetExecutionResponse>, Status> {
        let execution = checked(self.0.execution(&request.into_inner().execution_id).await)?;
        Ok(Response::new(pb::GetExecutionResponse {
            execution: Some(execution),
        }))
    }

    async fn list(
        &self,
        request: Request<pb::ListExecutionsRequest>,
    ) -> Result<Response<pb::ListExecutionsResponse>, Status> {
        let request = request.into_inner();
        let page = checked(slice(request.page_size, &request.page_token))?;
        let phases = request.phases.into_iter().map(|number| {
            pb::Phase::try_from(number)
                .ok()
                .filter(|&phase| phase != pb::Phase::Unspecified)
                .ok_or_else(|| invalid("phases", format_args!("{number} is not one of its values")))
        });
        let filter = Filter {
            session_id: request.session_id,
            phases: checked(phases.collect())?,
            labels: request.labels.into_iter().collect(),
            page,
        };
        let page = checked(self.0.executions(filter).await)?;
        Ok(Response::new(pb::ListExecutionsResponse {
            executions: page.items,
            next_page_token: token(page.next),
        }))
    }

    async fn cancel(
        &self,
        request: Request<pb::CancelExecutionRequest>,
    ) -> Result<Response<pb::CancelExecutionResponse>, Status> {
        let request = request.into_inner();
        let execution = checked(self.0.cancel(&request.execution_id, &request.reason).await)?;
        Ok(Response::new(pb::CancelExecutionResponse {
            execution: Some(execution),
        }))
    }

    async fn decide(
        &self,
        request: Request<pb::DecideRequest>,
    ) -> Result<Response<pb::DecideResponse>, Status> {
        checked(self.0.decide(request.into_inner()).await)?;
        Ok(Response::new(pb::DecideResponse {}))
    }

    async fn subscribe(
        &self,
        request: Request<pb::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let request = request.into_inner();
        let events = self.0.subscribe(&request.execution_id, request.from_seq);
        let events = checked(events.await)?.map(|event| match event {
            Ok(event) => Ok(pb::SubscribeResponse { event: Some(event) }),
            Err(error) => Err(to_status(&error)),
        });
        Ok(Response::new(events.boxed()))
    }
}
