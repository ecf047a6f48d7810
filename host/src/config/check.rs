//! What only the file system can say: reads the config file, and looks at the
//! directories without changing them.

use std::io;
use std::path::Path;

use rustix::fs::{Access, access};

use super::lookup::data_dir;
use super::{Config, ConfigFile, Entry, Env, Flags, Inputs, Mode, Problem, Source, resolve};
use crate::registry;

/// Reads the config file, resolves, and looks at the directories that were
/// named; for the daemon also at those that were not, because it needs both.
/// Other commands that use the default ones call [`Config::check`].
///
/// # Errors
/// Every problem at once; but a config file that cannot be read comes alone,
/// since what is missing may be in it.
pub fn load(entry: Entry, flags: &Flags, env: &Env) -> Result<Config, Vec<Problem>> {
    let cwd = std::env::current_dir().map_err(|error| {
        vec![Problem(format!(
            "the current directory cannot be used: {error}"
        ))]
    })?;
    let mut problems = Vec::new();
    let file = match data_dir(flags, env, &cwd) {
        Ok((directory, _)) => read(&directory.join("config.toml"), &mut problems)?,
        // `resolve` reports it with the others.
        Err(_) => None,
    };
    let config = resolve(Inputs {
        entry,
        flags,
        env,
        file: file.as_ref(),
        cwd: &cwd,
        backends: registry::builtin(),
    });
    match config {
        Ok(config) => {
            let was_set = |name: &str| {
                config
                    .sources
                    .iter()
                    .any(|row| row.name == name && row.source != Source::Default)
            };
            for (setting, path, needed) in config.directories() {
                if needed && (entry == Entry::Daemon || was_set(setting)) {
                    problems.extend(unusable(setting, path));
                }
            }
            if problems.is_empty() {
                Ok(config)
            } else {
                Err(problems)
            }
        }
        Err(found) => {
            problems.extend(found);
            Err(problems)
        }
    }
}

impl Config {
    /// Looks whether the workspace and the data directory are, or can become,
    /// directories to write in.
    ///
    /// # Errors
    /// A problem for each that cannot.
    pub fn check(&self) -> Result<(), Vec<Problem>> {
        let problems: Vec<_> = self
            .directories()
            .into_iter()
            .filter(|(_, _, needed)| *needed)
            .filter_map(|(setting, path, _)| unusable(setting, path))
            .collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    /// Each directory with its variable, and whether this mode uses it.
    fn directories(&self) -> [(&'static str, &Path, bool); 2] {
        [
            ("SANDBOX_ROOT_DIR", &self.root, self.mode == Mode::Local),
            ("STIGMER_DATA_DIR", &self.data_dir, true),
        ]
    }
}

/// The file at `path`, if there is one.
fn read(path: &Path, problems: &mut Vec<Problem>) -> Result<Option<ConfigFile>, Vec<Problem>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        // A data directory that is a file is reported as that.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => {
            return Err(vec![Problem(format!(
                "the config file {} cannot be read: {error}",
                path.display()
            ))]);
        }
    };
    let file = ConfigFile::parse(path, &text).map_err(|problem| vec![problem])?;
    problems.extend(exposed(path, &file));
    Ok(Some(file))
}

/// The problem with a file that shows a secret to other users, if it does.
fn exposed(path: &Path, file: &ConfigFile) -> Option<Problem> {
    use std::os::unix::fs::PermissionsExt;

    let secrets = file.secrets();
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (!secrets.is_empty() && mode & 0o077 != 0).then(|| {
        let path = path.display();
        Problem(format!(
            "{path} holds {} and other users can read it (mode {mode:03o}): run chmod 600 {path}",
            secrets.join(", ")
        ))
    })
}

/// Why `path` cannot be a directory to write in, if it cannot: it, or the
/// nearest of its parents that exists, says.
fn unusable(setting: &str, path: &Path) -> Option<Problem> {
    let shown = path.display();
    for (steps, place) in path.ancestors().enumerate() {
        let at = place.display();
        let why = match std::fs::metadata(place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // A parent is a file: it comes next, and says so itself.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => continue,
            Err(error) => error.to_string(),
            Ok(metadata) if !metadata.is_dir() => "is not a directory".to_owned(),
            Ok(_) => match access(place, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
                Ok(()) => return None,
                Err(rustix::io::Errno::ROFS) => "is on a read-only file system".to_owned(),
                Err(_) => "cannot be read and written by this user".to_owned(),
            },
        };
        return Some(Problem(if steps == 0 {
            format!(
                "{setting} is '{shown}', which {why}: name a directory that can be read and written"
            )
        } else {
            format!("{setting} is '{shown}', which cannot be created: '{at}' {why}")
        }));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn env(home: &Path) -> Env {
        Env::from([("HOME".to_owned(), home.display().to_string())])
    }

    fn problems(result: Result<Config, Vec<Problem>>) -> String {
        let problems = result.expect_err("there is a problem");
        let lines: Vec<_> = problems.into_iter().map(|problem| problem.0).collect();
        lines.join("\n")
    }

    #[test]
    fn directories_are_looked_at_and_not_made() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("file"), "").unwrap();
        let load_with = |root: &str, data: &str| {
            let flags = Flags {
                root: Some(home.path().join(root)),
                data_dir: Some(home.path().join(data)),
                ..Flags::default()
            };
            load(Entry::Local, &flags, &env(home.path()))
        };
        let config = load_with("new/root", "new/data").unwrap();
        assert_eq!(config.root, home.path().join("new/root"));
        assert!(!home.path().join("new").exists());

        let text = problems(load_with("file", "file/data"));
        assert!(
            text.contains("SANDBOX_ROOT_DIR") && text.contains("/file', which is not a directory:"),
            "{text}"
        );
        assert!(
            text.contains("STIGMER_DATA_DIR")
                && text.contains("/file/data', which cannot be created: '")
                && text.contains("/file' is not a directory"),
            "{text}"
        );
    }

    #[test]
    fn a_directory_must_be_writable() {
        if rustix::process::geteuid().is_root() {
            return; // Root can write anywhere, and `access` says so.
        }
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("locked");
        std::fs::create_dir(&root).unwrap();
        std::fs::set_permissions(&root, PermissionsExt::from_mode(0o500)).unwrap();
        let flags = Flags {
            root: Some(root.join("below")),
            ..Flags::default()
        };
        let text = problems(load(Entry::Local, &flags, &env(home.path())));
        assert!(
            text.contains("cannot be read and written by this user"),
            "{text}"
        );
    }

    #[test]
    fn the_config_file_is_read_and_its_secrets_guarded() {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join(".stigmer");
        std::fs::create_dir(&data).unwrap();
        let path = data.join("config.toml");
        std::fs::write(&path, "port = 7\napi_key = 'hunter2'\nprot = 1\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let text = problems(load(Entry::Local, &Flags::default(), &env(home.path())));
        assert!(
            text.contains("holds api_key and other users can read it (mode 644)"),
            "{text}"
        );
        assert!(text.contains("'prot' (did you mean 'port'?)"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");

        std::fs::write(&path, "port = 7\napi_key = 'hunter2'\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let config = load(Entry::Local, &Flags::default(), &env(home.path())).unwrap();
        assert_eq!((config.port, config.api_key.expose()), (7, "hunter2"));
        assert_eq!(config.endpoint, "localhost:7");

        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let text = problems(load(Entry::Local, &Flags::default(), &env(home.path())));
        assert!(text.contains("config.toml cannot be read"), "{text}");
    }
}
