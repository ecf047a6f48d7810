//! The service `Sessions`.

use std::sync::Arc;

use futures_util::StreamExt as _;
use stigmer_sdk::wire::agent as pb;
use tonic::{Request, Response, Status};

use super::super::generated::agent::sessions_server;
use super::super::status::{checked, to_status};
use super::super::streams::Responses;
use super::{slice, token};
use crate::agents::Agents;

#[derive(Debug)]
pub(in super::super) struct SessionsService(pub(in super::super) Arc<Agents>);

#[tonic::async_trait]
impl sessions_server::Sessions for SessionsService {
    type HistoryStream = Responses<pb::HistoryResponse>;

    async fn create(
        &self,
        request: Request<pb::CreateSessionRequest>,
    ) -> Result<Response<pb::CreateSessionResponse>, Status> {
        let spec = request.into_inner().spec.unwrap_or_default();
        let session = checked(self.0.create_session(spec).await)?;
        Ok(Response::new(pb::CreateSessionResponse {
            session: Some(session),
        }))
    }

    async fn get(
        &self,
        request: Request<pb::GetSessionRequest>,
    ) -> Result<Response<pb::GetSessionResponse>, Status> {
        let session = checked(self.0.session(&request.into_inner().session_id).await)?;
        Ok(Response::new(pb::GetSessionResponse {
            session: Some(session),
        }))
    }

    async fn list(
        &self,
        request: Request<pb::ListSessionsRequest>,
    ) -> Result<Response<pb::ListSessionsResponse>, Status> {
        let request = request.into_inner();
        let slice = checked(slice(request.page_size, &request.page_token))?;
        let labels = request.labels.into_iter().collect();
        let page = checked(self.0.sessions(labels, slice).await)?;
        Ok(Response::new(pb::ListSessionsResponse {
            sessions: page.items,
            next_page_token: token(page.next),
        }))
    }

    async fn history(
        &self,
        request: Request<pb::HistoryRequest>,
    ) -> Result<Response<Self::HistoryStream>, Status> {
        let request = request.into_inner();
        let before = request.before_execution_id.as_deref();
        let history = checked(self.0.history(&request.session_id, before).await)?;
        let answers = history.map(|answer| answer.map_err(|error| to_status(&error)));
        Ok(Response::new(answers.boxed()))
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteSessionRequest>,
    ) -> Result<Response<pb::DeleteSessionResponse>, Status> {
        let session_id = request.into_inner().session_id;
        checked(self.0.delete_session(&session_id).await)?;
        Ok(Response::new(pb::DeleteSessionResponse {}))
    }
}
