//! `stigmer exec`: what goes in, and what comes out.

use std::time::Duration;

use serde_json::Value;
use stigmer_tests::{Home, Output};

#[test]
fn the_first_example_works_with_no_configuration() {
    let home = Home::new();
    let output = home
        .stigmer(["exec", "--", "sh", "-c", "echo hello from $(pwd); ls -la"])
        .without_env("SANDBOX_ROOT_DIR")
        .without_env("STIGMER_DATA_DIR")
        .ok();
    let workspace = home.path("workspace").canonicalize().unwrap();
    assert!(
        output.starts_with(&format!("hello from {}\n", workspace.display())),
        "{output}"
    );
    assert!(!home.path("home/.stigmer").exists(), "it needs no data");
}

#[test]
fn every_exit_code_is_passed_through() {
    let home = Home::new();
    let codes = |from: i32| (from..=255).step_by(2);
    std::thread::scope(|scope| {
        for half in [0, 1] {
            let home = &home;
            scope.spawn(move || {
                for code in codes(half) {
                    let output = home.stigmer(["exec", "--", &format!("exit {code}")]).run();
                    assert_eq!(output.code(), code, "{output}");
                }
            });
        }
    });
}

#[test]
fn codes_that_are_not_the_commands_own() {
    let home = Home::new();
    home.write("work/data", "not a program");
    let check = |args: &[&str], code: i32, complaint: &str| {
        home.stigmer([&["exec"], args].concat())
            .run()
            .fails(code, complaint);
    };
    check(&["--timeout", "100ms", "--", "sleep", "60"], 124, "");
    check(&["--", "./data", "x"], 126, "data");
    check(&["--", "no-such-program", "x"], 127, "no-such-program");
    check(&["--", "no-such-program"], 127, "no-such-program");
    check(&["--", "kill -9 $$"], 137, "");
    check(&["--", "kill -15 $$"], 143, "");
    check(
        &["--cwd", "missing", "--", "true"],
        125,
        "'missing': no such file or directory",
    );
}

#[test]
fn streams_are_apart_and_in_order() {
    let home = Home::new();
    let script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done";
    let output = home.stigmer(["exec", "--", script]).run();
    assert_eq!(output.text(), "out 1\nout 2\nout 3\n");
    assert_eq!(output.complaint(), "err 1\nerr 2\nerr 3\n");
}

#[test]
fn one_word_is_a_line_and_several_are_a_program() {
    let home = Home::new();
    let check = |command: &[&str], printed: &str| {
        let output = home.stigmer([&["exec", "--"], command].concat()).ok();
        assert_eq!(output, printed, "{command:?}");
    };
    check(&["echo a b | wc -w | tr -d ' '"], "2\n");
    check(&["echo", "a | b", "$HOME", "*"], "a | b $HOME *\n");
    check(
        &["printf", "%s,", "", "a b", "-x", "--", "ż\n"],
        ",a b,-x,--,ż\n,",
    );
}

#[test]
fn stdin_is_passed_on_only_if_asked() {
    let home = Home::new();
    let data: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let passed = home
        .stigmer(["exec", "-i", "--", "cat"])
        .stdin(data.clone())
        .run();
    assert_eq!(passed.code(), 0);
    assert!(passed.stdout == data, "all of stdin comes back");
    let kept = home.stigmer(["exec", "--", "cat"]).stdin(data).run();
    assert_eq!((kept.code(), kept.stdout.len()), (0, 0));
    // Whoever reads only a little of it does not hang either side.
    let some = home
        .stigmer(["exec", "-i", "--", "head", "-c", "3"])
        .stdin(vec![b'x'; 1 << 20])
        .run();
    assert_eq!((some.code(), some.text()), (0, "xxx"));
}

#[test]
fn no_secret_of_the_host_is_in_a_command_s_environment() {
    let home = Home::new();
    let secrets = [
        ("ANTHROPIC_API_KEY", "marker-anthropic"),
        ("OPENAI_API_KEY", "marker-openai"),
        ("STIGMER_API_KEY", "marker-stigmer"),
        ("DAYTONA_API_KEY", "marker-daytona"),
        ("AWS_SECRET_ACCESS_KEY", "marker-aws"),
        ("GITHUB_TOKEN", "marker-github"),
        ("LD_PRELOAD_NOT", "marker-other"),
    ];
    let mut cli = home.stigmer(["exec", "--", "env"]);
    for (name, value) in secrets {
        cli = cli.env(name, value);
    }
    let environment = cli.ok();
    assert!(!environment.contains("marker"), "{environment}");
    let allowed = [
        "HOME",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "LOGNAME",
        "PATH",
        "SHELL",
        "TMPDIR",
        "TZ",
        "USER",
        "STIGMER_SANDBOX_ID", // and what sh itself sets
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
    ];
    for line in environment.lines() {
        let name = line.split('=').next().unwrap();
        assert!(allowed.contains(&name), "{line}");
    }
}

#[test]
fn variables_are_set_by_flag_file_and_name() {
    let home = Home::new();
    let file = home.write(
        "vars",
        "# a comment\nA=file\nB=x=y z\nFROM_HERE\nUNSET_HERE\n\r\n",
    );
    let output = home
        .stigmer(["exec", "--env-file"])
        .arg(&file)
        .args([
            "-e",
            "A=flag",
            "-e",
            "EMPTY=",
            "-e",
            "TAKEN",
            "-e",
            "ALSO_UNSET",
        ])
        .args([
            "--",
            "sh",
            "-c",
            "env | grep -E '^(A|B|EMPTY|TAKEN|FROM_HERE|.*UNSET.*)=' | sort",
        ])
        .env("TAKEN", "t")
        .env("FROM_HERE", "f")
        .ok();
    assert_eq!(output, "A=flag\nB=x=y z\nEMPTY=\nFROM_HERE=f\nTAKEN=t\n");
}

#[test]
fn a_command_starts_where_it_is_told() {
    let home = Home::new();
    std::fs::create_dir_all(home.path("elsewhere/deep dir")).unwrap();
    let root = home.path("elsewhere");
    let output = home
        .stigmer(["exec", "--root"])
        .arg(&root)
        .args(["--cwd", "deep dir", "--", "pwd"])
        .ok();
    let expected = root.canonicalize().unwrap().join("deep dir");
    assert_eq!(output.trim_end(), expected.to_str().unwrap());
}

#[test]
fn bytes_are_bytes() {
    let home = Home::new();
    let all: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    home.write("work/bytes", &all);
    let output = home
        .stigmer(["exec", "--", "cat bytes; cat bytes >&2"])
        .run();
    assert_eq!(output.code(), 0);
    assert!(output.stdout == all, "stdout byte for byte");
    assert!(output.stderr == all, "stderr byte for byte");
}

#[test]
fn a_hundred_megabytes_come_whole() {
    let home = Home::new();
    let output = home
        .stigmer([
            "exec",
            "--",
            "head -c 104857600 /dev/zero | tr '\\0' x; printf end",
        ])
        .run();
    assert_eq!(output.code(), 0);
    assert_eq!(output.stdout.len(), 104_857_603);
    let (body, end) = output.stdout.split_at(104_857_600);
    assert!(body.iter().all(|byte| *byte == b'x'));
    assert_eq!(end, b"end");
}

#[test]
fn output_to_nobody_ends_the_command() {
    let home = Home::new();
    let mut shell = home.command("sh");
    shell
        .args([
            "-c",
            "{ \"$0\" exec -- yes; echo \"code $?\" >&2; } | head -n 1",
        ])
        .arg(stigmer_tests::binary::path());
    let output = stigmer_tests::Cli::new(shell).run();
    assert_eq!(output.text(), "y\n");
    assert_eq!(output.complaint(), "code 141\n");
}

#[test]
fn a_background_child_does_not_hold_the_answer() {
    let home = Home::new();
    let output = home
        .stigmer(["exec", "--", "sleep 1000 & echo done"])
        .deadline(Duration::from_secs(10))
        .run();
    assert_eq!((output.code(), output.text()), (0, "done\n"));
    assert_eq!(home.processes(), [], "the sandbox ended with the call");
}

/// The lines of a run with `--json`.
#[track_caller]
fn events(output: &Output) -> Vec<Value> {
    let lines = output.text().lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn events_are_json_and_end_with_one_exit() {
    let home = Home::new();
    let run = |args: &[&str]| home.stigmer([&["exec", "--json"], args].concat()).run();
    let output = run(&["--", "printf 'żółw\\n'; printf '\\377' >&2; exit 3"]);
    assert_eq!(output.code(), 3);
    let all = events(&output);
    let text: String = all
        .iter()
        .filter(|event| event["type"] == "stdout")
        .filter_map(|event| event["data"].as_str())
        .collect();
    assert_eq!(text, "żółw\n");
    assert!(
        all.iter()
            .any(|event| event["type"] == "stderr" && event["base64"] == "/w=="),
        "{all:?}"
    );
    let exits = all.iter().filter(|event| event["type"] == "exit").count();
    assert_eq!(exits, 1);
    let last = all.last().unwrap();
    assert_eq!(
        (&last["exit_code"], &last["status"]),
        (&3.into(), &"exited".into())
    );

    let exit = |output: &Output| events(output).last().cloned().unwrap();
    let signalled = exit(&run(&["--", "kill -9 $$"]));
    assert_eq!(
        (
            &signalled["status"],
            &signalled["signal"],
            &signalled["exit_code"]
        ),
        (&"signalled".into(), &9.into(), &137.into())
    );
    let late = exit(&run(&["--timeout", "100ms", "--", "sleep 60"]));
    assert_eq!(
        (&late["status"], &late["exit_code"]),
        (&"timed_out".into(), &124.into())
    );
}

#[test]
fn help_says_once_what_is_not_contained() {
    let home = Home::new();
    for args in [&["exec", "--help"][..], &["sandbox", "create", "--help"]] {
        let help = home.stigmer(args).ok();
        assert_eq!(help.matches("does not confine").count(), 1, "{help}");
        assert!(help.contains("Examples:"), "{help}");
    }
}

#[test]
fn completions_are_printed_for_each_shell() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = home.stigmer(["completions", shell]).ok();
        assert!(script.contains("stigmer"), "{shell}");
    }
}
