//! A daemon that is killed at a random moment, again and again: no process
//! survives it, no litter stays, and it finds all of its sandboxes again.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use stigmer_tests::{Home, eventually, note};

/// Random enough: xorshift (Marsaglia 2003).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long to go on is said from outside"
)]
pub(crate) fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

/// One that no run had before.
pub(crate) fn seed() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    u64::from(now.subsec_nanos()) | 1
}

/// Leaves its parent in two ways, and then stays.
const ESCAPE: &str =
    "(setsid sh -c 'echo $$ >escaped; exec sleep 5432' &) ; setsid -f sleep 5432; sleep 5432";

#[test]
fn nothing_survives_a_daemon_that_is_killed() {
    let repeat = setting("STIGMER_TEST_REPEAT").unwrap_or(50);
    let seed = setting("STIGMER_TEST_SEED").unwrap_or_else(seed);
    note(&format!(
        "STIGMER_TEST_SEED={seed} STIGMER_TEST_REPEAT={repeat}"
    ));
    let mut random = Random(seed);
    let home = Home::new();
    let mut daemon = home.daemon();
    home.stigmer(["sandbox", "create", "box"]).ok();
    home.stigmer(["sandbox", "write", "box", "kept"])
        .stdin("kept")
        .ok();
    for round in 0..repeat {
        let clients = [
            home.stigmer(["sandbox", "exec", "box", "--", ESCAPE])
                .start(),
            home.stigmer(["sandbox", "exec", "-d", "box", "--", ESCAPE])
                .start(),
            home.stigmer(["sandbox", "create"]).start(),
        ];
        // The moment is the point here: it is anywhere between before the first
        // request and long after the last.
        std::thread::sleep(Duration::from_micros(random.below(150_000)));
        daemon.signal(Signal::KILL);
        drop(daemon);
        for client in clients {
            // Some got their answer, the others an error; none hangs.
            let _either = client.wait();
        }
        daemon = home.daemon();
        let pid = daemon.pid();
        eventually(
            &format!("round {round}: no process survives"),
            Duration::from_secs(10),
            || home.processes().iter().all(|process| process.pid == pid),
        );

        // The registry is intact, and knows everything that is on the disk.
        let ids: BTreeSet<String> = home
            .stigmer(["sandbox", "list", "--ids"])
            .ok()
            .lines()
            .map(str::to_owned)
            .collect();
        let known: BTreeSet<&str> = ids
            .iter()
            .map(|id| id.strip_prefix("filesystem:").expect("of this backend"))
            .collect();
        let entries = home.data_entries();
        let on_disk: BTreeSet<&str> = entries
            .iter()
            .filter_map(|entry| entry.strip_prefix("filesystem/"))
            .filter(|entry| !entry.contains('/'))
            .collect();
        assert_eq!(on_disk, known, "round {round}");
        let litter: Vec<_> = entries.iter().filter(|entry| !expected(entry)).collect();
        assert!(litter.is_empty(), "round {round}: {litter:?}");
        let kept = home
            .stigmer([
                "sandbox",
                "exec",
                "box",
                "--",
                "cat kept; rm -f escaped; ls",
            ])
            .run();
        assert_eq!(kept.text(), "keptkept\n", "round {round}: {kept}");

        // What was created on the way is good for something, and goes.
        for id in ids {
            if home
                .stigmer(["sandbox", "info", "box", "--json"])
                .ok()
                .contains(&id)
            {
                continue;
            }
            home.stigmer(["sandbox", "exec", &id, "--", "true"]).ok();
            home.stigmer(["sandbox", "destroy", &id]).ok();
        }
    }
    daemon.stop();
}

/// Whether something may be in the data directory of a daemon that runs.
fn expected(entry: &str) -> bool {
    let mut names = entry.split('/');
    match (names.next(), names.next(), names.next()) {
        (Some(name), None, None) => {
            ["daemon.pid", "filesystem", "stigmer.lock", "stigmer.sock"].contains(&name)
                || name.starts_with("stigmer.db")
                || name.starts_with("agents.db")
        }
        (Some("filesystem"), Some(_), None | Some("sandbox.json" | "workspace")) => true,
        _ => false,
    }
}
