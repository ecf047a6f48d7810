//! The rules of the house: who may import whom, and where heavy or dangerous
//! things may be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use stigmer_tests::binary;

/// The dependencies of each package of ours on others of ours, and on all.
fn packages() -> BTreeMap<String, BTreeSet<String>> {
    #[expect(
        clippy::disallowed_methods,
        reason = "Cargo says what Cargo.toml means"
    )]
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(binary::repository())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            let names = dependencies
                .iter()
                .map(|dependency| text(&dependency["name"]))
                .collect();
            (text(&package["name"]), names)
        })
        .collect()
}

const TESTS: &str = "stigmer-tests";

#[test]
fn imports_go_one_way() {
    let packages = packages();
    let ours: BTreeSet<&str> = packages.keys().map(String::as_str).collect();
    let plugins: BTreeSet<&str> = ["stigmer-filesystem"].into();
    for (package, dependencies) in &packages {
        let allowed: BTreeSet<&str> = match package.as_str() {
            "stigmer-sdk" => BTreeSet::new(),
            plugin if plugins.contains(plugin) => ["stigmer-sdk"].into(),
            "stigmer-agent" => ["stigmer-sdk"].into(),
            "stigmer" => plugins
                .union(&["stigmer-agent", "stigmer-sdk"].into())
                .copied()
                .collect(),
            TESTS => ours.clone(),
            other => panic!("{other} is not in this table: what may it import?"),
        };
        let imported: BTreeSet<&str> = dependencies
            .iter()
            .map(String::as_str)
            .filter(|name| ours.contains(name))
            .collect();
        assert!(
            imported.is_subset(&allowed),
            "{package} imports {imported:?} and may import {allowed:?}"
        );
    }
    assert!(ours.contains("stigmer") && ours.contains("stigmer-sdk"));
}

#[test]
fn the_contract_does_no_io_and_names_no_runtime() {
    // Those of the suite are optional, and only the suite uses them.
    let allowed = [
        "async-trait",
        "bytes",
        "futures-core",
        "thiserror",
        "prost",
        "prost-build",
        "protox",
        "globset",
        "grep-matcher",
        "grep-regex",
        "grep-searcher",
        "ignore",
        "futures-util",
        "tokio",
        "tempfile",
    ];
    let packages = packages();
    let found = &packages["stigmer-sdk"];
    let unexpected: Vec<_> = found
        .iter()
        .filter(|name| !allowed.contains(&name.as_str()))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
}

/// Every Rust file of the repository, as paths below it, with its text.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if name != "target" && !name.to_string_lossy().starts_with('.') {
                    walk(&path, found);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(binary::repository(), &mut found);
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("UTF-8");
            let below = path.strip_prefix(binary::repository()).expect("below");
            (below.display().to_string(), text)
        })
        .collect()
}

/// The lines of a source that are no comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
}

/// Something has an address: only files under these paths hold the word.
#[track_caller]
fn only_in(what: &str, is_there: impl Fn(&str) -> bool, addresses: &[&str]) {
    let this = file!().rsplit('/').next().expect("a name");
    let mut seen = BTreeSet::new();
    for (path, text) in sources() {
        if path.ends_with(this) || !code(&text).any(&is_there) {
            continue;
        }
        let address = addresses.iter().find(|address| path.starts_with(**address));
        seen.insert(*address.unwrap_or_else(|| panic!("{what} has no business in {path}")));
    }
    assert_eq!(
        seen.len(),
        addresses.len(),
        "{what}: some of {addresses:?} hold none: {seen:?}"
    );
}

#[test]
fn heavy_and_dangerous_things_have_an_address() {
    let unsafe_code = |line: &str| {
        ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
            .iter()
            .any(|word| line.contains(word))
    };
    only_in(
        "unsafe code",
        unsafe_code,
        &["plugins/filesystem/src/launcher/sys.rs"],
    );
    only_in(
        "tonic",
        |line| line.contains("tonic::") || line.contains("tonic_"),
        &[
            "agent/build.rs",
            "agent/src/",
            "host/src/grpc/",
            "host/src/cli/",
            "host/src/server",
            "host/build.rs",
            "tests/e2e/",
        ],
    );
    only_in(
        "rusqlite",
        |line| line.contains("rusqlite"),
        &[
            "host/src/agents/",
            "host/src/sandboxes/",
            "host/src/sqlite.rs",
        ],
    );
    only_in("clap", |line| line.contains("clap::"), &["host/src/cli/"]);
}
