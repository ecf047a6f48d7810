//! Skills: folders with a `SKILL.md`, written into the sandbox for the model to
//! read when it needs them.

use bytes::Bytes;
use stigmer_sdk::wire::agent::{Skill, skill};
use stigmer_sdk::{Error, ErrorCode, Result};

use crate::sandbox::{HOUSE, Sandbox, told};

/// What the model is told to read.
const MAIN: &str = "SKILL.md";

/// Where a skill's `SKILL.md` is.
pub(crate) fn location(name: &str) -> String {
    format!("{}/{MAIN}", folder(name))
}

fn folder(name: &str) -> String {
    format!("{HOUSE}/skills/{name}")
}

/// Makes sure that these skills are there as they are. Nothing is written if
/// they are.
///
/// # Errors
/// `Skill write failed: …`, with what is wrong with the skill, or what kept it
/// from being written.
pub(crate) async fn write(sandbox: &Sandbox, skills: &[Skill]) -> Result<()> {
    for skill in skills {
        let written = async {
            check(skill)?;
            write_one(sandbox, skill).await
        };
        written.await.map_err(|error| {
            let problem = told(&error);
            Error::new(
                error.code(),
                format!("Skill write failed: {}: {problem}", skill.name),
            )
        })?;
    }
    Ok(())
}

async fn write_one(sandbox: &Sandbox, skill: &Skill) -> Result<()> {
    let folder = folder(&skill.name);
    let path = |file: &skill::File| format!("{folder}/{}", file.path);
    let mut same = true;
    for file in &skill.files {
        same = same && holds(sandbox, &path(file), &file.data).await?;
    }
    if same {
        return Ok(());
    }
    sandbox.house().await?;
    // What it was before may have had files that it has no more.
    sandbox.remove(&folder, true, true).await?;
    for file in &skill.files {
        let permissions = if file.executable { 0o755 } else { 0o644 };
        sandbox
            .write(&path(file), file.data.clone(), Some(permissions))
            .await?;
    }
    Ok(())
}

async fn holds(sandbox: &Sandbox, path: &str, data: &Bytes) -> Result<bool> {
    match sandbox.read(path, data.len() as u64).await {
        Ok(there) => Ok(there == *data),
        Err(error) => match error.code() {
            ErrorCode::NotFound
            | ErrorCode::TooLarge
            | ErrorCode::IsDirectory
            | ErrorCode::NotADirectory
            | ErrorCode::NotAFile => Ok(false),
            _ => Err(error),
        },
    }
}

/// Whether a skill stays in its folder, and can be found there.
fn check(skill: &Skill) -> Result<()> {
    let refused = |problem: String| Err(Error::new(ErrorCode::InvalidArgument, problem));
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if skill.name.is_empty() || skill.name.starts_with('.') || !skill.name.chars().all(plain) {
        return refused(format!(
            "'{}' cannot be a skill's name; it has letters, digits, '-', '_' and '.'",
            skill.name.escape_debug()
        ));
    }
    for file in &skill.files {
        let leads_out = |name: &str| matches!(name, "" | "." | "..") || name.contains('\0');
        if file.path.split('/').any(leads_out) {
            return refused(format!(
                "'{}' is no path below the skill's folder",
                file.path.escape_debug()
            ));
        }
    }
    if skill.files.iter().all(|file| file.path != MAIN) {
        return refused(format!("it has no {MAIN}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skill_stays_in_its_folder() {
        #[track_caller]
        fn checked(name: &str, paths: &[&str], problem: Option<&str>) {
            let file = |path: &&str| skill::File {
                path: (*path).to_owned(),
                ..skill::File::default()
            };
            let skill = Skill {
                name: name.to_owned(),
                description: String::new(),
                files: paths.iter().map(file).collect(),
            };
            let found = check(&skill).err().map(|error| error.message().to_owned());
            match problem {
                None => assert_eq!(found, None),
                Some(problem) => assert!(found.as_ref().unwrap().contains(problem), "{found:?}"),
            }
        }
        checked("pdf-1.2_x", &["SKILL.md", "scripts/a.py"], None);
        checked("", &["SKILL.md"], Some("cannot be a skill's name"));
        checked("..", &["SKILL.md"], Some("cannot be a skill's name"));
        checked("a/b", &["SKILL.md"], Some("cannot be a skill's name"));
        checked("a", &["SKILL.md", "../x"], Some("'../x' is no path below"));
        checked("a", &["SKILL.md", "/etc/passwd"], Some("is no path below"));
        checked("a", &["SKILL.md", "x//y"], Some("is no path below"));
        checked("a", &["skill.md"], Some("it has no SKILL.md"));
    }

    #[tokio::test]
    async fn a_failure_says_that_it_was_a_skill() {
        let skill = Skill {
            name: "a b".to_owned(),
            ..Skill::default()
        };
        let error = write(&Sandbox::nowhere(), &[skill]).await.unwrap_err();
        assert!(
            error
                .message()
                .starts_with("Skill write failed: a b: 'a b' cannot"),
            "{error}"
        );
    }
}
