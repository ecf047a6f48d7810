//! What comes before the conversation: who the model is, where it works, and
//! what it should know of that place.

use std::fmt::Write as _;

use stigmer_sdk::wire::agent::AgentSpec;

use crate::skills;

/// Who it is, if the agent does not say.
const DEFAULT_INSTRUCTIONS: &str = "You are a helpful AI assistant.";

/// Of an `AGENTS.md`; what is longer is cut, and said to be.
pub(crate) const AGENTS_MD_BYTES: usize = 32 * 1024;

/// What it works with.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) workspace: &'a str,
    /// The names of its tools.
    pub(crate) tools: &'a [&'a str],
    /// `AGENTS.md` of the workspace, if there is one.
    pub(crate) agents_md: Option<&'a str>,
}

/// The system prompt.
pub(crate) fn system(agent: &AgentSpec, place: &Place<'_>) -> String {
    let has = |tool: &str| place.tools.contains(&tool);
    let instructions = match agent.instructions.trim() {
        "" => DEFAULT_INSTRUCTIONS,
        instructions => instructions,
    };
    let mut text = format!("{instructions}\n\n# Where you work\n\n");
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    line(&format!(
        "You work in a sandbox. Its workspace is {}: commands start there, and relative paths begin there.",
        place.workspace
    ));
    line(
        "Do the work with the tools, and look at what they gave before you go on: do not guess what is in a file or what a command would print.",
    );
    line(
        "Calls of one turn run at the same time, except that those which change the same file, and commands beside changes of files, keep their order. Put what depends on a result into the next turn.",
    );
    if has("execute") {
        line(
            "A command has no terminal and nobody answers its questions: use flags such as --yes. What should go on running, such as a server, goes to the background.",
        );
    }
    if has("write_todos") {
        line("Keep a list with `write_todos` when there is more than a step or two to do.");
    }
    line(
        "A call that a person denied was not made: do not try to get around it, but ask or find another way.",
    );
    line(
        "`***` in an output stands for a secret that is not shown. Commands have the real value in their environment: refer to it as $NAME.",
    );
    line(
        "When you are done, say briefly what you did and what came of it, and do not claim what you did not see.",
    );
    if !agent.skills.is_empty() {
        text.push_str("\n# Skills\n\nWhat somebody wrote down for you. Read a skill's SKILL.md before you do what it is about.\n\n");
        for skill in &agent.skills {
            writeln!(
                text,
                "- {}: {} ({})",
                skill.name,
                skill.description.trim(),
                skills::location(&skill.name)
            )
            .expect("a string takes everything");
        }
    }
    if let Some(agents_md) = place.agents_md {
        let end = agents_md.floor_char_boundary(AGENTS_MD_BYTES);
        let cut = if end < agents_md.len() {
            "\n[cut here: the file is longer]"
        } else {
            ""
        };
        write!(
            text,
            "\n# AGENTS.md\n\nThe workspace has this file, which says how to work in it:\n\n{}{cut}\n",
            agents_md[..end].trim()
        )
        .expect("a string takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use stigmer_sdk::wire::agent::Skill;

    const PLACE: Place<'static> = Place {
        workspace: "/w",
        tools: &["execute", "write_todos"],
        agents_md: None,
    };

    #[test]
    fn it_says_who_and_where_it_is() {
        let text = system(&AgentSpec::default(), &PLACE);
        assert!(
            text.starts_with("You are a helpful AI assistant.\n"),
            "{text}"
        );
        assert!(text.contains("Its workspace is /w:") && text.contains("no terminal"));
        assert!(!text.contains("# Skills") && !text.contains("AGENTS.md"));
        let agent = AgentSpec {
            instructions: " You write Rust. \n".to_owned(),
            ..AgentSpec::default()
        };
        let text = system(
            &agent,
            &Place {
                tools: &["ls"],
                ..PLACE
            },
        );
        assert!(
            text.starts_with("You write Rust.\n") && !text.contains("no terminal"),
            "{text}"
        );
    }

    #[test]
    fn it_names_what_there_is() {
        let agent = AgentSpec {
            skills: vec![Skill {
                name: "pdf".to_owned(),
                description: "reads PDFs".to_owned(),
                files: Vec::new(),
            }],
            ..AgentSpec::default()
        };
        let long = "ż".repeat(AGENTS_MD_BYTES);
        let place = Place {
            agents_md: Some(&long),
            ..PLACE
        };
        let text = system(&agent, &place);
        assert!(
            text.contains("- pdf: reads PDFs (.stigmer/skills/pdf/SKILL.md)\n"),
            "{text}"
        );
        assert!(text.contains("[cut here: the file is longer]"));
        assert!(text.len() < AGENTS_MD_BYTES + 4000);
    }
}
