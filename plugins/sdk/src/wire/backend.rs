//! What a backend says of itself, and what a sandbox is made from.

use std::collections::{BTreeMap, HashMap};
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use super::sandbox::network::{Hosts, None as NoNetwork, Policy, Unrestricted};
use super::{at, invalid, named, required, sandbox};
use crate::{
    Description, EnvName, EnvValue, Error, Feature, Isolation, Limits, Network, Result, SandboxId,
    SandboxInfo, SandboxPath, SandboxSpec,
};

impl From<Feature> for sandbox::Feature {
    fn from(feature: Feature) -> Self {
        match feature {
            Feature::Terminal => Self::Terminal,
            Feature::Users => Self::Users,
            Feature::NetworkNone => Self::NetworkNone,
            Feature::NetworkHosts => Self::NetworkHosts,
            Feature::Search => Self::Search,
            Feature::Snapshots => Self::Snapshots,
            Feature::KillGuarantee => Self::KillGuarantee,
        }
    }
}

impl TryFrom<sandbox::Feature> for Feature {
    type Error = Error;

    fn try_from(feature: sandbox::Feature) -> Result<Self> {
        Ok(match feature {
            sandbox::Feature::Unspecified => return Err(invalid("feature", "is missing")),
            sandbox::Feature::Terminal => Self::Terminal,
            sandbox::Feature::Users => Self::Users,
            sandbox::Feature::NetworkNone => Self::NetworkNone,
            sandbox::Feature::NetworkHosts => Self::NetworkHosts,
            sandbox::Feature::Search => Self::Search,
            sandbox::Feature::Snapshots => Self::Snapshots,
            sandbox::Feature::KillGuarantee => Self::KillGuarantee,
        })
    }
}

impl From<Isolation> for sandbox::Isolation {
    fn from(isolation: Isolation) -> Self {
        match isolation {
            Isolation::None => Self::None,
            Isolation::Workspace => Self::Workspace,
            Isolation::Strict => Self::Strict,
        }
    }
}

impl TryFrom<sandbox::Isolation> for Isolation {
    type Error = Error;

    fn try_from(isolation: sandbox::Isolation) -> Result<Self> {
        Ok(match isolation {
            // Absence is not guessed: whoever reads it decides what is safe to run.
            sandbox::Isolation::Unspecified => return Err(invalid("isolation", "is missing")),
            sandbox::Isolation::None => Self::None,
            sandbox::Isolation::Workspace => Self::Workspace,
            sandbox::Isolation::Strict => Self::Strict,
        })
    }
}

impl From<Description> for sandbox::DescribeResponse {
    fn from(description: Description) -> Self {
        Self {
            name: description.name,
            version: description.version,
            features: description
                .features
                .into_iter()
                .map(|feature| sandbox::Feature::from(feature).into())
                .collect(),
            isolation: sandbox::Isolation::from(description.isolation).into(),
            notice: description.notice,
        }
    }
}

impl TryFrom<sandbox::DescribeResponse> for Description {
    type Error = Error;

    fn try_from(wire: sandbox::DescribeResponse) -> Result<Self> {
        let mut letters = wire.name.bytes();
        let well_formed = letters.next().is_some_and(|byte| byte.is_ascii_lowercase())
            && letters.all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if !well_formed {
            return Err(invalid(
                "name",
                format_args!(
                    "'{}' is not of the form [a-z][a-z0-9-]*",
                    wire.name.escape_debug()
                ),
            ));
        }
        Ok(Self {
            name: wire.name,
            version: wire.version,
            // A feature that this version does not know is one it never asks for.
            features: wire
                .features
                .into_iter()
                .filter_map(|number| sandbox::Feature::try_from(number).ok())
                .filter_map(|feature| Feature::try_from(feature).ok())
                .collect(),
            isolation: named::<sandbox::Isolation>("isolation", wire.isolation)?.try_into()?,
            notice: wire.notice,
        })
    }
}

impl From<Limits> for sandbox::Limits {
    fn from(limits: Limits) -> Self {
        Self {
            cpu_millis: limits.cpu_millis.map(NonZeroU32::get),
            memory_bytes: limits.memory_bytes.map(NonZeroU64::get),
            disk_bytes: limits.disk_bytes.map(NonZeroU64::get),
            processes: limits.processes.map(NonZeroU32::get),
            lifetime_ms: limits.lifetime.map(millis),
            idle_ms: limits.idle.map(millis),
        }
    }
}

impl TryFrom<sandbox::Limits> for Limits {
    type Error = Error;

    fn try_from(wire: sandbox::Limits) -> Result<Self> {
        fn positive<T, N: TryFrom<T>>(field: &str, value: Option<T>) -> Result<Option<N>> {
            value
                .map(|value| N::try_from(value).map_err(|_| invalid(field, "must be above 0")))
                .transpose()
        }
        Ok(Self {
            cpu_millis: positive("limits.cpu_millis", wire.cpu_millis)?,
            memory_bytes: positive("limits.memory_bytes", wire.memory_bytes)?,
            disk_bytes: positive("limits.disk_bytes", wire.disk_bytes)?,
            processes: positive("limits.processes", wire.processes)?,
            lifetime: positive::<_, NonZeroU64>("limits.lifetime_ms", wire.lifetime_ms)?
                .map(|ms| Duration::from_millis(ms.get())),
            idle: positive::<_, NonZeroU64>("limits.idle_ms", wire.idle_ms)?
                .map(|ms| Duration::from_millis(ms.get())),
        })
    }
}

/// Whole milliseconds, of which a `u64` holds 584 million years.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<Network> for sandbox::Network {
    fn from(network: Network) -> Self {
        let policy = match network {
            Network::None => Policy::None(NoNetwork {}),
            Network::Hosts(hosts) => Policy::Hosts(Hosts { hosts }),
            Network::Unrestricted => Policy::Unrestricted(Unrestricted {}),
        };
        Self {
            policy: Some(policy),
        }
    }
}

impl TryFrom<sandbox::Network> for Network {
    type Error = Error;

    fn try_from(wire: sandbox::Network) -> Result<Self> {
        Ok(match required("network.policy", wire.policy)? {
            Policy::None(NoNetwork {}) => Self::None,
            Policy::Hosts(Hosts { hosts }) => Self::Hosts(hosts),
            Policy::Unrestricted(Unrestricted {}) => Self::Unrestricted,
        })
    }
}

pub(super) fn env_out(env: BTreeMap<EnvName, EnvValue>) -> HashMap<String, String> {
    env.into_iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_str().to_owned()))
        .collect()
}

impl From<SandboxSpec> for sandbox::SandboxSpec {
    fn from(spec: SandboxSpec) -> Self {
        Self {
            source: spec.source,
            env: env_out(spec.env),
            limits: Some(spec.limits.into()),
            network: spec.network.map(Into::into),
            labels: spec.labels.into_iter().collect(),
            options: spec.options,
        }
    }
}

impl TryFrom<sandbox::SandboxSpec> for SandboxSpec {
    type Error = Error;

    fn try_from(wire: sandbox::SandboxSpec) -> Result<Self> {
        let env = wire
            .env
            .into_iter()
            .map(|(name, value)| {
                Ok((
                    EnvName::new(name).map_err(at("env"))?,
                    EnvValue::new(value).map_err(at("env"))?,
                ))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            source: wire.source,
            env,
            limits: wire
                .limits
                .map(Limits::try_from)
                .transpose()?
                .unwrap_or_default(),
            network: wire.network.map(Network::try_from).transpose()?,
            labels: wire.labels.into_iter().collect(),
            // proto3 cannot tell an empty string from one that was not given.
            options: if wire.options.is_empty() {
                "{}".to_owned()
            } else {
                wire.options
            },
        })
    }
}

impl From<SandboxInfo> for sandbox::SandboxInfo {
    fn from(info: SandboxInfo) -> Self {
        Self {
            sandbox_id: info.id.as_str().to_owned(),
            workspace: info.workspace.as_str().to_owned(),
            shell: info.shell,
        }
    }
}

impl TryFrom<sandbox::SandboxInfo> for SandboxInfo {
    type Error = Error;

    fn try_from(wire: sandbox::SandboxInfo) -> Result<Self> {
        let workspace = SandboxPath::new(wire.workspace).map_err(at("workspace"))?;
        if !workspace.is_absolute() {
            return Err(invalid(
                "workspace",
                format_args!("'{workspace}' is not absolute"),
            ));
        }
        Ok(Self {
            id: SandboxId::new(wire.sandbox_id).map_err(at("sandbox_id"))?,
            workspace,
            shell: wire.shell,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    #[test]
    fn features_and_isolations_survive_the_trip() {
        for feature in Feature::ALL {
            assert_eq!(
                Feature::try_from(sandbox::Feature::from(feature)).unwrap(),
                feature
            );
        }
        for isolation in [Isolation::None, Isolation::Workspace, Isolation::Strict] {
            assert_eq!(
                Isolation::try_from(sandbox::Isolation::from(isolation)).unwrap(),
                isolation
            );
        }
    }

    #[test]
    fn a_description_survives_the_trip() {
        let description = Description {
            name: "filesystem-2".to_owned(),
            version: "1.2.3".to_owned(),
            features: Feature::ALL.into_iter().collect(),
            isolation: Isolation::Workspace,
            notice: "it is a test".to_owned(),
        };
        let mut wire = sandbox::DescribeResponse::from(description.clone());
        wire.features.push(99);
        assert_eq!(Description::try_from(wire).unwrap(), description);
    }

    #[test]
    fn a_spec_survives_the_trip() {
        #[track_caller]
        fn check(spec: SandboxSpec) {
            let wire = sandbox::SandboxSpec::from(spec.clone());
            assert_eq!(SandboxSpec::try_from(wire).unwrap(), spec);
        }
        check(SandboxSpec::default());
        for network in [
            Network::None,
            Network::Unrestricted,
            Network::Hosts(vec!["a:1".to_owned()]),
        ] {
            check(SandboxSpec {
                source: Some("image".to_owned()),
                env: [(EnvName::new("A").unwrap(), EnvValue::new("b").unwrap())].into(),
                limits: Limits {
                    cpu_millis: NonZeroU32::new(1),
                    memory_bytes: NonZeroU64::new(2),
                    disk_bytes: NonZeroU64::new(3),
                    processes: NonZeroU32::new(4),
                    lifetime: Some(Duration::from_millis(5)),
                    idle: Some(Duration::from_millis(6)),
                },
                network: Some(network),
                labels: [("k".to_owned(), "v".to_owned())].into(),
                options: r#"{"a":1}"#.to_owned(),
            });
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_field() {
        #[track_caller]
        fn check<T: std::fmt::Debug>(result: Result<T>, field: &str) {
            let error = result.unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidArgument, "{error}");
            assert!(error.message().contains(field), "{error}");
        }
        let spec = |wire| SandboxSpec::try_from(wire);
        let limits = sandbox::Limits {
            memory_bytes: Some(0),
            ..Default::default()
        };
        check(
            spec(sandbox::SandboxSpec {
                limits: Some(limits),
                ..Default::default()
            }),
            "limits.memory_bytes",
        );
        let network = sandbox::Network { policy: None };
        check(
            spec(sandbox::SandboxSpec {
                network: Some(network),
                ..Default::default()
            }),
            "network.policy",
        );
        let env = [("A=".to_owned(), String::new())].into();
        check(
            spec(sandbox::SandboxSpec {
                env,
                ..Default::default()
            }),
            "env",
        );
        let describe = |name: &str, isolation| {
            Description::try_from(sandbox::DescribeResponse {
                name: name.to_owned(),
                isolation,
                ..Default::default()
            })
        };
        check(describe("Upper", 1), "name");
        check(describe("", 1), "name");
        check(describe("a", 0), "isolation");
        check(describe("a", 77), "isolation");
        let info = |id: &str, workspace: &str| {
            SandboxInfo::try_from(sandbox::SandboxInfo {
                sandbox_id: id.to_owned(),
                workspace: workspace.to_owned(),
                shell: Vec::new(),
            })
        };
        check(info("", "/w"), "sandbox_id");
        check(info("a", "w"), "workspace");
        let sound = info("a", "/w").unwrap();
        assert_eq!(
            SandboxInfo::try_from(sandbox::SandboxInfo::from(sound.clone())).unwrap(),
            sound
        );
    }
}
