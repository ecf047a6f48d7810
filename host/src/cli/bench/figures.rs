//! Figures, and what they are measured against.

use std::time::Duration;

use serde::Serialize;

use crate::cli::output::table;

/// One line of the result.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    /// What it is compared with, and its value in the same unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    beside: Option<(String, f64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Target>,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    AtMost(f64),
    AtLeast(f64),
    RatioAtMost(f64),
}

/// The rows of a run.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) rows: Vec<Row>,
}

impl Figures {
    pub(super) fn add(
        &mut self,
        name: &str,
        value: f64,
        unit: &'static str,
        target: Option<Target>,
    ) {
        self.rows.push(Row {
            name: name.to_owned(),
            value,
            unit,
            beside: None,
            ratio: None,
            target,
        });
    }

    /// A figure beside another one of the same run.
    pub(super) fn compare(
        &mut self,
        name: &str,
        value: f64,
        unit: &'static str,
        beside: (&str, f64),
        target: Option<Target>,
    ) {
        self.rows.push(Row {
            name: name.to_owned(),
            value,
            unit,
            ratio: Some(value / beside.1),
            beside: Some((beside.0.to_owned(), beside.1)),
            target,
        });
    }

    pub(super) fn table(&self) -> String {
        let rows: Vec<_> = self.rows.iter().map(Row::cells).collect();
        table(
            &["FIGURE", "MEDIAN", "BESIDE", "RATIO", "TARGET", "MET"],
            &rows,
        )
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let number = |value: f64| {
            if value < 10.0 {
                format!("{value:.3}")
            } else {
                format!("{value:.1}")
            }
        };
        let beside = match &self.beside {
            Some((name, value)) => format!("{} {} {name}", number(*value), self.unit),
            None => "-".to_owned(),
        };
        let ratio = self
            .ratio
            .map_or("-".to_owned(), |ratio| format!("{ratio:.2}x"));
        let (target, met) = match self.target {
            Some(Target::AtMost(most)) => (format!("<= {}", number(most)), self.value <= most),
            Some(Target::AtLeast(least)) => (format!(">= {}", number(least)), self.value >= least),
            Some(Target::RatioAtMost(most)) => (
                format!("<= {most}x"),
                self.ratio.is_some_and(|ratio| ratio <= most),
            ),
            None => ("-".to_owned(), true),
        };
        let met = match self.target {
            Some(_) if met => "yes",
            Some(_) => "no",
            None => "",
        };
        vec![
            self.name.clone(),
            format!("{} {}", number(self.value), self.unit),
            beside,
            ratio,
            target,
            met.to_owned(),
        ]
    }
}

/// Durations of one thing.
#[derive(Debug, Default)]
pub(super) struct Samples(Vec<Duration>);

impl Samples {
    pub(super) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// In milliseconds.
    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// In milliseconds.
    pub(super) fn p99(&self) -> f64 {
        self.quantile(0.99)
    }

    fn quantile(&self, quantile: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let index = (sorted.len() as f64 * quantile) as usize;
        sorted
            .get(index.min(sorted.len().saturating_sub(1)))
            .map_or(f64::NAN, |sample| sample.as_secs_f64() * 1e3)
    }
}

/// MiB a second for so many bytes in so many milliseconds.
pub(super) fn mib_per_second(bytes: u64, milliseconds: f64) -> f64 {
    bytes as f64 / f64::from(1 << 20) / (milliseconds / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_samples() {
        let mut samples = Samples::default();
        for ms in (0..100).rev() {
            samples.push(Duration::from_millis(ms));
        }
        assert_eq!((samples.median(), samples.p99()), (50.0, 99.0));
        assert!(Samples::default().median().is_nan());
    }

    #[test]
    fn a_target_is_met_or_not() {
        let mut figures = Figures::default();
        figures.compare("a", 3.0, "ms", ("b", 2.0), Some(Target::RatioAtMost(1.4)));
        figures.add("c", 3.0, "ms", Some(Target::AtMost(3.0)));
        let table = figures.table();
        assert!(
            table
                .lines()
                .nth(1)
                .unwrap()
                .ends_with("1.50x  <= 1.4x   no"),
            "{table}"
        );
        assert!(table.lines().nth(2).unwrap().ends_with("yes"), "{table}");
    }
}
