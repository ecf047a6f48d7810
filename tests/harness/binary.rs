//! The program under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The variable that names a program to test instead of the one built here.
const OVERRIDE: &str = "STIGMER_TEST_PROGRAM";

/// The path of `stigmer`, built if need be.
///
/// Cargo tells a test where the programs of its own package are, and builds
/// them for it; of another package it does neither, short of unstable artifact
/// dependencies. So the program is looked for where it must be, next to this
/// test's own directory, and Cargo is asked to make sure that it is there and
/// up to date: it takes a moment if it is, and has a lock of its own if two
/// tests ask at once. `--workspace` makes the features of shared dependencies
/// the same as in the build of the tests, so that nothing is compiled twice.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn path() -> &'static Path {
    static PATH: LazyLock<PathBuf> = LazyLock::new(locate);
    &PATH
}

#[expect(
    clippy::disallowed_methods,
    reason = "the harness is not the host: it reads its own environment and starts the host"
)]
fn locate() -> PathBuf {
    if let Some(program) = std::env::var_os(OVERRIDE) {
        return std::path::absolute(program).expect("a path");
    }
    // <target>/<profile>/deps/e2e-<hash>
    let this = std::env::current_exe().expect("the path of this test");
    let mut above = this.ancestors().skip(2);
    let profile = above.next().expect("the directory of the profile");
    let target = above.next().expect("the target directory");
    let name = match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => panic!("{} is no target directory", profile.display()),
    };
    let output = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--workspace",
            "--bin",
            "stigmer",
            "--offline",
        ])
        .args(["--profile", name, "--target-dir"])
        .arg(target)
        .current_dir(repository())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cannot build stigmer: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    profile.join("stigmer")
}

/// The directory of this repository.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are in a workspace")
}
