//! What a process does before it holds a key.

use stigmer_sdk::{Error, Result};

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Keeps the memory of this process from everybody but itself: no core dump,
/// no debugger, and no `/proc` of it for other processes of the same user.
///
/// # Errors
/// If the kernel refuses, which it has no reason to.
pub fn keep_private() -> Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|error| Error::internal("cannot keep the memory of this process private", error))
}
