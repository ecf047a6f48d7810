//! Skills: folders with a `SKILL.md`, read whole and sent with the agent.
//!
//! Of the head of `SKILL.md` only `name` and `description` are read, each on a
//! line of its own. The rest of it is for whoever reads the file.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use stigmer_sdk::wire::agent::{Skill, skill::File as SkillFile};

use crate::cli::output;

/// Of one file. Skills are text and small scripts.
const FILE_BYTES: u64 = 1024 * 1024;
/// Of all skills of an agent: they travel in one message, whose limit is twice
/// this.
pub(super) const ALL_BYTES: u64 = 8 * 1024 * 1024;
/// Of one skill, so that a wrong folder (a home, a build) is noticed at once.
const FILES: usize = 1000;

const HEAD: &str = "SKILL.md";

/// Reads a skill; what it holds is taken off the budget.
pub(super) fn load(folder: &Path, budget: &mut u64) -> Result<Skill, String> {
    let root = match folder.canonicalize() {
        Ok(root) if root.is_dir() => root,
        Ok(_) => return Err("this is not a folder".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err("there is no such folder".to_owned());
        }
        Err(error) => return Err(format!("the folder cannot be read: {error}")),
    };
    let mut found = Vec::new();
    walk(&root, Path::new(""), &mut found)?;
    found.sort();
    let mut files = Vec::new();
    for below in found {
        let file = read(&root, &below, budget)?;
        files.push(file);
    }
    let Some(head) = files.iter().find(|file| file.path == HEAD) else {
        return Err(format!("it has no {HEAD}"));
    };
    let text = std::str::from_utf8(&head.data).map_err(|_| format!("{HEAD} is not UTF-8"))?;
    let (name, description) = front_matter(text).map_err(|problem| format!("{HEAD}{problem}"))?;
    let name = match name {
        Some(name) => name,
        None => root
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned(),
    };
    // It becomes the name of a folder in the sandbox.
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(format!(
            "'{}' is no name for a skill: up to 64 letters, digits, '-' and '_'",
            name.escape_debug()
        ));
    }
    Ok(Skill {
        name,
        description,
        files,
    })
}

/// Adds all files below, except Git's own.
fn walk(root: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let unread =
        |error: std::io::Error| format!("'{}' cannot be read: {error}", root.join(below).display());
    for entry in fs::read_dir(root.join(below)).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let path = below.join(entry.file_name());
        let kind = entry.file_type().map_err(unread)?;
        if kind.is_dir() {
            if entry.file_name() != ".git" {
                walk(root, &path, found)?;
            }
            continue;
        }
        if found.len() == FILES {
            return Err(format!("it has more than {FILES} files"));
        }
        found.push(path);
    }
    Ok(())
}

fn read(root: &Path, below: &Path, budget: &mut u64) -> Result<SkillFile, String> {
    let Some(path) = below.to_str() else {
        return Err(format!("the name of '{}' is not UTF-8", below.display()));
    };
    let unread = |error: std::io::Error| format!("'{path}' cannot be read: {error}");
    let target = root.join(below).canonicalize().map_err(unread)?;
    if !target.starts_with(root) {
        return Err(format!("'{path}' is a link that leads out of the folder"));
    }
    let metadata = fs::metadata(&target).map_err(unread)?;
    if !metadata.is_file() {
        return Err(format!("'{path}' is neither a file nor a link to one"));
    }
    let mut data = Vec::new();
    let file = File::open(&target).map_err(unread)?;
    file.take(FILE_BYTES + 1)
        .read_to_end(&mut data)
        .map_err(unread)?;
    let length = data.len() as u64;
    if length > FILE_BYTES {
        return Err(format!(
            "'{path}' is larger than {}",
            output::bytes(FILE_BYTES)
        ));
    }
    *budget = budget.checked_sub(length).ok_or_else(|| {
        format!(
            "all skills together are larger than {}",
            output::bytes(ALL_BYTES)
        )
    })?;
    Ok(SkillFile {
        path: path.to_owned(),
        data: data.into(),
        executable: metadata.permissions().mode() & 0o111 != 0,
    })
}

/// The name, if there is one, and the description of a skill.
fn front_matter(text: &str) -> Result<(Option<String>, String), String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().enumerate();
    if lines
        .next()
        .is_none_or(|(_, line)| line.trim_end() != "---")
    {
        return Err(" does not begin with a head: a line '---', then 'name: …' and 'description: …', then '---'".to_owned());
    }
    let (mut name, mut description) = (None, None);
    for (index, line) in lines {
        let line = line.trim_end();
        if line == "---" {
            return match description {
                Some(description) => Ok((name, description)),
                None => Err(" has no 'description: …' in its head".to_owned()),
            };
        }
        let (slot, value) = match line.split_once(':') {
            Some(("name", value)) => (&mut name, value),
            Some(("description", value)) => (&mut description, value),
            _ => continue,
        };
        let at = |problem: &str| format!(":{}: {problem}", index + 1);
        let value = scalar(value.trim()).map_err(at)?;
        if slot.replace(value).is_some() {
            return Err(at("this was said before"));
        }
    }
    Err(" has a head that does not end: a second line '---' is missing".to_owned())
}

fn scalar(value: &str) -> Result<String, &'static str> {
    match value.chars().next() {
        None | Some('|' | '>') => Err("write the whole value on this line"),
        Some(quote @ ('"' | '\'')) => match value[1..].strip_suffix(quote) {
            Some(inner) if quote == '"' => Ok(inner.replace("\\\"", "\"").replace("\\\\", "\\")),
            Some(inner) => Ok(inner.replace("''", "'")),
            None => Err("the quote is not closed on this line"),
        },
        Some(_) => Ok(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADED: &str = "---\nname: lint\ndescription: Lints.\n---\n# How\n";

    /// A skill's folder with these files.
    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, data) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, data).unwrap();
        }
        dir
    }

    #[test]
    fn a_folder_is_taken_as_it_is() {
        let dir = folder(&[
            (HEAD, HEADED.as_bytes()),
            ("bin/run.sh", b"#!/bin/sh\n"),
            (".git/config", b"x"),
            ("data", b"\xff\x00"),
        ]);
        let script = dir.path().join("bin/run.sh");
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("data", dir.path().join("again")).unwrap();
        let skill = load(dir.path(), &mut ALL_BYTES.clone()).unwrap();
        assert_eq!(
            (skill.name.as_str(), skill.description.as_str()),
            ("lint", "Lints.")
        );
        let files: Vec<_> = skill
            .files
            .iter()
            .map(|file| (file.path.as_str(), file.data.len(), file.executable))
            .collect();
        assert_eq!(
            files,
            [
                (HEAD, HEADED.len(), false),
                ("again", 2, false),
                ("bin/run.sh", 10, true),
                ("data", 2, false),
            ]
        );
    }

    #[test]
    fn what_cannot_be_a_skill_is_refused() {
        #[track_caller]
        fn check(files: &[(&str, &[u8])], link: Option<&str>, problem: &str) {
            let dir = folder(files);
            if let Some(link) = link {
                std::os::unix::fs::symlink(link, dir.path().join("link")).unwrap();
            }
            let found = load(dir.path(), &mut 2_000_000).unwrap_err();
            assert!(found.starts_with(problem), "{found}");
        }
        let headed = (HEAD, HEADED.as_bytes());
        let large = vec![b'x'; 1024 * 1024 + 1];
        let full = &large[1..];
        check(&[("README.md", b"")], None, "it has no SKILL.md");
        check(&[headed, ("a", &large)], None, "'a' is larger than 1.0 MiB");
        check(
            &[headed, ("a", full), ("b", full)],
            None,
            "all skills together are larger than ",
        );
        check(
            &[headed],
            Some("/etc/passwd"),
            "'link' is a link that leads out",
        );
        check(&[headed], Some("nowhere"), "'link' cannot be read: ");
        check(
            &[headed, ("d/x", b"")],
            Some("d"),
            "'link' is neither a file nor",
        );
        check(&[(HEAD, b"\xff")], None, "SKILL.md is not UTF-8");
        check(
            &[(HEAD, b"---\nname: ../up\ndescription: x\n---\n")],
            None,
            "'../up' is no name for a skill",
        );
    }

    #[test]
    fn a_head_is_lines_of_keys_and_values() {
        #[track_caller]
        fn check(text: &str, expected: Result<(Option<&str>, &str), &str>) {
            let found = front_matter(text);
            let expected = expected
                .map(|(name, description)| (name.map(str::to_owned), description.to_owned()))
                .map_err(str::to_owned);
            assert_eq!(found, expected);
        }
        check(
            "---\r\nname: a\r\ndescription: b: c\r\n---\r\n",
            Ok((Some("a"), "b: c")),
        );
        check(
            "---\ndescription: \"a \\\"b\\\"\"\n---",
            Ok((None, "a \"b\"")),
        );
        check(
            "---\ndescription: 'it''s'\nmeta:\n  name: x\n---",
            Ok((None, "it's")),
        );
        check(
            "---\nname: a\n---\n",
            Err(" has no 'description: …' in its head"),
        );
        check(
            "---\ndescription: >\n  x\n---\n",
            Err(":2: write the whole value on this line"),
        );
        check(
            "---\ndescription: 'x\n---\n",
            Err(":2: the quote is not closed on this line"),
        );
        check(
            "---\nname: a\nname: b\n---\n",
            Err(":3: this was said before"),
        );
        check(
            "---\ndescription: x\n",
            Err(" has a head that does not end: a second line '---' is missing"),
        );
        assert!(front_matter("# no head").is_err());
    }
}
