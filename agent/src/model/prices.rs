//! What models hold and what they cost.
//!
//! Standard tiers, as of November 2026 for current models: most from Anthropic's
//! and OpenAI's own pages, some from notes that quote those. Models from before
//! 2026 have the figures of LiteLLM's table of July 2026. Of a model that is not
//! in here nothing is said rather than something wrong: a name is known if it is
//! one of these, or one with a date after it. What Ollama's models cost is not
//! known.

use super::{Provider, Usage};

/// One model.
struct Figures {
    name: &'static str,
    /// Tokens that a request may have: what is smaller of the context and a
    /// limit on input alone.
    context: u64,
    /// Nanodollars a token: what is published as dollars a million, times 1000.
    input: u64,
    output: u64,
    cache_read: u64,
    /// For five minutes, or what comes next to it.
    cache_write: u64,
    long: Option<&'static Long>,
}

/// A dearer tariff for the whole of a request with much input.
struct Long {
    /// Tokens of input, cached ones included, up to which it does not apply.
    above: u64,
    /// Times ten.
    input_tenths: u64,
    output_tenths: u64,
}

const LONG_HAIKU: Long = Long {
    above: 100_000,
    input_tenths: 50,
    output_tenths: 50,
};

const LONG_GPT: Long = Long {
    above: 272_000,
    input_tenths: 20,
    output_tenths: 15,
};

/// Prices in thousandths of a dollar a million tokens: input, output, read from
/// the cache, written to it.
const fn model(name: &'static str, context: u64, prices: [u64; 4]) -> Figures {
    let [input, output, cache_read, cache_write] = prices;
    Figures {
        name,
        context,
        input,
        output,
        cache_read,
        cache_write,
        long: None,
    }
}

impl Figures {
    const fn long(mut self, long: &'static Long) -> Self {
        self.long = Some(long);
        self
    }
}

const ANTHROPIC: &[Figures] = &[
    model("claude-fable-5-1", 1_000_000, [10_000, 50_000, 250, 12_500]),
    model(
        "claude-mythos-5-1",
        1_000_000,
        [10_000, 50_000, 250, 12_500],
    ),
    model("claude-fable-5", 1_000_000, [10_000, 50_000, 1000, 12_500]),
    model("claude-mythos-5", 1_000_000, [10_000, 50_000, 1000, 12_500]),
    model("claude-opus-5-5", 1_000_000, [4000, 20_000, 200, 5000]),
    model("claude-opus-5", 1_000_000, [5000, 25_000, 500, 6250]),
    model("claude-opus-4-8", 1_000_000, [5000, 25_000, 500, 6250]),
    model("claude-opus-4-7", 1_000_000, [5000, 25_000, 500, 6250]),
    model("claude-opus-4-6", 1_000_000, [5000, 25_000, 500, 6250]),
    model("claude-opus-4-5", 200_000, [5000, 25_000, 500, 6250]),
    model("claude-opus-4-1", 200_000, [15_000, 75_000, 1500, 18_750]),
    model("claude-sonnet-5-5", 1_000_000, [2000, 10_000, 100, 2500]),
    model("claude-sonnet-5", 1_000_000, [2000, 10_000, 200, 2500]),
    model("claude-sonnet-4-6", 1_000_000, [3000, 15_000, 300, 3750]),
    model("claude-sonnet-4-5", 200_000, [3000, 15_000, 300, 3750]),
    model("claude-haiku-5-5", 1_000_000, [100, 500, 10, 125]).long(&LONG_HAIKU),
    model("claude-haiku-4-5", 200_000, [1000, 5000, 100, 1250]),
];

/// Where writing to the cache has no price of its own, it costs what input does.
const OPENAI: &[Figures] = &[
    model("gpt-6.2-sol", 922_000, [2000, 10_000, 100, 2500]).long(&LONG_GPT),
    model("gpt-6.1-sol", 922_000, [2000, 10_000, 100, 2500]).long(&LONG_GPT),
    model("gpt-6.1-terra", 922_000, [1000, 5000, 50, 1250]).long(&LONG_GPT),
    model("gpt-6-astra", 922_000, [10_000, 50_000, 1000, 12_500]).long(&LONG_GPT),
    model("gpt-6-sol", 922_000, [2000, 10_000, 200, 2500]).long(&LONG_GPT),
    model("gpt-6-luna", 922_000, [100, 500, 10, 125]).long(&LONG_GPT),
    model("gpt-5.6-terra", 922_000, [2000, 12_000, 200, 2500]).long(&LONG_GPT),
    model("gpt-5.5", 922_000, [5000, 30_000, 500, 5000]).long(&LONG_GPT),
    model("gpt-5.4", 922_000, [2500, 15_000, 250, 2500]).long(&LONG_GPT),
    model("gpt-5.4-mini", 272_000, [750, 4500, 75, 750]),
    model("gpt-5.4-nano", 272_000, [200, 1250, 20, 200]),
    model("gpt-5.2", 272_000, [1750, 14_000, 175, 1750]),
    model("gpt-5.1", 272_000, [1250, 10_000, 125, 1250]),
    model("gpt-5", 272_000, [1250, 10_000, 125, 1250]),
    model("gpt-5-mini", 272_000, [250, 2000, 25, 250]),
    model("gpt-5-nano", 272_000, [50, 400, 5, 50]),
    model("gpt-4.1", 1_047_576, [2000, 8000, 500, 2000]),
    model("gpt-4.1-mini", 1_047_576, [400, 1600, 100, 400]),
    model("gpt-4.1-nano", 1_047_576, [100, 400, 25, 100]),
    model("gpt-4o", 128_000, [2500, 10_000, 1250, 2500]),
    model("gpt-4o-mini", 128_000, [150, 600, 75, 150]),
    model("o3", 200_000, [2000, 8000, 500, 2000]),
    model("o4-mini", 200_000, [1100, 4400, 275, 1100]),
];

/// How many tokens a request may have.
pub(super) fn context_tokens(provider: Provider, model: &str) -> Option<u64> {
    find(provider, model).map(|figures| figures.context)
}

/// What a call cost, in millionths of a dollar, rounded up.
pub(super) fn cost_microusd(provider: Provider, model: &str, usage: &Usage) -> Option<u64> {
    let figures = find(provider, model)?;
    let fresh = usage
        .input
        .saturating_sub(usage.cache_read)
        .saturating_sub(usage.cache_write);
    let input = fresh * figures.input
        + usage.cache_read * figures.cache_read
        + usage.cache_write * figures.cache_write;
    let output = usage.output * figures.output;
    let (input, output) = match figures.long {
        Some(long) if usage.input > long.above => (
            input * long.input_tenths / 10,
            output * long.output_tenths / 10,
        ),
        _ => (input, output),
    };
    Some((input + output).div_ceil(1000))
}

fn find(provider: Provider, model: &str) -> Option<&'static Figures> {
    let table = match provider {
        Provider::Anthropic => ANTHROPIC,
        Provider::OpenAi => OPENAI,
        Provider::Ollama => return None,
    };
    table.iter().find(|figures| {
        let rest = model.strip_prefix(figures.name);
        rest.is_some_and(|rest| rest.is_empty() || rest == "-latest" || is_date(rest))
    })
}

/// `-20250929` or `-2025-11-13`, and not the `-5` that makes it another model.
fn is_date(rest: &str) -> bool {
    let digits = rest.bytes().filter(u8::is_ascii_digit).count();
    let dashes = rest.bytes().filter(|byte| *byte == b'-').count();
    rest.starts_with('-') && digits == 8 && digits + dashes == rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_or_it_is_not() {
        let check = |provider: Provider, model: &str, context: Option<u64>| {
            assert_eq!(context_tokens(provider, model), context, "{model}");
        };
        check(Provider::Anthropic, "claude-sonnet-4-5", Some(200_000));
        check(
            Provider::Anthropic,
            "claude-sonnet-4-5-20250929",
            Some(200_000),
        );
        check(Provider::Anthropic, "claude-sonnet-5", Some(1_000_000));
        check(Provider::Anthropic, "claude-sonnet-5-9", None);
        check(Provider::Anthropic, "claude-sonnet-4", None);
        check(Provider::Anthropic, "gpt-5.1", None);
        check(Provider::OpenAi, "gpt-5.1-2025-11-13", Some(272_000));
        check(Provider::OpenAi, "gpt-5-mini", Some(272_000));
        check(Provider::OpenAi, "gpt-5-maxi", None);
        check(Provider::OpenAi, "gpt-5.1x", None);
        check(Provider::Ollama, "gpt-5.1", None);
        for provider in Provider::ALL {
            let expected = provider != Provider::Ollama;
            let model = provider.default_model();
            assert_eq!(context_tokens(provider, model).is_some(), expected);
        }
    }

    #[test]
    fn a_call_costs_what_its_parts_cost() {
        let check = |provider: Provider, model: &str, usage: [u64; 4], expected: Option<u64>| {
            let [input, output, cache_read, cache_write] = usage;
            let usage = Usage {
                input,
                output,
                cache_read,
                cache_write,
            };
            assert_eq!(cost_microusd(provider, model, &usage), expected, "{model}");
        };
        let (anthropic, openai) = (Provider::Anthropic, Provider::OpenAi);
        // 1000 × $3 + 2000 × $0.30 + 3000 × $3.75 + 500 × $15, all a million.
        check(
            anthropic,
            "claude-sonnet-4-5",
            [6000, 500, 2000, 3000],
            Some(3000 + 600 + 11_250 + 7500),
        );
        check(anthropic, "claude-haiku-5-5", [1, 0, 0, 0], Some(1));
        check(
            anthropic,
            "claude-haiku-5-5",
            [100_000, 1000, 0, 0],
            Some(10_500),
        );
        check(
            anthropic,
            "claude-haiku-5-5",
            [100_001, 1000, 0, 0],
            Some(52_501),
        );
        check(openai, "gpt-6-sol", [272_000, 1000, 0, 0], Some(554_000));
        check(
            openai,
            "gpt-6-sol",
            [300_000, 1000, 100_000, 0],
            Some(855_000),
        );
        check(openai, "no-such-model", [1, 1, 0, 0], None);
        check(Provider::Ollama, "qwen", [1, 1, 0, 0], None);
        // More from the cache than there was is a server's mistake, not ours.
        check(openai, "gpt-5.1", [10, 0, 1000, 0], Some(125));
    }
}
