//! The backends there are, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use stigmer_sdk::{Backend, Error, ErrorCode, Result, SandboxId};

use crate::config::Config;

/// The names of the backends built into this binary.
#[must_use]
pub fn builtin() -> &'static [&'static str] {
    if cfg!(feature = "filesystem") {
        &["filesystem"]
    } else {
        &[]
    }
}

/// The backends of one host.
#[derive(Clone, Debug)]
pub struct Registry {
    /// What is meant when no name is given.
    pub default: String,
    pub backends: BTreeMap<String, Arc<dyn Backend>>,
    #[cfg(feature = "filesystem")]
    native: Option<Arc<stigmer_filesystem::Filesystem>>,
}

impl Registry {
    /// Opens what is built in.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no backend of the configured name, and
    /// whatever a backend says that cannot be opened.
    #[cfg_attr(
        not(feature = "filesystem"),
        expect(unused_mut, reason = "there is nothing to insert")
    )]
    pub async fn open(config: &Config) -> Result<Self> {
        let mut backends = BTreeMap::<String, Arc<dyn Backend>>::new();
        #[cfg(feature = "filesystem")]
        let native;
        #[cfg(feature = "filesystem")]
        {
            let filesystem = stigmer_filesystem::Filesystem::open(stigmer_filesystem::Config {
                data_dir: config.data_dir.clone(),
                launcher: this_program()?,
                env: inherited_env(),
            });
            backends.insert(
                "filesystem".to_owned(),
                Arc::clone(&filesystem) as Arc<dyn Backend>,
            );
            native = Some(filesystem);
        }
        let registry = Self {
            default: config.sandbox.clone(),
            backends,
            #[cfg(feature = "filesystem")]
            native,
        };
        registry.get(None)?;
        Ok(registry)
    }

    /// Cleans up after a host that was killed. Only for the daemon, which has
    /// the data directory to itself. For each backend that knows, the sandboxes
    /// there are.
    ///
    /// # Errors
    /// Whatever a backend says that cannot clean up.
    pub async fn recover(&self) -> Result<Vec<(String, Vec<SandboxId>)>> {
        #[cfg_attr(
            not(feature = "filesystem"),
            expect(unused_mut, reason = "there is nothing to add")
        )]
        let mut found = Vec::new();
        #[cfg(feature = "filesystem")]
        if let Some(native) = &self.native {
            found.push(("filesystem".to_owned(), native.recover().await?));
        }
        Ok(found)
    }

    /// The backend of this name; without one, the default.
    ///
    /// # Errors
    /// `InvalidArgument`, listing what there is.
    pub fn get(&self, name: Option<&str>) -> Result<Arc<dyn Backend>> {
        let name = name.unwrap_or(&self.default);
        self.backends.get(name).cloned().ok_or_else(|| {
            let there = self.backends.keys().map(String::as_str).collect::<Vec<_>>();
            let there = if there.is_empty() {
                "none".to_owned()
            } else {
                there.join(", ")
            };
            Error::new(
                ErrorCode::InvalidArgument,
                format!(
                    "there is no sandbox backend '{}'; there is: {there}",
                    name.escape_debug()
                ),
            )
        })
    }
}

/// The native backend starts its launcher from this very program.
#[cfg(feature = "filesystem")]
fn this_program() -> Result<std::path::PathBuf> {
    // The link rather than where it leads: an upgrade replaces that file, and
    // this process still is the old one.
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into());
    }
    std::env::current_exe().map_err(|error| Error::internal("cannot find this program", error))
}

/// The few harmless variables of the host's environment that commands see too.
/// They are no configuration, which is why they are not read with it.
#[cfg(feature = "filesystem")]
fn inherited_env() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| stigmer_filesystem::INHERITED_VARIABLES.contains(&name.as_str()))
        .collect()
}

#[cfg(test)]
impl Registry {
    /// One that holds just this.
    pub(crate) fn of(name: &str, backend: Arc<dyn Backend>) -> Self {
        Self {
            default: name.to_owned(),
            backends: [(name.to_owned(), backend)].into(),
            #[cfg(feature = "filesystem")]
            native: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_backend_is_answered_with_those_there_are() {
        let backend = Arc::new(crate::sandboxes::fake::FakeBackend::default());
        let registry = Registry::of("fake", backend);
        assert!(registry.get(None).is_ok());
        let error = registry.get(Some("a\nb")).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert_eq!(
            error.message(),
            "there is no sandbox backend 'a\\nb'; there is: fake"
        );
    }
}
