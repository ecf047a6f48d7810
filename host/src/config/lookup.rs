//! Finding what somebody wrote for one setting, by precedence, and keeping
//! account of it: a row for what it means, or a problem.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::settings::{self, ALL, Setting, nearest};
use super::values::{self, Parsed};
use super::{Env, Flags, Inputs, Problem, Row, Secret, Source};

/// Where the data directory is, and so the config file.
///
/// # Errors
/// If nothing says.
pub(super) fn data_dir(flags: &Flags, env: &Env, cwd: &Path) -> Result<(PathBuf, Source), Problem> {
    let setting = &settings::DATA_DIR;
    let given = match (&flags.data_dir, env.get(setting.variable)) {
        (Some(path), _) => Some((path.clone(), Source::Flag("--data-dir"))),
        (None, Some(path)) if !path.is_empty() => {
            Some((path.into(), Source::Environment(setting.variable)))
        }
        (None, _) => None,
    };
    match given {
        Some((path, _)) if path.as_os_str().is_empty() => {
            Err(Problem("--data-dir is empty: name a directory".to_owned()))
        }
        Some((path, source)) => Ok((absolute(cwd, &path), source)),
        None => match env.get("HOME").filter(|home| !home.is_empty()) {
            Some(home) => Ok((cwd.join(home).join(".stigmer"), Source::Default)),
            None => Err(Problem(
                "HOME is not set, so there is no default data directory: set STIGMER_DATA_DIR or --data-dir"
                    .to_owned(),
            )),
        },
    }
}

/// `path` from `cwd`, without the `.` components that make it ugly to show.
pub(super) fn absolute(cwd: &Path, path: &Path) -> PathBuf {
    cwd.join(path).components().collect()
}

/// A value as somebody wrote it.
pub(super) struct Given {
    pub(super) value: String,
    pub(super) source: Source,
}

impl Given {
    /// The flag, variable or key, as a sentence begins with it.
    fn label(&self, setting: &Setting) -> String {
        match &self.source {
            Source::Flag(flag) => (*flag).to_owned(),
            Source::File { path, line } => {
                let key = setting.key().unwrap_or_default();
                format!("{}:{line}: {key}", path.display())
            }
            Source::Environment(_) | Source::Default | Source::Unset | Source::Unread(_) => {
                setting.variable.to_owned()
            }
        }
    }
}

/// A resolution under way.
pub(super) struct Resolver<'a> {
    pub(super) inputs: Inputs<'a>,
    /// Of the settings that were looked at so far.
    pub(super) rows: Vec<Row>,
    pub(super) problems: Vec<Problem>,
}

impl Resolver<'_> {
    pub(super) fn unknown_names(&mut self) {
        for (name, value) in self.inputs.env {
            let known = ALL.iter().any(|setting| setting.variable == name);
            if known || !name.starts_with("STIGMER_") || name == "STIGMER_SANDBOX_ID" {
                continue;
            }
            if name.starts_with("STIGMER_SERVICE_") || is_service_link(name, value) {
                continue;
            }
            let advice = if name == "STIGMER_SERVER_BIN" {
                "is not used any more: the daemon is this program itself".to_owned()
            } else {
                let ours: Vec<&str> = ALL
                    .iter()
                    .map(|setting| setting.variable)
                    .filter(|name| name.starts_with("STIGMER_"))
                    .collect();
                format!(
                    "is not a variable of Stigmer's{}; those are {}",
                    did_you_mean(name, &ours),
                    ours.join(", ")
                )
            };
            self.problems
                .push(Problem(format!("{} {advice}", name.escape_debug())));
        }
        if let Some(file) = self.inputs.file {
            self.problems.extend(file.unknown_keys());
        }
    }

    /// Whether somebody wrote something for this setting, be it nonsense.
    pub(super) fn is_set(&self, setting: &Setting) -> bool {
        !matches!(self.written(setting), Ok(None))
    }

    /// What somebody wrote for this setting, with a problem if it is nothing.
    pub(super) fn given(&mut self, setting: &Setting) -> Option<Given> {
        self.written(setting).unwrap_or_else(|problem| {
            self.problems.push(problem);
            None
        })
    }

    /// What counts for this setting by precedence.
    fn written(&self, setting: &Setting) -> Result<Option<Given>, Problem> {
        let Inputs {
            flags, env, file, ..
        } = self.inputs;
        if let Some((flag, read)) = setting.flag
            && let Some(value) = read(flags)
        {
            return match value.to_str() {
                Some("") => Err(Problem(format!(
                    "{flag} is empty: leave it out for the default"
                ))),
                Some(value) => Ok(Some(Given {
                    value: value.to_owned(),
                    source: Source::Flag(flag),
                })),
                None => Err(not_utf8(flag, value)),
            };
        }
        if let Some(value) = env.get(setting.variable)
            && !value.is_empty()
            && !is_service_link(setting.variable, value)
        {
            return Ok(Some(Given {
                value: value.clone(),
                source: Source::Environment(setting.variable),
            }));
        }
        let Some((file, key, entry)) = file.zip(setting.key()).and_then(|(file, key)| {
            let entry = file.entries.get(&key)?;
            Some((file, key, entry))
        }) else {
            return Ok(None);
        };
        let value = match &entry.value {
            toml::Value::String(value) if !value.is_empty() => value.clone(),
            toml::Value::Integer(value) => value.to_string(),
            other => {
                let what = match other {
                    toml::Value::String(_) => "empty",
                    _ => other.type_str(),
                };
                return Err(Problem(format!(
                    "{}:{}: {key} is {what}: a value is a string or a whole number, and a key without one is left out",
                    file.path.display(),
                    entry.line,
                )));
            }
        };
        Ok(Some(Given {
            value,
            source: Source::File {
                path: file.path.clone(),
                line: entry.line,
            },
        }))
    }

    /// What somebody wrote and it could be parsed as, with a problem if either fails.
    pub(super) fn parsed<T>(
        &mut self,
        setting: &Setting,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Option<(T, Source)> {
        let given = self.given(setting)?;
        match parse(&given.value) {
            Ok(value) => Some((value, given.source)),
            Err(problem) => {
                self.wrong(setting, &given, &problem);
                None
            }
        }
    }

    /// A setting that always has a value.
    pub(super) fn value<T>(
        &mut self,
        setting: &'static Setting,
        default: T,
        parse: impl Fn(&str) -> Parsed<T>,
        show: impl Fn(&T) -> String,
    ) -> T {
        let (value, source) = self
            .parsed(setting, parse)
            .unwrap_or((default, Source::Default));
        self.row(setting, show(&value), source);
        value
    }

    /// A setting that may have none.
    pub(super) fn optional(
        &mut self,
        setting: &'static Setting,
        parse: impl Fn(&str) -> Parsed<String>,
    ) -> Option<String> {
        let parsed = self.parsed(setting, parse);
        let (value, source) = match parsed {
            Some((value, source)) => (Some(value), source),
            None => (None, Source::Unset),
        };
        self.row(setting, value.clone().unwrap_or_default(), source);
        value
    }

    pub(super) fn secret(&mut self, setting: &'static Setting) -> Option<Secret> {
        let key = self.optional(setting, |value| {
            if values::is_key(value) {
                Ok(value.to_owned())
            } else {
                Err("a key has printable ASCII characters only, and no space".to_owned())
            }
        });
        key.map(Secret::new)
    }

    pub(super) fn row(&mut self, setting: &'static Setting, value: String, source: Source) {
        let masked = setting.secret && !value.is_empty();
        self.rows.push(Row {
            name: setting.variable,
            value: if masked { "***".to_owned() } else { value },
            source,
            secret: setting.secret,
        });
    }

    /// Adds the problem of a value that is written wrongly. `rule` is what
    /// is allowed.
    pub(super) fn wrong(&mut self, setting: &Setting, given: &Given, rule: &str) {
        let label = given.label(setting);
        let value = if setting.secret {
            "***".to_owned()
        } else {
            given.value.escape_debug().to_string()
        };
        self.problems
            .push(Problem(format!("{label} is '{value}': {rule}")));
    }
}

fn not_utf8(flag: &str, value: &OsStr) -> Problem {
    Problem(format!(
        "{flag} is '{}': it must be UTF-8",
        value.to_string_lossy().escape_debug()
    ))
}

/// What to add to a problem with a name that is near one of these.
pub(super) fn did_you_mean(written: &str, names: &[&str]) -> String {
    nearest(written, names.iter().copied())
        .map(|meant| format!(" (did you mean '{meant}'?)"))
        .unwrap_or_default()
}

/// Whether Kubernetes set this variable for a service of that name: for one
/// called `stigmer` or `redis` it sets `STIGMER_PORT=tcp://10.0.0.1:50051` and
/// more in every container.
fn is_service_link(name: &str, value: &str) -> bool {
    name.contains("_PORT_") || (name.ends_with("_PORT") && value.starts_with("tcp://"))
}
