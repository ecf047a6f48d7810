//! Real projects in one sandbox, through the command line: what a person or
//! an agent would do in a day.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stigmer_tests::{Cli, Home, Output, binary, eventually, skip, tree};

/// A sandbox called `day`, and what is run in it.
struct Day<'a> {
    home: &'a Home,
}

impl Day<'_> {
    fn exec(&self, script: &str) -> Cli {
        self.home
            .stigmer(["sandbox", "exec", "day"])
            .args(variables())
            .args(["--", script])
            .deadline(Duration::from_secs(180))
    }

    #[track_caller]
    fn ok(&self, script: &str) -> String {
        self.exec(script).ok()
    }

    fn has(&self, program: &str) -> bool {
        let found = self
            .exec(&format!(
                "command -v {program} >/dev/null && {program} --version"
            ))
            .run();
        if found.code() != 0 {
            skip(program, &found.complaint());
        }
        found.code() == 0
    }

    fn write(&self, path: &str, content: &str) {
        self.home
            .stigmer(["sandbox", "write", "day", path])
            .stdin(content)
            .ok();
    }
}

/// `-e NAME` for what toolchain managers need of an environment whose `HOME`
/// is elsewhere.
#[expect(
    clippy::disallowed_methods,
    reason = "the toolchain is where this test's own environment says"
)]
fn variables() -> Vec<String> {
    let own_home = std::env::var("HOME").unwrap_or_default();
    let below = |name: &str| PathBuf::from(&own_home).join(name).display().to_string();
    [
        ("RUSTUP_HOME", below(".rustup")),
        ("CARGO_HOME", below(".cargo")),
        ("RUSTUP_TOOLCHAIN", String::new()),
        ("PYENV_ROOT", below(".pyenv")),
    ]
    .into_iter()
    .filter_map(|(name, default)| {
        let value = std::env::var(name).unwrap_or(default);
        (!value.is_empty()).then(|| ["-e".to_owned(), format!("{name}={value}")])
    })
    .flatten()
    .chain(
        [
            "-e",
            "CARGO_NET_OFFLINE=true",
            "-e",
            "GIT_CONFIG_NOSYSTEM=1",
        ]
        .map(str::to_owned),
    )
    .collect()
}

#[test]
fn a_day_of_work() {
    let home = Home::new();
    let daemon = home.daemon();
    home.stigmer(["sandbox", "create", "day"]).ok();
    let day = Day { home: &home };
    a_cargo_project(&day);
    a_git_repository(&day);
    a_python_project(&day);
    a_server(&day);

    let info = crate::sandboxes::json(&home, &["sandbox", "info", "day", "--json"]);
    let workspace = PathBuf::from(info["workspace"].as_str().unwrap());
    assert!(workspace.exists());
    home.stigmer(["sandbox", "destroy", "day"]).ok();
    assert!(!workspace.exists());
    let left: Vec<_> = home
        .processes()
        .into_iter()
        .filter(|process| process.pid != daemon.pid())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    daemon.stop();
}

fn a_cargo_project(day: &Day<'_>) {
    if !day.has("cargo") {
        return;
    }
    day.ok("cargo new --vcs none --lib sums && cd sums && mkdir tests");
    day.write(
        "sums/src/lib.rs",
        "pub fn sum(of: &[i64]) -> i64 {\n    of.iter().sum()\n}\n",
    );
    day.write(
        "sums/tests/sums.rs",
        "#[test]\nfn adds() {\n    assert_eq!(sums::sum(&[1, 2, 39]), 42);\n}\n",
    );
    let passed = day.exec("cd sums && cargo test 2>&1").ok();
    assert!(passed.contains("test adds ... ok"), "{passed}");
    let edited = [
        "sandbox",
        "edit",
        "day",
        "sums/src/lib.rs",
        "--old",
        "of.iter().sum()",
        "--new",
        "of.iter().product()",
    ];
    day.home.stigmer(edited).ok();
    let failed: Output = day.exec("cd sums && cargo test 2>&1").run();
    assert_eq!(failed.code(), 101, "{failed}");
    assert!(failed.text().contains("test result: FAILED"), "{failed}");
}

fn a_git_repository(day: &Day<'_>) {
    if !day.has("git") {
        return;
    }
    let script = r#"
        set -e
        mkdir repository && cd repository
        git init -q -b main .
        git config user.name Tester && git config user.email tester@example.org
        echo one >file && git add file && git commit -q -m first
        git checkout -q -b side && echo side >side && git add side && git commit -q -m side
        git checkout -q main && echo two >>file && git commit -q -a -m second
        git merge -q -m merged side
        git log --format=%s | sort | tr '\n' ' '
        git status --porcelain
        cat file side
    "#;
    assert_eq!(day.ok(script), "first merged second side one\ntwo\nside\n");
    let conflict = r#"
        set -e
        cd repository
        git checkout -q -b left && echo left >file && git commit -q -a -m left
        git checkout -q -b right main && echo right >file && git commit -q -a -m right
        git merge left
    "#;
    assert_eq!(
        day.exec(conflict).run().code(),
        1,
        "a conflict is the command's own failure"
    );
    let marked = day
        .home
        .stigmer(["sandbox", "grep", "day", "<<<<<<<", "repository/file"])
        .ok();
    assert!(
        marked.contains("repository/file:1:<<<<<<< HEAD"),
        "{marked}"
    );
}

fn a_python_project(day: &Day<'_>) {
    if !day.has("python3") {
        return;
    }
    let made = day
        .exec("mkdir -p snakes && cd snakes && python3 -m venv --without-pip venv")
        .run();
    if made.code() != 0 {
        skip("a virtual environment", &made.complaint());
        return;
    }
    day.write("snakes/snakes.py", "def double(x):\n    return 2 * x\n");
    day.write(
        "snakes/test_snakes.py",
        "import sys, unittest\nfrom snakes import double\n\nclass Doubles(unittest.TestCase):\n    def test_number(self):\n        self.assertEqual(double(21), 42)\n\n    def test_venv(self):\n        self.assertNotEqual(sys.prefix, sys.base_prefix)\n\nunittest.main()\n",
    );
    let output = day
        .exec("cd snakes && venv/bin/python test_snakes.py")
        .run();
    assert_eq!(output.code(), 0, "{output}");
    assert!(output.complaint().contains("Ran 2 tests"), "{output}");
}

fn a_server(day: &Day<'_>) {
    if !day.has("python3") {
        return;
    }
    day.write("site/index.html", "<h1>served</h1>\n");
    day.write(
        "serve.py",
        "import functools, http.server, os\nhandler = functools.partial(http.server.SimpleHTTPRequestHandler, directory='site')\nserver = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)\nopen('port.new', 'w').write(str(server.server_port))\nos.rename('port.new', 'port')\nserver.serve_forever()\n",
    );
    let server = day
        .home
        .stigmer(["sandbox", "exec", "-d", "day"])
        .args(variables())
        .args(["--", "python3", "serve.py"])
        .ok();
    eventually("the server listens", Duration::from_secs(30), || {
        day.home
            .stigmer(["sandbox", "cat", "day", "port"])
            .run()
            .status()
            .success()
    });
    let fetch = "python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:' + open('port').read()).read().decode(), end='')\"";
    assert_eq!(day.ok(fetch), "<h1>served</h1>\n");
    let listed = day.home.stigmer(["sandbox", "ps", "day"]).ok();
    assert!(
        listed.contains(server.trim_end()) && listed.contains("running"),
        "{listed}"
    );
}

#[test]
fn this_repository_is_copied_in_and_out() {
    let home = Home::new();
    let daemon = home.daemon();
    home.stigmer(["sandbox", "create", "box"]).ok();
    let source = binary::repository().join("host");
    let copied = home
        .stigmer(["sandbox", "cp"])
        .arg(&source)
        .arg("box:")
        .run();
    assert_eq!(copied.code(), 0, "{copied}");
    home.stigmer(["sandbox", "cp", "box:host", "copy"]).ok();
    tree::assert_same(&source, &home.path("copy"));
    assert!(count(&home.path("copy")) > 30);
    daemon.stop();
}

fn count(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).expect("a directory").flatten();
    entries
        .map(|entry| {
            if entry.path().is_dir() {
                count(&entry.path())
            } else {
                1
            }
        })
        .sum()
}
