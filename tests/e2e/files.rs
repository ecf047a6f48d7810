//! `stigmer sandbox`: files.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::Value;
use stigmer_tests::{Daemon, Home, tree};

use crate::sandboxes::json;

/// A daemon with a sandbox called `box`.
fn with_box(home: &Home) -> Daemon {
    let daemon = home.daemon();
    home.stigmer(["sandbox", "create", "box"]).ok();
    daemon
}

#[test]
fn files_are_written_read_listed_and_removed() {
    let home = Home::new();
    let daemon = with_box(&home);
    let run = |args: &[&str]| home.stigmer([&["sandbox"], args].concat());
    let content: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    run(&["write", "box", "a/deep/file"])
        .stdin(content.clone())
        .ok();
    assert!(
        run(&["cat", "box", "a/deep/file"]).run().stdout == content,
        "byte for byte"
    );
    let part = run(&[
        "cat",
        "box",
        "a/deep/file",
        "--offset",
        "65",
        "--length",
        "3",
    ])
    .ok();
    assert_eq!(part, "ABC");
    run(&["write", "box", "log", "--append"])
        .stdin("one\n")
        .ok();
    run(&["write", "box", "log", "--append"])
        .stdin("two\n")
        .ok();
    assert_eq!(run(&["cat", "box", "log"]).ok(), "one\ntwo\n");
    run(&["write", "box", "log", "--create-new"])
        .stdin("x")
        .run()
        .fails(1, "'log': already exists");

    let from = home.write("run.sh", "#!/bin/sh\necho ran\n");
    run(&["write", "box", "run.sh", "--permissions", "0755", "--from"])
        .arg(&from)
        .ok();
    assert_eq!(run(&["exec", "box", "--", "./run.sh", ";"]).ok(), "ran\n");
    run(&["write", "box", "run.sh"])
        .stdin("#!/bin/sh\necho again\n")
        .ok();
    assert_eq!(
        run(&["exec", "box", "--", "./run.sh", ";"]).ok(),
        "again\n",
        "its mode is kept"
    );

    run(&["mkdir", "box", "new/dir", "new/other"]).ok();
    assert_eq!(run(&["ls", "box", "new"]).ok(), "dir\nother\n");
    let long = run(&["ls", "box", "-l"]).ok();
    assert!(long.contains("-rwxr-xr-x"), "{long}");
    let listed = json(&home, &["sandbox", "ls", "box", "log", "--json"]);
    assert_eq!(
        (&listed[0]["kind"], &listed[0]["size"]),
        (&"file".into(), &8.into())
    );

    let version = listed[0]["version"].as_str().unwrap().to_owned();
    run(&["write", "box", "log"]).stdin("changed").ok();
    run(&["write", "box", "log", "--if-version", &version])
        .stdin("lost")
        .run()
        .fails(1, "has changed");
    assert_eq!(run(&["cat", "box", "log"]).ok(), "changed");

    run(&["mv", "box", "log", "new/moved"]).ok();
    assert_eq!(run(&["cat", "box", "new/moved"]).ok(), "changed");
    run(&["rm", "box", "new"]).run().fails(1, "is a directory");
    run(&["rm", "box", "-r", "new"]).ok();
    run(&["rm", "box", "new"]).run().fails(1, "no such file");
    run(&["rm", "box", "-f", "new"]).ok();
    assert_eq!(run(&["ls", "box"]).ok(), "a\nrun.sh\n");
    daemon.stop();
}

#[test]
fn more_than_a_message_is_written_from_stdin() {
    let home = Home::new();
    let daemon = with_box(&home);
    let content: Vec<u8> = (0..10_000_000_u32).flat_map(u32::to_be_bytes).collect();
    home.stigmer(["sandbox", "write", "box", "large"])
        .stdin(content.clone())
        .ok();
    let read = home.stigmer(["sandbox", "cat", "box", "large"]).run();
    assert!(read.stdout == content, "40 MB come back, byte for byte");
    daemon.stop();
}

#[test]
fn text_is_edited_exactly() {
    let home = Home::new();
    let daemon = with_box(&home);
    let run = |args: &[&str]| home.stigmer([&["sandbox"], args].concat());
    run(&["write", "box", "f"])
        .stdin("one two two\r\nthree\r\n")
        .ok();
    let edit = |args: &[&str]| run(&[&["edit", "box", "f"], args].concat()).run();
    assert_eq!(
        edit(&["--old", "one", "--new", "-1-"]).ok(),
        "replaced 1 place\n"
    );
    edit(&["--old", "two", "--new", "2"]).fails(1, "2 ");
    assert_eq!(
        edit(&["--old", "two", "--new", "2", "--all"]).ok(),
        "replaced 2 places\n"
    );
    // Found although the file's lines end in CRLF, which stays.
    edit(&["--old", "2\nthree", "--new", "2\nfour"]).ok();
    assert_eq!(run(&["cat", "box", "f"]).ok(), "-1- 2 2\r\nfour\r\n");
    edit(&["--old", "absent", "--new", "x"]).fails(1, "");
    daemon.stop();
}

#[test]
fn names_and_lines_are_found() {
    let home = Home::new();
    let daemon = with_box(&home);
    let run = |args: &[&str]| home.stigmer([&["sandbox"], args].concat());
    for (path, content) in [
        ("src/main.rs", "fn main() {\n    // needle\n}\n"),
        ("src/deep/lib.rs", "pub fn Needle() {}\n"),
        ("notes.md", "a needle.\n"),
        ("target/out.rs", "needle\n"),
        (".gitignore", "target/\n"),
        (".hidden", "needle\n"),
    ] {
        run(&["write", "box", path]).stdin(content).ok();
    }
    let lines = |args: &[&str]| {
        run(args)
            .ok()
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        lines(&["glob", "box", "*.rs"]),
        ["src/deep/lib.rs", "src/main.rs", "target/out.rs"]
    );
    assert_eq!(
        lines(&["glob", "box", "*.rs", "--gitignore"]),
        ["src/deep/lib.rs", "src/main.rs"]
    );
    assert_eq!(lines(&["glob", "box", "src/*.{rs,md}"]), ["src/main.rs"]);
    assert_eq!(lines(&["glob", "box", "nothing"]), [""; 0]);
    assert_eq!(
        lines(&["grep", "box", "needle", "--gitignore"]),
        [
            ".hidden:1:needle",
            "notes.md:1:a needle.",
            "src/main.rs:2:    // needle"
        ]
    );
    assert_eq!(
        lines(&["grep", "box", "fn \\w+edle", "src", "--regex", "-g", "*.rs"]),
        ["src/deep/lib.rs:1:pub fn Needle() {}"]
    );
    assert_eq!(
        lines(&["grep", "box", "needle.", "-C", "1"]),
        ["notes.md:1:a needle."]
    );
    let found: Value =
        serde_json::from_str(&run(&["grep", "box", "needle", "src/main.rs", "-B1", "--json"]).ok())
            .unwrap();
    assert_eq!(
        (&found["line"], &found["before"][0]),
        (&2.into(), &"fn main() {".into())
    );
    run(&["grep", "box", "nowhere"]).run().fails(1, "");
    run(&["grep", "box", "(", "--regex"])
        .run()
        .fails(2, "unclosed group");
    daemon.stop();
}

#[test]
fn trees_are_copied_in_and_out() {
    let home = Home::new();
    let daemon = with_box(&home);
    let cp = |from: &str, to: &str| home.stigmer(["sandbox", "cp", from, to]).run();
    for (path, content) in [
        ("a.txt", "a"),
        ("sub/b c.txt", "b"),
        ("sub/żółw", ""),
        ("sub/run", "#!/bin/sh\n"),
    ] {
        home.write(&format!("tree/{path}"), content);
    }
    fs::create_dir(home.path("tree/empty")).unwrap();
    fs::set_permissions(home.path("tree/sub/run"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(home.path("tree/a.txt"), fs::Permissions::from_mode(0o640)).unwrap();
    cp("tree", "box:").ok();
    cp("box:tree", "copy").ok();
    tree::assert_same(&home.path("tree"), &home.path("copy"));
    // Onto a directory that is there, the copy goes inside.
    fs::create_dir(home.path("there")).unwrap();
    cp("box:tree/sub", "there").ok();
    tree::assert_same(&home.path("tree/sub"), &home.path("there/sub"));
    // The content only.
    cp("tree/.", "box:flat").ok();
    assert_eq!(
        home.stigmer(["sandbox", "cat", "box", "flat/a.txt"]).ok(),
        "a"
    );
    cp("box:tree/a.txt", "single").ok();
    assert_eq!(fs::read_to_string(home.path("single")).unwrap(), "a");
    cp("box:nothing", "x").fails(1, "no such file");
    cp("nothing", "box:x").fails(1, "nothing");
    cp("a", "b").fails(2, "one side must be in a sandbox");
    daemon.stop();
}

#[test]
fn a_link_in_a_sandbox_leads_nobody_out_of_it() {
    let home = Home::new();
    let daemon = home.daemon();
    home.write("secret", "outside");
    home.write("mine/inside", "inside");
    symlink(home.path("secret"), home.path("mine/link")).unwrap();
    symlink("inside", home.path("mine/good")).unwrap();
    home.stigmer(["sandbox", "create", "box", "--root", "mine"])
        .ok();
    let run = |args: &[&str]| home.stigmer([&["sandbox"], args].concat());
    run(&["cat", "box", "link"])
        .run()
        .fails(2, "leads out of the sandbox");
    run(&["write", "box", "link"])
        .stdin("x")
        .run()
        .fails(2, "leads out of the sandbox");
    run(&["cat", "box", "../secret"])
        .run()
        .fails(2, "leads out of the sandbox");
    assert_eq!(run(&["cat", "box", "good"]).ok(), "inside");
    let copied = run(&["cp", "box:.", "out"]).run();
    copied.fails(0, "1 link");
    assert!(!home.path("out/link").exists());
    assert_eq!(fs::read_to_string(home.path("secret")).unwrap(), "outside");
    daemon.stop();
}
