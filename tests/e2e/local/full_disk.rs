//! A data directory without room: what cannot be recorded is refused, and
//! nothing that runs is lost for it.

use std::time::Duration;

use stigmer_tests::{Cli, Home, binary, skip};

/// All in a mount namespace of its own, so that the small disk goes with it.
const STORY: &str = r#"
mkdir -p "$STIGMER_DATA_DIR" && mount -t tmpfs -o size=300k none "$STIGMER_DATA_DIR" || exit 77
stigmer() { "$STIGMER" --quiet "$@" </dev/null; echo "$1 $2: exit $?"; }
stigmer local start
dd if=/dev/zero of="$STIGMER_DATA_DIR/fill" bs=1k count=400 2>/dev/null
stigmer run hello 2>&1
stigmer local status >"$HOME/status"
rm "$STIGMER_DATA_DIR/fill"
stigmer session list
stigmer local stop
"#;

#[test]
fn a_full_disk_refuses_work_and_ends_nothing() {
    let home = Home::new();
    if !rustix::process::geteuid().is_root() {
        skip("a full disk", "a small one of its own takes root");
        return;
    }
    let mut command = home.command("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", STORY])
        .env("STIGMER", binary::path())
        .env("STIGMER_PORT", "0")
        .env("STIGMER_LLM_PROVIDER", "ollama");
    let output = Cli::new(command).deadline(Duration::from_secs(120)).run();
    if output.code() == 77 || output.complaint().contains("unshare") {
        skip("a full disk", "none can be mounted here");
        return;
    }
    let told = output.text();
    for part in [
        "local start: exit 0",
        "the disk is full",
        "run hello: exit 1",
        "session list: exit 0",
        "local stop: exit 0",
    ] {
        assert!(told.contains(part), "no {part:?} in {output}");
    }
    let status = std::fs::read_to_string(home.path("home/status")).expect("a status");
    assert!(status.contains("local status: exit 0"), "{status}");
}
