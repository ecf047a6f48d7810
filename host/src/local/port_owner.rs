//! Who is in the way when a port is taken.

use std::path::Path;

/// The process that listens on this port of loopback or of every address, with
/// its command line. Of a process whose descriptors this user may not see, as
/// of another user's or of one that holds keys, the user. `None` if nobody
/// listens.
#[must_use]
pub fn of(port: u16) -> Option<String> {
    let listener = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .find_map(|table| listener(&table, port))?;
    let wanted = format!("socket:[{}]", listener.inode);
    let holds = |process: &Path| {
        std::fs::read_dir(process.join("fd")).is_ok_and(|descriptors| {
            descriptors.flatten().any(|descriptor| {
                std::fs::read_link(descriptor.path())
                    .is_ok_and(|target| target == Path::new(&wanted))
            })
        })
    };
    // Not `self`, which is a process too and says nothing.
    let is_process = |path: &Path| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.parse::<u32>().is_ok())
    };
    let process = std::fs::read_dir("/proc")
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| is_process(path) && holds(path));
    let Some(process) = process else {
        return Some(format!(
            "a process of the user with the id {}",
            listener.uid
        ));
    };
    let pid = process.file_name()?.to_str()?.to_owned();
    let command = std::fs::read(process.join("cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let command: String = command.trim().chars().take(120).collect();
    Some(format!("process {pid} ({})", command.escape_debug()))
}

/// A socket that listens.
#[derive(Debug, PartialEq, Eq)]
struct Listener {
    uid: u32,
    inode: u64,
}

/// The one on this port, in a table as `/proc/net/tcp` has it.
fn listener(table: &str, port: u16) -> Option<Listener> {
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, from, _, "0A", _, _, _, uid, _, inode, ..] = fields[..] else {
            return None;
        };
        let ours = from.ends_with(&suffix);
        ours.then(|| {
            Some(Listener {
                uid: uid.parse().ok()?,
                inode: inode.parse().ok()?,
            })
        })
        .flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_and_a_connection_is_not() {
        const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:C383 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 33001 1 0000000000000000 100 0 0 10 0
   1: 0100007F:D431 0100007F:C383 01 00000000:00000000 00:00000000 00000000  1001        0 33002 1 0000000000000000 20 4 30 10 -1
";
        let found = Listener {
            uid: 1000,
            inode: 33001,
        };
        assert_eq!(listener(TABLE, 0xC383), Some(found));
        assert_eq!(listener(TABLE, 0xD431), None);
    }

    #[test]
    fn the_owner_is_named_with_its_command() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let owner = of(port).unwrap();
        let this = format!("process {} (", std::process::id());
        assert!(owner.starts_with(&this), "{owner}");
        drop(held);
        assert_eq!(of(port), None);
    }
}
