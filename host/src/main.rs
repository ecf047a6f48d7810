//! The `stigmer` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all, before the environment is read or a thread exists: this is
    // where a process that is the filesystem backend's launcher hands over.
    #[cfg(feature = "filesystem")]
    if let Some(code) = stigmer_filesystem::run_if_asked() {
        return code;
    }
    stigmer::cli::main(std::env::args_os(), std::env::vars_os())
}
