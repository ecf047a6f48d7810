//! Who may call.
//!
//! In local mode the key is a constant that everybody knows, so the kernel's
//! word on who is at the other end decides: this user and nobody else. Root is
//! somebody else. It could become this user, and then it may call; to do so by
//! accident, through a `sudo` too many, would leave root's files in a user's
//! workspace.
//!
//! In cloud mode the key is a secret, and every call carries it. Health and
//! reflection need no key in local mode, where they tell this user nothing.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use stigmer_sdk::{Error, ErrorCode, Result};

use super::peer::Peer;
use crate::config::{Mode, Secret};

/// Services that say only whether the daemon is there, and what it speaks.
const OPEN_SERVICES: [&str; 3] = [
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];

/// The rules of one daemon.
#[derive(Debug)]
pub(super) struct Auth {
    mode: Mode,
    uid: u32,
    key: Secret,
}

impl Auth {
    pub(super) fn new(mode: Mode, key: Secret) -> Self {
        Self {
            mode,
            uid: rustix::process::getuid().as_raw(),
            key,
        }
    }

    /// Lets a call pass, or says why not and what to do.
    pub(super) fn check(&self, path: &str, peer: Option<Peer>, headers: &HeaderMap) -> Result<()> {
        let needs_key = match self.mode {
            Mode::Local => {
                self.check_peer(peer)?;
                !OPEN_SERVICES
                    .iter()
                    .any(|service| path.starts_with(service))
            }
            Mode::Cloud => true,
        };
        if needs_key {
            self.check_key(headers)
        } else {
            Ok(())
        }
    }

    fn check_peer(&self, peer: Option<Peer>) -> Result<()> {
        let ours = self.uid;
        match peer.and_then(|peer| peer.uid) {
            Some(uid) if uid == ours => Ok(()),
            Some(uid) => Err(Error::new(
                ErrorCode::PermissionDenied,
                format!(
                    "in local mode this daemon serves the user with id {ours} only, and this call came from {uid}; \
                     call as that user, or start a daemon of your own"
                ),
            )),
            None => Err(Error::new(
                ErrorCode::PermissionDenied,
                format!(
                    "in local mode this daemon serves the user with id {ours} only, and who is calling cannot be told; \
                     call through the Unix socket in its data directory"
                ),
            )),
        }
    }

    fn check_key(&self, headers: &HeaderMap) -> Result<()> {
        let given = headers.get(AUTHORIZATION).map(http::HeaderValue::as_bytes);
        let wrong = match given.map(|value| value.split_at_checked("Bearer ".len())) {
            None => "the call has no key",
            Some(Some((scheme, key)))
                if scheme.eq_ignore_ascii_case(b"Bearer ")
                    && same(key, self.key.expose().as_bytes()) =>
            {
                return Ok(());
            }
            Some(_) => "the call's key is not this daemon's",
        };
        let which = match self.mode {
            Mode::Local => {
                "STIGMER_API_KEY as the daemon has it, which is dummy-local-key unless it is set"
            }
            Mode::Cloud => "STIGMER_API_KEY as the daemon has it",
        };
        Err(Error::new(
            ErrorCode::Unauthenticated,
            format!("{wrong}; send the header `authorization: Bearer KEY` with {which}"),
        ))
    }
}

/// Compares in a time that tells only the length.
fn same(given: &[u8], wanted: &[u8]) -> bool {
    if given.len() != wanted.len() {
        return false;
    }
    let difference = given.iter().zip(wanted).fold(0, |difference, (a, b)| {
        std::hint::black_box(difference | (a ^ b))
    });
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: u32 = 1000;
    const HEALTH: &str = "/grpc.health.v1.Health/Check";
    const EXEC: &str = "/stigmer.host.v1.Commands/Exec";

    #[test]
    fn the_rules_of_both_modes() {
        #[track_caller]
        fn check(
            mode: Mode,
            path: &str,
            uid: Option<u32>,
            header: Option<&str>,
            refused: Option<ErrorCode>,
        ) {
            let auth = Auth {
                mode,
                uid: OURS,
                key: Secret::new("the-key"),
            };
            let mut headers = HeaderMap::new();
            if let Some(value) = header {
                headers.insert(AUTHORIZATION, value.parse().unwrap());
            }
            let outcome = auth.check(path, Some(Peer { uid }), &headers);
            assert_eq!(
                outcome.as_ref().err().map(Error::code),
                refused,
                "{outcome:?}"
            );
            if let Err(error) = outcome {
                assert!(!error.message().contains("the-key"), "{error}");
            }
        }
        let (key, denied, unknown) = (
            Some("Bearer the-key"),
            Some(ErrorCode::PermissionDenied),
            Some(ErrorCode::Unauthenticated),
        );
        check(Mode::Local, EXEC, Some(OURS), key, None);
        check(Mode::Local, EXEC, Some(OURS), Some("bearer the-key"), None);
        check(Mode::Local, EXEC, Some(OURS), None, unknown);
        check(
            Mode::Local,
            EXEC,
            Some(OURS),
            Some("Bearer the-kez"),
            unknown,
        );
        check(
            Mode::Local,
            EXEC,
            Some(OURS),
            Some("Bearer the-key2"),
            unknown,
        );
        check(
            Mode::Local,
            EXEC,
            Some(OURS),
            Some("Basic the-key"),
            unknown,
        );
        check(Mode::Local, EXEC, Some(OURS), Some(""), unknown);
        check(Mode::Local, EXEC, Some(1001), key, denied);
        check(Mode::Local, EXEC, Some(0), key, denied);
        check(Mode::Local, EXEC, None, key, denied);
        check(Mode::Local, HEALTH, Some(OURS), None, None);
        check(Mode::Local, HEALTH, Some(0), None, denied);
        check(
            Mode::Local,
            "/grpc.health.v1.HealthX/Check",
            Some(OURS),
            None,
            unknown,
        );
        check(Mode::Cloud, EXEC, None, key, None);
        check(Mode::Cloud, EXEC, Some(OURS), None, unknown);
        check(Mode::Cloud, HEALTH, Some(OURS), None, unknown);
        check(Mode::Cloud, HEALTH, None, key, None);
    }
}
