//! Why a runner cannot go on.

use std::fmt;

use stigmer_sdk::Error;

/// Why a runner ended without being asked to.
#[derive(Clone, Debug)]
pub enum RunnerError {
    /// No connection can be made to something of this form.
    Endpoint {
        /// As it was configured.
        endpoint: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The key cannot stand in a header.
    Key,
    /// Nothing answered there for as long as a runner waits.
    Unreachable {
        /// As it was configured.
        endpoint: String,
        /// The last attempt.
        source: Error,
    },
    /// The daemon answered that it does not want this runner.
    Refused {
        /// As it was configured.
        endpoint: String,
        /// Its words.
        source: Error,
    },
}

impl fmt::Display for RunnerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint { endpoint, problem } => {
                write!(f, "cannot use the endpoint '{endpoint}': {problem}")
            }
            Self::Key => f.write_str("STIGMER_API_KEY has a character that no header can carry"),
            Self::Unreachable { endpoint, .. } => {
                write!(
                    f,
                    "the Stigmer daemon at {endpoint} does not answer; is it running?"
                )
            }
            Self::Refused { endpoint, .. } => {
                write!(f, "the Stigmer daemon at {endpoint} refused this runner")
            }
        }
    }
}

impl std::error::Error for RunnerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Endpoint { .. } | Self::Key => None,
            Self::Unreachable { source, .. } | Self::Refused { source, .. } => Some(source),
        }
    }
}
