//! What a command finds in its environment: the documented minimum, what its
//! sandbox adds, and what it adds itself. Nothing of the host's.

use std::collections::BTreeMap;

use super::Case;
use super::check::{Verdict, ensure, equal, ok};
use super::run::Context;
use super::running::Output;
use crate::{EnvName, EnvValue};

pub(super) const CASES: &[Case] = cases! { environment, Core;
    /// A command sees nothing of the host's environment: only the documented minimum.
    nothing_leaks;
    /// There is a `PATH` that finds programs, and a `HOME`.
    path_and_home_are_there;
    /// The sandbox's variables reach every command, the command's beat them, and last no longer than it.
    command_beats_sandbox;
    /// Values arrive as they are, whatever is in them.
    values_are_verbatim;
    /// What one command exports, another does not see.
    commands_do_not_share;
};

/// What a backend's minimum may contain, besides `LC_*` and `STIGMER_*`.
const MINIMUM: [&str; 12] = [
    "HOME", "LANG", "LOGNAME", "OLDPWD", "PATH", "PWD", "SHELL", "SHLVL", "TERM", "TMPDIR", "USER",
    "_",
];

fn may_be_there(name: &str) -> bool {
    let secret = ["KEY", "TOKEN", "SECRET"]
        .iter()
        .any(|word| name.contains(word));
    MINIMUM.contains(&name) || name.starts_with("LC_") || (name.starts_with("STIGMER_") && !secret)
}

/// The variables in what `env -0` printed.
fn variables(output: &Output) -> BTreeMap<String, String> {
    output
        .stdout
        .split(|byte| *byte == 0)
        .filter_map(|line| {
            let line = String::from_utf8_lossy(line);
            let (name, value) = line.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        })
        .collect()
}

async fn nothing_leaks(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.needs_programs(&["env"]).await?;
    let template = cx.template();
    // Names alone, so that a report never shows what leaked.
    let unexpected: Vec<String> = variables(&sandbox.sh("env -0").await?)
        .into_keys()
        .filter(|name| !may_be_there(name))
        .filter(|name| template.env.keys().all(|given| given.as_str() != name))
        .collect();
    equal("variables beyond the minimum", unexpected, Vec::new())
}

async fn path_and_home_are_there(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let output = sandbox.sh(r#"echo "$PATH"; echo "$HOME""#).await?;
    let text = output.text();
    let mut lines = text.lines();
    for name in ["PATH", "HOME"] {
        let value = lines.next().unwrap_or_default();
        ensure(name, value.contains('/'), "an absolute path", value)?;
    }
    Ok(())
}

async fn command_beats_sandbox(cx: &Context) -> Verdict {
    let mut spec = cx.template();
    for name in ["CONFORMANCE_ONE", "CONFORMANCE_TWO"] {
        let name = ok("a name", EnvName::new(name))?;
        let value = ok("a value", EnvValue::new("sandbox"))?;
        spec.env.insert(name, value);
    }
    let sandbox = cx.create(spec).await?;
    let show = r#"echo "$CONFORMANCE_ONE $CONFORMANCE_TWO $CONFORMANCE_THREE""#;
    let command = sandbox.shell(show)?;
    let command = ok("a variable", command.env("CONFORMANCE_TWO", "command"))?;
    let command = ok("a variable", command.env("CONFORMANCE_THREE", "new"))?;
    let output = sandbox.run(command).await?;
    equal(
        "with its own",
        output.text(),
        "sandbox command new".to_owned(),
    )?;
    let output = sandbox.sh(show).await?;
    equal(
        "the next command's",
        output.text(),
        "sandbox sandbox ".to_owned(),
    )
}

async fn values_are_verbatim(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let values = [
        "",
        " ",
        "a=b=c",
        "new\nline\n",
        "zażółć 🦀",
        "$HOME `id` 'x' \"y\" \\",
        &"long ".repeat(10_000),
    ];
    let mut command = sandbox.shell("env -0")?;
    for (index, value) in values.iter().enumerate() {
        let added = command.env(format!("CONFORMANCE_{index}"), *value);
        command = ok("a variable", added)?;
    }
    sandbox.needs_programs(&["env"]).await?;
    let seen = variables(&sandbox.run(command).await?);
    for (index, value) in values.iter().enumerate() {
        let name = format!("CONFORMANCE_{index}");
        let got = seen.get(&name).map(String::as_str);
        equal(name, got, Some(*value))?;
    }
    Ok(())
}

async fn commands_do_not_share(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    sandbox.make_dir("elsewhere").await?;
    sandbox
        .sh("export CONFORMANCE_LEFT=behind; cd elsewhere; umask 000")
        .await?;
    let output = sandbox
        .sh(r#"echo "[$CONFORMANCE_LEFT]"; [ -d elsewhere ] && echo here"#)
        .await?;
    equal("the next command", output.text(), "[]\nhere".to_owned())
}
