use super::*;
use crate::config::Env;

fn around() -> Environment {
    Environment {
        vars: Env::from([("GITHUB_TOKEN".to_owned(), "gh".to_owned())]),
        unreadable: Vec::new(),
    }
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("PROMPT.md"), "Be brief.\n").unwrap();
    let skill = dir.path().join("skills/lint");
    std::fs::create_dir_all(&skill).unwrap();
    std::fs::write(
        skill.join("SKILL.md"),
        "---\nname: lint\ndescription: Lints.\n---\n",
    )
    .unwrap();
    dir
}

#[track_caller]
fn good(text: &str) -> AgentSpec {
    let dir = folder();
    parse(&dir.path().join("agent.toml"), text, &around())
        .unwrap_or_else(|problems| panic!("{problems:?}"))
}

#[track_caller]
fn problems(text: &str) -> Vec<String> {
    let dir = folder();
    let path = dir.path().join("agent.toml");
    let problems = parse(&path, text, &around()).expect_err("it was accepted");
    let prefix = format!("{}:", path.display());
    let folder = format!("{}/", dir.path().display());
    problems
        .iter()
        .map(|problem| {
            problem
                .strip_prefix(&prefix)
                .expect("the file")
                .replace(&folder, "")
        })
        .collect()
}

#[test]
fn everything_can_be_said() {
    let agent = good(
        r#"
name = "reviewer"
instructions_file = "PROMPT.md"
provider = "ollama"
model = "hf.co/some/model"
tools = ["execute", "grep"]
skills = ["skills/lint"]
approve = "ask"
env = { CI = "1", TOKEN = { from = "GITHUB_TOKEN", secret = true }, P = { value = "x", secret = true } }
limits = { max_turns = 5, max_tokens = 200_000, timeout = "30m", max_cost = 1.50 }

[[approvals]]
tool = "execute"
pattern = "cargo *"
answer = "allow"

[[approvals]]
answer = "deny"
"#,
    );
    let approvals = agent.approvals.clone().expect("approvals");
    assert_eq!(agent.name, "reviewer");
    assert_eq!(agent.instructions, "Be brief.\n");
    assert_eq!(agent.model, "ollama/hf.co/some/model");
    assert_eq!(agent.tools, ["execute", "grep"]);
    assert_eq!(agent.skills[0].description, "Lints.");
    let env = |name: &str| (agent.env[name].value.as_str(), agent.env[name].secret);
    assert_eq!(
        [env("CI"), env("TOKEN"), env("P")],
        [("1", false), ("gh", true), ("x", true)]
    );
    assert_eq!(
        agent.limits,
        Some(ExecutionLimits {
            max_turns: Some(5),
            max_tokens: Some(200_000),
            timeout_ms: Some(1_800_000),
            max_cost_microusd: Some(1_500_000),
        })
    );
    assert_eq!(approvals.mode(), Mode::Ask);
    assert_eq!(approvals.rules[0].pattern, "cargo *");
    assert_eq!(approvals.rules[1].answer(), Answer::Deny);
}

#[test]
fn nothing_need_be_said() {
    assert_eq!(good(""), AgentSpec::default());
}

#[test]
fn all_problems_come_at_once_with_their_lines() {
    let text = r#"nmae = "x"
name = 3
instructions = "a"
instructions_file = "missing.md"
provider = "acme"
tools = ["exec", 1]
skills = ["nowhere"]
approve = "sometimes"
[env]
A = 1
B = { from = "NOT_SET" }
C = { value = "x", from = "GITHUB_TOKEN" }
D = { secert = true }
"E F" = "x"
"secret:G" = "x"
[limits]
max_turns = -1
timeout = "soon"
max_cost = "free"
turns = 1
[[approvals]]
tool = "rm"
"#;
    let expected = [
        "1: an agent has the unknown key 'nmae'; allowed are name, instructions, ",
        "2: 'name' must be a string, and is of type integer",
        "4: either 'instructions' or 'instructions_file', not both",
        "4: 'missing.md' cannot be read: No such file",
        "5: 'provider' cannot be 'acme'; allowed are anthropic, openai, ollama",
        "6: 'tools' cannot be 'exec'; allowed are execute, ",
        "6: 'tools' must be a string, and is of type integer",
        "7: the skill 'nowhere': there is no such folder",
        "8: 'approve' cannot be 'sometimes'; allowed are never, ask, always",
        "10: 'A' is a string, { value = \"…\" } or { from = \"NAME\" }",
        "11: NOT_SET is not set in this environment",
        "12: 'C' needs either 'value' or 'from'",
        "13: 'D' has the unknown key 'secert'; allowed are value, from, secret",
        "14: 'E F' has a space in the name; write NAME=VALUE",
        "15: 'secret:G' is no name here; write { value = \"…\", secret = true }",
        "17: 'max_turns' cannot be -1",
        "18: 'timeout': not a duration such as 30s, 5m or 1h30m",
        "19: 'max_cost': not dollars such as 2 or 0.50",
        "20: 'limits' has the unknown key 'turns'; allowed are max_turns, ",
        "21: a rule of 'approvals' needs an 'answer': allow, ask or deny",
        "22: 'tool' cannot be 'rm'; allowed are execute, ",
    ];
    let found = problems(text);
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nis not\n{expected}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn what_is_no_toml_is_all_that_is_said() {
    #[track_caller]
    fn check(text: &str, problem: &str) {
        let found = problems(text);
        assert!(found[0].starts_with(problem), "{found:?}");
    }
    check("name = \nmodel = \n", "1: this is not TOML: ");
    check("name = 'a'\nname = 'b'\n", "2: this is not TOML: ");
    check(
        "provider = 'openai'",
        "1: 'provider' needs a 'model' beside it",
    );
}
