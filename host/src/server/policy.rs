//! The operator's word on agents, as runners are told it.

use std::time::Duration;

use stigmer_sdk::wire::agent as pb;

use crate::agents::Policy;
use crate::config::{Answer, ApprovalRule, Approve, Config, Mode};

/// What a configuration says. On the wire, a bound of 0 is none.
pub(super) fn of(config: &Config) -> Policy {
    let agents = &config.agents;
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Policy {
        limits: pb::ExecutionLimits {
            max_turns: Some(agents.max_turns.unwrap_or(0)),
            max_tokens: Some(agents.max_tokens.unwrap_or(0)),
            timeout_ms: Some(agents.execution_timeout.map_or(0, millis)),
            max_cost_microusd: Some(agents.max_cost_microusd.unwrap_or(0)),
        },
        approvals: pb::Approvals {
            mode: match agents.approve {
                Approve::Never => pb::approvals::Mode::Never,
                Approve::Ask => pb::approvals::Mode::Ask,
                Approve::Always => pb::approvals::Mode::Always,
            }
            .into(),
            rules: agents.approvals.iter().map(rule).collect(),
        },
        workspace: (config.mode == Mode::Local).then(|| config.root.clone()),
    }
}

fn rule(rule: &ApprovalRule) -> pb::ApprovalRule {
    use pb::approval_rule::Answer as Wire;

    pb::ApprovalRule {
        tool: rule.tool.clone().unwrap_or_default(),
        pattern: rule.pattern.clone().unwrap_or_default(),
        answer: match rule.answer {
            Answer::Allow => Wire::Allow,
            Answer::Ask => Wire::Ask,
            Answer::Deny => Wire::Deny,
        }
        .into(),
    }
}
