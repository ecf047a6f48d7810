//! What agents may do, and which model they ask.

use super::*;

#[test]
fn agents_have_bounds_unless_somebody_says_otherwise() {
    let agents = |env| Case { env, ..FRESH }.resolve().unwrap().agents;
    assert_eq!(agents(&[]), AgentPolicy::default());
    let env = [
        ("STIGMER_APPROVE", "always"),
        ("STIGMER_MAX_TURNS", "none"),
        ("STIGMER_MAX_TOKENS", "500000"),
        ("STIGMER_EXECUTION_TIMEOUT", "10m"),
        ("STIGMER_MAX_COST", "2.5"),
    ];
    let expected = AgentPolicy {
        approve: Approve::Always,
        approvals: Vec::new(),
        max_turns: None,
        max_tokens: Some(500_000),
        execution_timeout: Some(Duration::from_secs(600)),
        max_cost_microusd: Some(2_500_000),
    };
    assert_eq!(agents(&env), expected);
    let case = Case { env: &env, ..FRESH };
    check_row(
        case,
        "STIGMER_MAX_COST",
        "2.50",
        "environment STIGMER_MAX_COST",
    );
    check_row(FRESH, "STIGMER_MAX_TURNS", "100", "default");
    check_row(FRESH, "STIGMER_MAX_TOKENS", "none", "default");
}

#[test]
fn rules_of_approval_are_read_in_their_order() {
    let case = Case {
        file: "\
port = 1

[[approvals]]
tool = 'execute'
pattern = 'git push*'
answer = 'ask'

[[approvals]]
answer = 'deny'
",
        ..FRESH
    };
    let config = case.resolve().unwrap();
    let expected = [
        ApprovalRule {
            tool: Some("execute".to_owned()),
            pattern: Some("git push*".to_owned()),
            answer: Answer::Ask,
        },
        ApprovalRule {
            tool: None,
            pattern: None,
            answer: Answer::Deny,
        },
    ];
    assert_eq!(config.agents.approvals, expected);
    check_row(
        case,
        "approvals",
        "ask execute 'git push*', deny any tool",
        "config file /c.toml:3",
    );
}

#[test]
fn a_rule_of_approval_that_is_wrong_says_where() {
    #[track_caller]
    fn check(file: &str, problems: &[&str]) {
        check_problems(Case { file, ..FRESH }, problems);
    }
    check(
        "port = 1\n[[approvals]]\nanswer = 'alow'\n",
        &["/c.toml:3: answer is 'alow': an answer is allow, ask, deny (did you mean 'allow'?)"],
    );
    check(
        "[[approvals]]\ntool = 'execute'\n\n[[approvals]]\ntool = 'exec'\npatern = 'x'\n",
        &[
            "/c.toml:1: a rule of [[approvals]] has no answer: allow, ask or deny",
            "/c.toml:4: a rule of [[approvals]] has no answer: allow, ask or deny",
            "/c.toml:5: tool is 'exec': there is no such tool; there are execute, process, read_file, write_file, edit_file, ls, glob, grep, delete, write_todos",
            "/c.toml:6: a rule of [[approvals]] has the unknown key 'patern' (did you mean 'pattern'?); allowed are tool, pattern, answer",
        ],
    );
    check(
        "[[approvals]]\nanswer = 'ask'\npattern = ''\ntool = 3\n",
        &[
            "/c.toml:3: pattern is empty: it is a string, and left out for any",
            "/c.toml:4: tool is integer: it is a string, and left out for any",
        ],
    );
}

#[test]
fn a_runner_judges_no_backend() {
    let env = [
        ("STIGMER_BACKEND_ENDPOINT", "api:443"),
        ("STIGMER_API_KEY", "sk-1"),
    ];
    let case = Case {
        entry: Entry::Runner,
        env: &env,
        backends: &[],
        ..FRESH
    };
    let config = case.resolve().unwrap();
    assert_eq!(
        (config.mode, config.sandbox.as_str()),
        (Mode::Cloud, "daytona")
    );
    check_problems(
        Case {
            env: &env[..1],
            ..case
        },
        &[
            "STIGMER_API_KEY is not set, and cloud mode needs it",
            "MODE is not set, which means cloud for this command: set MODE=local or --mode local to serve this machine",
        ],
    );
}
