//! Which single names some wildcards match.
//!
//! By character and not, as `globset` does it, by byte: there `?` is a third of
//! a character of most scripts.

use std::collections::HashSet;

/// Some wildcards for one name.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Those without a leading dot.
    plain: Wildcards,
    dotted: Wildcards,
    /// Whether a leading dot need not be written.
    hidden: bool,
}

#[derive(Debug, Default)]
struct Wildcards {
    literals: HashSet<String>,
    others: Vec<Wildcard>,
}

/// A pattern that is no literal.
#[derive(Debug)]
struct Wildcard {
    /// What every match starts and ends with: decides most names at once.
    prefix: String,
    suffix: String,
    tokens: Vec<Token>,
}

#[derive(Debug, PartialEq)]
enum Token {
    Literal(char),
    /// `?`
    One,
    /// `*`
    Any,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Names {
    pub(super) fn new(hidden: bool) -> Self {
        Self {
            hidden,
            ..Self::default()
        }
    }

    /// Adds a pattern, or says why it is none.
    pub(super) fn add(&mut self, pattern: &str) -> Result<(), &'static str> {
        let tokens = parse(pattern)?;
        let set = match tokens.first() {
            Some(Token::Literal('.')) => &mut self.dotted,
            _ => &mut self.plain,
        };
        let literal = |token: &Token| match token {
            Token::Literal(character) => Some(*character),
            Token::One | Token::Any | Token::Class { .. } => None,
        };
        if let Some(name) = tokens.iter().map(literal).collect() {
            set.literals.insert(name);
            return Ok(());
        }
        let suffix: Vec<_> = tokens.iter().rev().map_while(literal).collect();
        set.others.push(Wildcard {
            prefix: tokens.iter().map_while(literal).collect(),
            suffix: suffix.into_iter().rev().collect(),
            tokens,
        });
        Ok(())
    }

    pub(super) fn contain(&self, name: &str) -> bool {
        let plain = self.hidden || !name.starts_with('.');
        (plain && self.plain.contain(name)) || self.dotted.contain(name)
    }
}

impl Wildcards {
    fn contain(&self, name: &str) -> bool {
        self.literals.contains(name) || self.others.iter().any(|wildcard| wildcard.matches(name))
    }
}

impl Wildcard {
    fn matches(&self, name: &str) -> bool {
        name.starts_with(&self.prefix) && name.ends_with(&self.suffix) && self.matches_all(name)
    }

    /// Only the last `*` is ever tried again: what an earlier one could take
    /// instead, the last can as well. That bounds the work by the product of
    /// both lengths.
    fn matches_all(&self, name: &str) -> bool {
        let mut rest = name.chars();
        let mut next = 0;
        let mut retry = None;
        loop {
            let token = self.tokens.get(next);
            if let Some(Token::Any) = token {
                next += 1;
                if next == self.tokens.len() {
                    return true;
                }
                retry = Some((next, rest.clone()));
                continue;
            }
            match (token, rest.next()) {
                (None, None) => return true,
                (Some(token), Some(character)) if token.matches(character) => next += 1,
                // Whatever the last star takes, there is too little left.
                (Some(_), None) => return false,
                _ => {
                    let Some((token, from)) = &mut retry else {
                        return false;
                    };
                    if from.next().is_none() {
                        return false;
                    }
                    next = *token;
                    rest = from.clone();
                }
            }
        }
    }
}

impl Token {
    fn matches(&self, character: char) -> bool {
        match self {
            Self::Literal(literal) => *literal == character,
            Self::One | Self::Any => true,
            Self::Class { negated, ranges } => {
                let within = |&(first, last): &(char, char)| (first..=last).contains(&character);
                ranges.iter().any(within) != *negated
            }
        }
    }
}

fn parse(pattern: &str) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut rest = pattern;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        tokens.push(match character {
            '*' if tokens.last() == Some(&Token::Any) => continue,
            '*' => Token::Any,
            '?' => Token::One,
            '[' => {
                let (class, after) = parse_class(rest)?;
                rest = after;
                class
            }
            '\\' => {
                let escaped = rest.chars().next();
                let escaped = escaped.ok_or("there is nothing after the '\\' at its end")?;
                rest = &rest[escaped.len_utf8()..];
                Token::Literal(escaped)
            }
            literal => Token::Literal(literal),
        });
    }
    Ok(tokens)
}

/// Parses what follows a `[`. A `]` or `-` in the first place stands for itself,
/// and so does a `-` in the last.
fn parse_class(text: &str) -> Result<(Token, &str), &'static str> {
    let body = text.strip_prefix(['!', '^']).unwrap_or(text);
    let negated = body.len() < text.len();
    let first = usize::from(body.starts_with(']'));
    let end = body[first..].find(']').ok_or("a '[' is not closed")? + first;
    let characters: Vec<_> = body[..end].chars().collect();
    let mut ranges = Vec::new();
    let mut rest = characters.as_slice();
    loop {
        rest = match *rest {
            [] => break,
            [first, '-', last, ref rest @ ..] => {
                if first > last {
                    return Err("a range in it ends before it starts");
                }
                ranges.push((first, last));
                rest
            }
            [character, ref rest @ ..] => {
                ranges.push((character, character));
                rest
            }
        };
    }
    Ok((Token::Class { negated, ranges }, &body[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_by_character() {
        #[track_caller]
        fn check(pattern: &str, name: &str, expected: bool) {
            let mut names = Names::new(true);
            names.add(pattern).unwrap();
            assert_eq!(names.contain(name), expected, "{pattern} {name}");
        }
        check("a", "a", true);
        check("a", "ab", false);
        check("*", "", true);
        check("*.rs", ".rs", true);
        check("*.rs", "a.rs.bak", false);
        check("a*b*c", "aXbXbXc", true);
        check("a*b*c", "aXcXb", false);
        check("*ab", "aab", true);
        check("ab*ab", "ab", false);
        check("a*?", "a", false);
        check("a*?", "ab", true);
        check("*a*a*a*a*a*a*b", &"a".repeat(255), false);
        check("ż?", "żó", true);
        check("?", "🦀", true);
        check("[ą-ż]*", "żółw", true);
        check("[!ż]", "ó", true);
        check("[^ab]", "a", false);
        check("[]a]", "]", true);
        check("[!]a]", "]", false);
        check("[a-]", "-", true);
        check("[-a]", "-", true);
        check("[a-c-e]", "d", false);
        check("\\*", "*", true);
        check("\\*", "a", false);
        check("a\nb*", "a\nbc", true);
        check("a,b", "a,b", true);
    }
}
