//! What a user reads who got it wrong: invocations that a daemon answers.

use stigmer_tests::Home;

use crate::wrong::{Wrong, check, wrong};

const TABLE: &[Wrong] = &[
    wrong("sandbox info nope", 1, "no sandbox 'nope'"),
    wrong(
        "sandbox info nope",
        1,
        "hint: see which there are with: stigmer sandbox list",
    ),
    wrong(
        "sandbox info filesystem:nope",
        1,
        "no sandbox 'filesystem:nope'",
    ),
    wrong("sandbox exec nope -- true", 125, "no sandbox 'nope'"),
    wrong("sandbox ps nope", 1, "no sandbox 'nope'"),
    wrong("sandbox ls nope", 1, "no sandbox 'nope'"),
    wrong("sandbox cp nope:x y", 1, "no sandbox 'nope'"),
    wrong("sandbox grep nope x", 2, "no sandbox 'nope'"),
    wrong(
        "sandbox create --backend nope",
        2,
        "there is no sandbox backend 'nope'; there is: filesystem",
    ),
    wrong(
        "sandbox create --backend wasi",
        2,
        "there is no sandbox backend 'wasi'; there is: filesystem",
    ),
    wrong(
        "sandbox create --memory 1M",
        2,
        "a memory limit of 1048576 bytes is below the least, 16777216",
    ),
    wrong("sandbox create --root plain", 2, "plain'"),
    wrong(
        "sandbox create --env-file missing",
        2,
        "cannot read --env-file 'missing'",
    ),
    wrong(
        "sandbox exec box --cwd missing -- true",
        125,
        "'missing': no such file or directory",
    ),
    wrong(
        "sandbox exec box --cwd file -- true",
        125,
        "'file': not a directory",
    ),
    wrong(
        "sandbox exec box --cwd .. -- true",
        125,
        "'..': leads out of the sandbox",
    ),
    wrong("sandbox exec box --timeout 1000days -- true", 125, "1day"),
    wrong("sandbox ps box --stop nope", 1, "nope"),
    wrong("sandbox ps box --follow nope", 1, "nope"),
    wrong(
        "sandbox ls box missing",
        1,
        "'missing': no such file or directory",
    ),
    wrong("sandbox ls box ../..", 2, "leads out of the sandbox"),
    wrong(
        "sandbox cat box missing",
        1,
        "'missing': no such file or directory",
    ),
    wrong("sandbox cat box dir", 1, "'dir': is a directory"),
    wrong(
        "sandbox cat box pipe",
        1,
        "'pipe': neither a file nor a directory",
    ),
    wrong("sandbox cat box /etc/passwd", 2, "leads out of the sandbox"),
    wrong("sandbox cat box file/below", 1, "not a directory"),
    wrong("sandbox cat box loop", 2, "a loop of links"),
    wrong("sandbox write box dir", 1, "'dir': is a directory"),
    wrong(
        "sandbox write box file --create-new",
        1,
        "'file': already exists",
    ),
    wrong(
        "sandbox write box file --if-version nonsense",
        1,
        "has changed",
    ),
    wrong(
        "sandbox write box f --from missing",
        1,
        "cannot read 'missing'",
    ),
    wrong("sandbox write box ../f", 2, "leads out of the sandbox"),
    wrong("sandbox edit box file --old absent --new x", 1, "'file': "),
    wrong(
        "sandbox edit box file --old e --new x",
        1,
        "or say --all to replace every place",
    ),
    wrong(
        "sandbox edit box missing --old a --new b",
        1,
        "'missing': no such file or directory",
    ),
    wrong("sandbox edit box binary --old a --new b", 1, "'binary': "),
    wrong("sandbox edit box file --old '' --new b", 2, "empty"),
    wrong("sandbox glob box [", 2, "a '[' is not closed"),
    wrong("sandbox glob box ''", 2, "a pattern may not be empty"),
    wrong("sandbox glob box ../*", 2, "a pattern may not contain '..'"),
    wrong(
        "sandbox glob box {a",
        2,
        "a '{' in the pattern is not closed",
    ),
    wrong(
        "sandbox glob box * missing",
        1,
        "'missing': no such file or directory",
    ),
    wrong("sandbox glob box * file", 1, "'file': not a directory"),
    wrong(
        "sandbox grep box ( --regex",
        2,
        "not a regular expression: unclosed group",
    ),
    wrong(
        "sandbox grep box x missing",
        2,
        "'missing': no such file or directory",
    ),
    wrong("sandbox grep box x -g [", 2, "a '[' is not closed"),
    wrong(
        "sandbox mv box missing x",
        1,
        "'missing': no such file or directory",
    ),
    wrong("sandbox mv box file dir", 1, "'dir': "),
    wrong(
        "sandbox mv box dir dir/below",
        2,
        "a directory cannot be moved into itself",
    ),
    wrong(
        "sandbox mv box . x",
        1,
        "the workspace itself stays where it is",
    ),
    wrong(
        "sandbox rm box missing",
        1,
        "'missing': no such file or directory",
    ),
    wrong(
        "sandbox rm box dir",
        1,
        "hint: say -r to remove it with everything under it",
    ),
    wrong(
        "sandbox rm box -r .",
        1,
        "the workspace itself stays where it is",
    ),
    wrong(
        "sandbox rm box ..",
        1,
        "the workspace itself stays where it is",
    ),
    wrong("sandbox mkdir box file", 1, "'file': already exists"),
    wrong("sandbox mkdir box file/below", 1, "not a directory"),
    wrong(
        "sandbox cp box:missing here",
        1,
        "'missing': no such file or directory",
    ),
    wrong("sandbox cp missing box:", 1, "missing"),
    wrong(
        "sandbox cp box:pipe here",
        1,
        "'pipe' is neither a file nor a directory",
    ),
];

#[test]
fn invocations() {
    let home = Home::new();
    let daemon = home.daemon();
    home.write("plain", "a file");
    home.stigmer(["sandbox", "create", "box"]).ok();
    let script = "mkdir dir; echo everything >file; printf 'a\\0\\377' >binary; mkfifo pipe; ln -s loop loop";
    home.stigmer(["sandbox", "exec", "box", "--", script]).ok();
    let before = home.stigmer(["sandbox", "list", "--ids"]).ok();
    check(&home, TABLE);
    assert_eq!(
        home.stigmer(["sandbox", "list", "--ids"]).ok(),
        before,
        "nothing came of it"
    );
    assert_eq!(
        home.stigmer(["sandbox", "ls", "box"]).ok(),
        "binary\ndir\nfile\nloop\npipe\n"
    );
    daemon.stop();
}
