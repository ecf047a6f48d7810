//! The pure function from what was typed and set to what it means.

use std::path::{Path, PathBuf};

use super::lookup::{Resolver, absolute, data_dir, did_you_mean};
use super::settings::{self, ALL};
use super::{
    Config, ConfigFile, Daytona, Entry, Env, Flags, Limits, LogFormat, Mode, Problem, Redis, Row,
    Secret, Source, values,
};

/// The backends that ship with Stigmer. One that is missing from a build is
/// not a misspelling.
const SHIPPED: [&str; 3] = ["filesystem", "wasi", "daytona"];

/// What local mode sends, and accepts from this user only.
pub(crate) const LOCAL_KEY: &str = "dummy-local-key";

/// Everything a configuration is made of.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Which command asks.
    pub entry: Entry,
    /// What was typed.
    pub flags: &'a Flags,
    /// What was set.
    pub env: &'a Env,
    /// What is in the data directory.
    pub file: Option<&'a ConfigFile>,
    /// Where relative paths start.
    pub cwd: &'a Path,
    /// The names `SANDBOX_TYPE` may have.
    pub backends: &'a [&'a str],
}

/// What all of it means, or every problem there is.
///
/// # Errors
/// At least one problem, those of unknown names last.
pub fn resolve(inputs: Inputs<'_>) -> Result<Config, Vec<Problem>> {
    let mut resolver = Resolver {
        inputs,
        rows: Vec::with_capacity(ALL.len()),
        problems: Vec::new(),
    };
    let config = resolver.config();
    resolver.unknown_names();
    match config {
        Some(mut config) if resolver.problems.is_empty() => {
            let place = |row: &Row| ALL.iter().position(|s| s.variable == row.name);
            resolver.rows.sort_by_key(place);
            config.sources = resolver.rows;
            config.sources.extend(config.agents.row(inputs.file));
            Ok(config)
        }
        _ => Err(resolver.problems),
    }
}

impl Resolver<'_> {
    /// Goes through all settings, also after a problem. `None` if one of them
    /// leaves nothing to go on with.
    fn config(&mut self) -> Option<Config> {
        let inputs = self.inputs;
        let data_dir = match data_dir(inputs.flags, inputs.env, inputs.cwd) {
            Ok((path, source)) => {
                self.row(&settings::DATA_DIR, path.display().to_string(), source);
                Some(path)
            }
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        };

        // Without a mode, what depends on it is not judged.
        let mode = self.mode();
        let port = self.value(&settings::PORT, 50051, values::port, u16::to_string);
        let sandbox = self.sandbox(mode);
        let root = self.root(mode);
        let (log_level, log_format) = (
            self.value(
                &settings::LOG_LEVEL,
                "info".to_owned(),
                values::log_level,
                String::clone,
            ),
            self.value(
                &settings::LOG_FORMAT,
                LogFormat::Text,
                values::log_format,
                |format| match format {
                    LogFormat::Text => "text".to_owned(),
                    LogFormat::Json => "json".to_owned(),
                },
            ),
        );
        let metrics = self.value(&settings::METRICS, None, values::metrics, |address| {
            address.map_or_else(|| "off".to_owned(), |address| address.to_string())
        });
        let limits = self.limits();
        let deny_env = self.value(&settings::DENY_ENV, Vec::new(), values::patterns, |names| {
            names.join(",")
        });
        let cwd = inputs.cwd;
        let agent_runner = self.optional(&settings::AGENT_RUNNER_SCRIPT, |path| {
            Ok(absolute(cwd, Path::new(path)).display().to_string())
        });
        let llm = self.llm();
        let agents = self.agents();
        let daytona = Daytona {
            api_key: self.secret(&settings::DAYTONA_API_KEY),
            api_url: self.optional(&settings::DAYTONA_API_URL, values::url),
            snapshot: self.optional(&settings::DAYTONA_DEV_TOOLS_SNAPSHOT_ID, |id| {
                Ok(id.to_owned())
            }),
        };

        let mode = mode?;
        let endpoint = self.endpoint(mode, port);
        let api_key = self.api_key(mode);
        let redis = self.redis(mode);
        if mode == Mode::Cloud {
            self.demand_of_cloud(sandbox.as_deref());
        }
        let (endpoint, endpoint_is_default) = endpoint?;
        Some(Config {
            mode,
            sandbox: sandbox?,
            root,
            data_dir: data_dir?,
            endpoint,
            endpoint_is_default,
            port,
            api_key: api_key?,
            log_level,
            log_format,
            metrics,
            limits,
            deny_env,
            redis,
            daytona,
            llm,
            agents,
            agent_runner: agent_runner.map(PathBuf::from),
            sources: Vec::new(),
        })
    }

    fn mode(&mut self) -> Option<Mode> {
        let setting = &settings::MODE;
        let default = match self.inputs.entry {
            Entry::Daemon | Entry::Runner => Mode::Cloud,
            Entry::Local => Mode::Local,
        };
        let parse = |value: &str| {
            [Mode::Local, Mode::Cloud]
                .into_iter()
                .find(|mode| mode.as_str() == value)
                .ok_or_else(|| {
                    let meant = did_you_mean(value, &["local", "cloud"]);
                    format!("a mode is local or cloud{meant}")
                })
        };
        let (mode, source) = match self.parsed(setting, parse) {
            Some(parsed) => parsed,
            None if self.is_set(setting) => return None,
            None => (default, Source::Default),
        };
        self.row(setting, mode.to_string(), source);
        Some(mode)
    }

    fn sandbox(&mut self, mode: Option<Mode>) -> Option<String> {
        let setting = &settings::SANDBOX_TYPE;
        let judged = self.inputs.entry != Entry::Runner;
        let there_are = match self.inputs.backends {
            [] => "this build has no backend at all".to_owned(),
            backends => format!("this build has {}", backends.join(", ")),
        };
        let Some(given) = self.given(setting) else {
            // What was written and cannot count is reported; only of what was
            // not, the default is judged.
            let mode = mode.filter(|_| !self.is_set(setting))?;
            let default = match mode {
                Mode::Local => "filesystem",
                Mode::Cloud => "daytona",
            };
            if judged && !self.inputs.backends.contains(&default) {
                self.problems.push(Problem(format!(
                    "{} defaults to '{default}' in {mode} mode, which is not in this build: {there_are}",
                    setting.variable
                )));
                return Some(default.to_owned());
            }
            self.row(setting, default.to_owned(), Source::Default);
            return Some(default.to_owned());
        };
        let name = given.value.as_str();
        if mode == Some(Mode::Cloud) && ["filesystem", "wasi"].contains(&name) {
            self.wrong(
                setting,
                &given,
                "this backend belongs to MODE=local, and the mode is cloud: use daytona or an installed plugin, or set MODE=local",
            );
        } else if judged && !self.inputs.backends.contains(&name) {
            let problem = if SHIPPED.contains(&name) {
                format!("this backend is not in this build: {there_are}")
            } else {
                let meant = did_you_mean(name, self.inputs.backends);
                format!("there is no such backend: {there_are}{meant}")
            };
            self.wrong(setting, &given, &problem);
        } else {
            self.row(setting, name.to_owned(), given.source);
        }
        Some(given.value)
    }

    fn root(&mut self, mode: Option<Mode>) -> PathBuf {
        let setting = &settings::SANDBOX_ROOT_DIR;
        if mode == Some(Mode::Cloud) {
            self.row(setting, String::new(), Source::Unread(Mode::Cloud));
            return absolute(self.inputs.cwd, Path::new("workspace"));
        }
        let set_to_nothing = self.inputs.flags.root.is_none()
            && self
                .inputs
                .env
                .get(setting.variable)
                .is_some_and(String::is_empty);
        if set_to_nothing {
            self.problems.push(Problem(format!(
                "{} is empty: name a directory, or unset it for ./workspace",
                setting.variable
            )));
        }
        let cwd = self.inputs.cwd;
        self.value(
            setting,
            absolute(cwd, Path::new("workspace")),
            |path| Ok(absolute(cwd, Path::new(path))),
            |path| path.display().to_string(),
        )
    }

    fn limits(&mut self) -> Limits {
        let show = |limit: &std::time::Duration| humantime::format_duration(*limit).to_string();
        let defaults = Limits::default();
        let max_timeout = self.value(
            &settings::MAX_TIMEOUT,
            defaults.max_timeout,
            values::duration,
            show,
        );
        // A lower maximum alone is no contradiction: it lowers the default too.
        let default_timeout = self.value(
            &settings::DEFAULT_TIMEOUT,
            defaults.default_timeout.min(max_timeout),
            values::duration,
            show,
        );
        if default_timeout > max_timeout {
            self.problems.push(Problem(format!(
                "{} is {}, which is more than {}, {}",
                settings::DEFAULT_TIMEOUT.variable,
                show(&default_timeout),
                settings::MAX_TIMEOUT.variable,
                show(&max_timeout),
            )));
        }
        Limits {
            default_timeout,
            max_timeout,
            ..defaults
        }
    }

    /// The endpoint, and whether nobody set it.
    fn endpoint(&mut self, mode: Mode, port: u16) -> Option<(String, bool)> {
        let setting = &settings::BACKEND_ENDPOINT;
        if mode == Mode::Cloud {
            let endpoint = self.optional(setting, values::endpoint);
            return endpoint.map(|endpoint| (endpoint, false));
        }
        let default = !self.is_set(setting);
        let daemon = format!("localhost:{port}");
        let endpoint = self.value(setting, daemon, values::endpoint, String::clone);
        Some((endpoint, default))
    }

    fn api_key(&mut self, mode: Mode) -> Option<Secret> {
        let setting = &settings::API_KEY;
        if mode == Mode::Local && !self.is_set(setting) {
            self.row(setting, LOCAL_KEY.to_owned(), Source::Default);
            return Some(Secret::new(LOCAL_KEY));
        }
        let key = self.secret(setting);
        if mode == Mode::Cloud && key.as_ref().is_some_and(|key| key.expose() == LOCAL_KEY) {
            self.problems.push(Problem(format!(
                "{} is the key of local mode, which everybody knows: cloud mode needs one of your own",
                setting.variable
            )));
        }
        key
    }

    fn redis(&mut self, mode: Mode) -> Option<Redis> {
        let all = [
            &settings::REDIS_HOST,
            &settings::REDIS_PORT,
            &settings::REDIS_PASSWORD,
        ];
        match mode {
            Mode::Local => {
                for setting in all {
                    self.row(setting, String::new(), Source::Unread(Mode::Local));
                }
                None
            }
            Mode::Cloud => Some(Redis {
                host: self.value(
                    &settings::REDIS_HOST,
                    "localhost".to_owned(),
                    values::host,
                    String::clone,
                ),
                port: self.value(
                    &settings::REDIS_PORT,
                    6379,
                    values::remote_port,
                    u16::to_string,
                ),
                password: self.secret(&settings::REDIS_PASSWORD),
            }),
        }
    }

    /// Names everything that cloud mode cannot do without and nobody set.
    fn demand_of_cloud(&mut self, sandbox: Option<&str>) {
        let mut needed = vec![&settings::BACKEND_ENDPOINT, &settings::API_KEY];
        if sandbox == Some("daytona") && self.inputs.entry != Entry::Runner {
            needed.push(&settings::DAYTONA_API_KEY);
        }
        let missing: Vec<_> = needed
            .into_iter()
            .filter(|setting| !self.is_set(setting))
            .collect();
        for setting in &missing {
            self.problems.push(Problem(format!(
                "{} is not set, and cloud mode needs it",
                setting.variable
            )));
        }
        if !missing.is_empty() && !self.is_set(&settings::MODE) {
            self.problems.push(Problem(
                "MODE is not set, which means cloud for this command: set MODE=local or --mode local to serve this machine"
                    .to_owned(),
            ));
        }
    }
}

#[cfg(test)]
#[path = "resolve_tests/mod.rs"]
mod tests;
