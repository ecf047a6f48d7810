//! Executions and sessions as people name them: by an id, or by as much of its
//! beginning or its end as is unique.
//!
//! Ids begin with the time, so that those of one day begin alike and their ends
//! are what tells them apart.

use stigmer_sdk::wire::agent::{
    Execution, GetExecutionRequest, GetSessionRequest, ListExecutionsRequest, ListSessionsRequest,
    Phase, Session,
};
use stigmer_sdk::wire::sandbox::ErrorCode;
use tonic::Status;

use crate::cli::daemon::{Daemon, incomplete};
use crate::cli::failure::{Failure, Result, has_code};

/// How long an id is after its kind.
const ID_CHARS: usize = 26;
/// Below this, a part of an id is a typing error.
const LEAST: usize = 4;

/// A kind of thing that has an id.
#[derive(Clone, Copy, Debug)]
struct Kind {
    prefix: &'static str,
    noun: &'static str,
    list: &'static str,
}

const EXECUTION: Kind = Kind {
    prefix: "exe-",
    noun: "execution",
    list: "stigmer execution list",
};
const SESSION: Kind = Kind {
    prefix: "ses-",
    noun: "session",
    list: "stigmer session list",
};

impl Kind {
    /// Whether a name needs no looking up.
    fn is_whole(self, name: &str) -> bool {
        name.strip_prefix(self.prefix).is_some_and(|id| {
            id.len() == ID_CHARS && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
    }

    /// The one id that is meant.
    fn choose<'a>(self, name: &str, ids: impl Iterator<Item = &'a str>) -> Result<&'a str> {
        let wanted = name.to_ascii_lowercase();
        let part = wanted.strip_prefix(self.prefix).unwrap_or(&wanted);
        let mut found = Vec::new();
        for id in ids {
            let whole = id.to_ascii_lowercase();
            if whole == wanted {
                return Ok(id);
            }
            let bare = whole.strip_prefix(self.prefix).unwrap_or(&whole);
            let fits = bare.starts_with(part) || bare.ends_with(part);
            if part.len() >= LEAST && fits {
                found.push(id);
            }
        }
        match &found[..] {
            [only] => Ok(only),
            [] => Err(self.none(name)),
            [first, second, ..] => Err(Failure::failed(format!(
                "'{}' may be {first}, {second}{}",
                name.escape_debug(),
                match found.len() {
                    2 => String::new(),
                    more => format!(" or {} more", more - 2),
                }
            ))
            .hint("give more of the id; ids of one day begin alike, so its end tells more")),
        }
    }

    fn none(self, name: &str) -> Failure {
        Failure::failed(format!(
            "there is no {} '{}'",
            self.noun,
            name.escape_debug()
        ))
        .hint(format!("see which there are with: {}", self.list))
    }

    fn failure(self, name: &str, status: Status) -> Failure {
        if has_code(&status, ErrorCode::NotFound) {
            self.none(name)
        } else {
            status.into()
        }
    }
}

/// The id of the execution that is meant.
pub(in crate::cli) async fn execution_id(daemon: &Daemon, name: &str) -> Result<String> {
    if EXECUTION.is_whole(name) {
        return Ok(name.to_owned());
    }
    let all = executions(daemon, None, &[], usize::MAX).await?;
    let ids = all.iter().map(|execution| execution.execution_id.as_str());
    EXECUTION.choose(name, ids).map(str::to_owned)
}

/// An execution with its messages.
pub(in crate::cli) async fn execution(daemon: &Daemon, name: &str) -> Result<Execution> {
    let request = GetExecutionRequest {
        execution_id: execution_id(daemon, name).await?,
    };
    let answer = daemon.executions().get(request).await;
    let answer = answer.map_err(|status| EXECUTION.failure(name, status))?;
    answer.into_inner().execution.ok_or_else(incomplete)
}

/// The id of the session that is meant.
pub(in crate::cli) async fn session_id(daemon: &Daemon, name: &str) -> Result<String> {
    if SESSION.is_whole(name) {
        return Ok(name.to_owned());
    }
    let all = sessions(daemon).await?;
    let ids = all.iter().map(|session| session.session_id.as_str());
    SESSION.choose(name, ids).map(str::to_owned)
}

pub(in crate::cli) async fn session(daemon: &Daemon, name: &str) -> Result<Session> {
    let request = GetSessionRequest {
        session_id: session_id(daemon, name).await?,
    };
    let answer = daemon.sessions().get(request).await;
    let answer = answer.map_err(|status| SESSION.failure(name, status))?;
    answer.into_inner().session.ok_or_else(incomplete)
}

/// The newest executions, page by page.
pub(in crate::cli) async fn executions(
    daemon: &Daemon,
    session_id: Option<String>,
    phases: &[Phase],
    most: usize,
) -> Result<Vec<Execution>> {
    let mut found = Vec::new();
    let mut request = ListExecutionsRequest {
        session_id,
        phases: phases.iter().map(|&phase| phase.into()).collect(),
        ..ListExecutionsRequest::default()
    };
    loop {
        // No more than is wanted; 0 leaves the size of a page to the daemon.
        request.page_size = u32::try_from(most - found.len()).unwrap_or(0);
        let page = daemon
            .executions()
            .list(request.clone())
            .await?
            .into_inner();
        found.extend(page.executions);
        let over = page.next_page_token.is_empty() || page.next_page_token == request.page_token;
        if over || found.len() >= most {
            found.truncate(most);
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

pub(in crate::cli) async fn sessions(daemon: &Daemon) -> Result<Vec<Session>> {
    let mut found = Vec::new();
    let mut request = ListSessionsRequest::default();
    loop {
        let page = daemon.sessions().list(request.clone()).await?.into_inner();
        found.extend(page.sessions);
        if page.next_page_token.is_empty() || page.next_page_token == request.page_token {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [&str; 3] = [
        "exe-01K1AAAAAAAAAAAAAAAAAAAAX1",
        "exe-01K1AAAAAAAABBBBBBBBBBBBX2",
        "exe-01K2CCCCCCCCCCCCCCCCCCCCX3",
    ];

    #[test]
    fn a_part_is_enough_if_it_is_unique() {
        #[track_caller]
        fn check(name: &str, expected: Result<&str, &str>) {
            let found = EXECUTION.choose(name, IDS.into_iter());
            let found = found.map_err(|failure| failure.problems.join("\n"));
            assert_eq!(found, expected.map_err(str::to_owned));
        }
        check(IDS[0], Ok(IDS[0]));
        check("exe-01K2", Ok(IDS[2]));
        check("01k2", Ok(IDS[2]));
        check("bbx2", Ok(IDS[1]));
        check(
            "01K1",
            Err("'01K1' may be exe-01K1AAAAAAAAAAAAAAAAAAAAX1, exe-01K1AAAAAAAABBBBBBBBBBBBX2"),
        );
        check("X3", Err("there is no execution 'X3'"));
        check("exe-", Err("there is no execution 'exe-'"));
        check("", Err("there is no execution ''"));
        check("zzzz", Err("there is no execution 'zzzz'"));
    }

    #[test]
    fn a_whole_id_is_not_looked_up() {
        assert!(EXECUTION.is_whole(IDS[0]));
        assert!(!SESSION.is_whole(IDS[0]));
        assert!(!EXECUTION.is_whole("exe-01K1"));
    }
}
