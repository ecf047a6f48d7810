//! What sandboxes are made from: each part of it is held to, or refused.

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use futures_util::future::try_join_all;

use super::Case;
use super::check::{Verdict, equal, fail, refused};
use super::run::Context;
use crate::{ErrorCode, Feature, Limits, Network, SandboxSpec};

pub(super) const CASES: &[Case] = cases! { create, Core;
    /// Eight sandboxes created at once are eight sandboxes.
    many_at_once;
    /// Options that the backend does not know, or that are no JSON object, are refused.
    refuses_unknown_options [InvalidArgument];
    /// Every limit is either enforced or refused as unsupported.
    limits_are_kept_or_refused [Unsupported];
    /// A network that commands can be held to is declared, and any other refused as unsupported.
    networks_are_kept_or_refused [Unsupported];
    /// A command may run as another user exactly if that is declared.
    users_are_declared_or_refused [Unsupported];
};

async fn many_at_once(cx: &Context) -> Verdict {
    let sandboxes = try_join_all((0..8).map(|_| cx.sandbox())).await?;
    let ids: BTreeSet<_> = sandboxes
        .iter()
        .map(|sandbox| sandbox.sandbox.info().id.clone())
        .collect();
    equal("different ids among eight sandboxes", ids.len(), 8)?;
    try_join_all(sandboxes.iter().map(|sandbox| sandbox.stat("."))).await?;
    Ok(())
}

async fn refuses_unknown_options(cx: &Context) -> Verdict {
    for options in [r#"{"no-backend-has-this-option": 1}"#, "{", "[]"] {
        let spec = SandboxSpec {
            options: options.to_owned(),
            ..cx.template()
        };
        refused(
            format!("create a sandbox with the options {options}"),
            cx.try_create(spec).await,
            ErrorCode::InvalidArgument,
        )?;
    }
    Ok(())
}

/// A sandbox from this spec runs a command, or is refused as unsupported;
/// which of the two may be known.
async fn kept_or_refused(
    cx: &Context,
    what: &str,
    spec: SandboxSpec,
    supported: Option<bool>,
) -> Verdict {
    match cx.try_create(spec).await {
        Ok(sandbox) if supported != Some(false) => {
            sandbox.stat(".").await?;
            if !sandbox.sandbox.info().shell.is_empty() {
                sandbox.sh(":").await?;
            }
            Ok(())
        }
        Ok(_) => fail(
            format!("create a sandbox with {what}, which is not declared"),
            "error unsupported",
            "success",
        ),
        Err(error) if error.code() == ErrorCode::Unsupported && supported != Some(true) => Ok(()),
        Err(error) => {
            let expected = match supported {
                Some(true) => "success",
                Some(false) => "error unsupported",
                None => "success or error unsupported",
            };
            fail(
                format!("create a sandbox with {what}"),
                expected,
                format!("error {}: {error}", error.code()),
            )
        }
    }
}

async fn limits_are_kept_or_refused(cx: &Context) -> Verdict {
    let hour = Some(Duration::from_secs(3600));
    let none = Limits::default;
    // Roomy: whether a limit bites is not portable, whether it is taken is.
    let limits = [
        (
            "a processor",
            Limits {
                cpu_millis: NonZeroU32::new(1000),
                ..none()
            },
        ),
        (
            "4 GiB of memory",
            Limits {
                memory_bytes: NonZeroU64::new(4 << 30),
                ..none()
            },
        ),
        (
            "4 GiB of disk",
            Limits {
                disk_bytes: NonZeroU64::new(4 << 30),
                ..none()
            },
        ),
        (
            "4,096 processes",
            Limits {
                processes: NonZeroU32::new(4096),
                ..none()
            },
        ),
        (
            "an hour to live",
            Limits {
                lifetime: hour,
                ..none()
            },
        ),
        (
            "an hour to idle",
            Limits {
                idle: hour,
                ..none()
            },
        ),
    ];
    for (what, limits) in limits {
        let spec = SandboxSpec {
            limits,
            ..cx.template()
        };
        kept_or_refused(cx, &format!("a limit of {what}"), spec, None).await?;
    }
    Ok(())
}

async fn networks_are_kept_or_refused(cx: &Context) -> Verdict {
    let networks = [
        (
            "no network",
            Network::None,
            Some(cx.has(Feature::NetworkNone)),
        ),
        (
            "a list of hosts",
            Network::Hosts(vec!["example.org".to_owned()]),
            Some(cx.has(Feature::NetworkHosts)),
        ),
        ("an unrestricted network", Network::Unrestricted, None),
    ];
    for (what, network, supported) in networks {
        let spec = SandboxSpec {
            network: Some(network),
            ..cx.template()
        };
        kept_or_refused(cx, what, spec, supported).await?;
    }
    Ok(())
}

async fn users_are_declared_or_refused(cx: &Context) -> Verdict {
    let sandbox = cx.sandbox().await?;
    let command = sandbox.shell("id -u")?;
    if !cx.has(Feature::Users) {
        let command = command.user("0");
        return refused(
            "run as a user, which is not declared",
            sandbox.try_run(command).await,
            ErrorCode::Unsupported,
        );
    }
    // The one user that surely exists is the one that commands run as.
    let own = sandbox.run(command.clone()).await?.text();
    let named = sandbox.run(command.user(&own)).await?.text();
    equal(
        "the user of a command that runs as its own user",
        named,
        own,
    )
}
