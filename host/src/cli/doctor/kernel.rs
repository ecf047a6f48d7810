//! What commands run on: the kernel and what it lets this user do.

use std::fs;
use std::path::Path;

use rustix::fs::{Access, CWD, Mode, OFlags, ResolveFlags, access, openat2};
use rustix::process::{PidfdFlags, child_subreaper, getpid, pidfd_open};

use super::Check;

pub(super) fn checks() -> Vec<Check> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let version = version(&release);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    vec![
        kernel(&release, version),
        openat2_check(),
        pidfd(),
        subreaper(),
        user_namespaces(
            &read("/proc/sys/user/max_user_namespaces"),
            &read("/proc/sys/kernel/unprivileged_userns_clone"),
            &read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        ),
        landlock(
            fs::read_to_string("/sys/kernel/security/lsm")
                .ok()
                .as_deref(),
            version,
        ),
        seccomp(&read("/proc/sys/kernel/seccomp/actions_avail")),
        cgroups(&read("/proc/self/cgroup")),
        proc_check(&read("/proc/self/mountinfo")),
        shell(),
    ]
}

/// Major and minor of a release such as `6.12.4-arch1`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

const KERNEL: &str = "run a kernel of 5.6 or later; inside a container it is the host's";

fn kernel(release: &str, version: Option<(u32, u32)>) -> Check {
    match version {
        Some(version) if version >= (5, 6) => Check::ok("kernel", release),
        Some(_) => Check::fail("kernel", format!("{release} is too old"), KERNEL),
        None => Check::warn(
            "kernel",
            format!("'{release}' is no version I know"),
            KERNEL,
        ),
    }
}

fn openat2_check() -> Check {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat2(CWD, ".", flags, Mode::empty(), ResolveFlags::BENEATH) {
        Ok(_) => Check::ok("openat2", "paths are resolved beneath the workspace"),
        Err(error) => Check::fail(
            "openat2",
            format!("not available: {error}"),
            "a seccomp profile or an old kernel refuses it; allow openat2",
        ),
    }
}

fn pidfd() -> Check {
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Ok(_) => Check::ok("pidfd", "processes are signalled without a race"),
        Err(error) => Check::fail(
            "pidfd",
            format!("not available: {error}"),
            "a seccomp profile or an old kernel refuses it; allow pidfd_open",
        ),
    }
}

fn subreaper() -> Check {
    match child_subreaper() {
        Ok(_) => Check::ok(
            "subreaper",
            "every descendant of a command is found and killed",
        ),
        Err(error) => Check::fail(
            "subreaper",
            format!("not available: {error}"),
            "allow prctl(PR_SET_CHILD_SUBREAPER)",
        ),
    }
}

fn user_namespaces(max: &str, debian: &str, apparmor: &str) -> Check {
    const NAME: &str = "user namespaces";
    let reason = if max.trim() == "0" {
        ("switched off", "sysctl user.max_user_namespaces=15000")
    } else if debian.trim() == "0" {
        (
            "switched off for users",
            "sysctl kernel.unprivileged_userns_clone=1",
        )
    } else if apparmor.trim() == "1" {
        (
            "restricted by AppArmor",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        )
    } else if max.trim().is_empty() {
        ("not in this kernel", "run a kernel with CONFIG_USER_NS")
    } else {
        return Check::ok(NAME, "available");
    };
    Check::warn(
        NAME,
        reason.0,
        format!("{} (isolation will need them)", reason.1),
    )
}

/// The ABI is told from the kernel's version: each came with one.
fn landlock(lsm: Option<&str>, version: Option<(u32, u32)>) -> Check {
    const NAME: &str = "Landlock";
    const ABIS: [((u32, u32), u32); 6] = [
        ((6, 12), 6),
        ((6, 10), 5),
        ((6, 7), 4),
        ((6, 2), 3),
        ((5, 19), 2),
        ((5, 13), 1),
    ];
    let abi = version.and_then(|version| ABIS.iter().find(|(since, _)| version >= *since));
    match (lsm, abi) {
        (Some(lsm), Some((_, abi))) if lsm.trim().split(',').any(|module| module == "landlock") => {
            Check::ok(NAME, format!("ABI {abi} or later"))
        }
        (Some(_), Some(_)) => Check::warn(
            NAME,
            "in the kernel, but not switched on",
            "boot with lsm=landlock,…",
        ),
        (None, Some((_, abi))) => Check::warn(
            NAME,
            format!("ABI {abi} or later if it is switched on, which cannot be seen"),
            "mount securityfs on /sys/kernel/security to see it",
        ),
        (_, None) => Check::warn(
            NAME,
            "not in this kernel",
            "run a kernel of 5.13 or later (isolation will need it)",
        ),
    }
}

fn seccomp(actions: &str) -> Check {
    if actions.contains("errno") {
        Check::ok("seccomp", "filters are available")
    } else {
        Check::warn(
            "seccomp",
            "filters are not available",
            "run a kernel with CONFIG_SECCOMP_FILTER (isolation will need it)",
        )
    }
}

fn cgroups(own: &str) -> Check {
    const NAME: &str = "cgroup v2";
    let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::")) else {
        return Check::warn(
            NAME,
            "not mounted",
            "boot with systemd.unified_cgroup_hierarchy=1 to limit whole sandboxes",
        );
    };
    let dir = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
    match access(&dir, Access::WRITE_OK) {
        Ok(()) => Check::ok(NAME, format!("delegated at {}", dir.display())),
        Err(_) => Check::warn(
            NAME,
            "mounted, but not delegated to this user",
            "run under: systemd-run --user --scope -p Delegate=yes stigmer … (limits of whole sandboxes will need it)",
        ),
    }
}

fn proc_check(mountinfo: &str) -> Check {
    let hides = mountinfo
        .lines()
        .filter(|line| line.split(' ').nth(4) == Some("/proc"))
        .any(|line| {
            line.split([' ', ',']).any(|option| {
                option.starts_with("hidepid=") && !matches!(option, "hidepid=0" | "hidepid=off")
            })
        });
    if !Path::new("/proc/self/stat").exists() {
        Check::fail("/proc", "not mounted", "mount -t proc proc /proc")
    } else if hides {
        Check::ok("/proc", "mounted; other users' processes are hidden")
    } else {
        Check::ok(
            "/proc",
            "mounted; commands see other processes, and those of this user in full",
        )
    }
}

fn shell() -> Check {
    match access("/bin/sh", Access::EXEC_OK) {
        Ok(()) => Check::ok("shell", "/bin/sh"),
        Err(error) => Check::fail(
            "shell",
            format!("/bin/sh: {error}"),
            "install a POSIX shell as /bin/sh",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn releases_have_versions() {
        #[track_caller]
        fn check(release: &str, expected: Option<(u32, u32)>) {
            assert_eq!(version(release), expected);
        }
        check("6.12.4-arch1-1", Some((6, 12)));
        check("5.6-rc1", Some((5, 6)));
        check("5", None);
        check("unknown", None);
    }

    #[test]
    fn what_is_switched_off_comes_with_its_switch() {
        #[track_caller]
        fn check(max: &str, debian: &str, apparmor: &str, remedy: &str) {
            let check = user_namespaces(max, debian, apparmor);
            assert_eq!(
                check.status,
                if remedy.is_empty() {
                    Status::Ok
                } else {
                    Status::Warn
                }
            );
            assert!(check.remedy.unwrap_or_default().contains(remedy));
        }
        check("15000\n", "1\n", "0\n", "");
        check("15000\n", "", "", "");
        check("0\n", "", "", "user.max_user_namespaces");
        check("15000\n", "0\n", "", "unprivileged_userns_clone");
        check("15000\n", "", "1\n", "apparmor_restrict");
        check("", "", "", "CONFIG_USER_NS");
    }

    #[test]
    fn landlock_needs_kernel_and_switch() {
        #[track_caller]
        fn check(lsm: Option<&str>, version: (u32, u32), status: Status, found: &str) {
            let check = landlock(lsm, Some(version));
            assert_eq!((check.status, check.found.as_str()), (status, found));
        }
        check(
            Some("capability,landlock,yama\n"),
            (6, 8),
            Status::Ok,
            "ABI 4 or later",
        );
        check(
            Some("capability,yama"),
            (6, 8),
            Status::Warn,
            "in the kernel, but not switched on",
        );
        check(
            None,
            (6, 8),
            Status::Warn,
            "ABI 4 or later if it is switched on, which cannot be seen",
        );
        check(
            Some("landlock"),
            (5, 10),
            Status::Warn,
            "not in this kernel",
        );
    }

    #[test]
    fn an_old_kernel_fails() {
        assert_eq!(kernel("5.4.0", Some((5, 4))).status, Status::Fail);
        assert_eq!(kernel("5.6.0", Some((5, 6))).status, Status::Ok);
    }
}
