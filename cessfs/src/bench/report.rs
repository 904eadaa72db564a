//! What was measured, as a table and as JSON, and how it compares with what was measured before.

use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// So much slower than the baseline, times the ratio, is a regression: below it lies a busy machine's noise.
pub const REGRESSION_FACTOR: f64 = 1.25;

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// `uname -r`.
    pub kernel: String,
    /// Processors.
    pub cores: usize,
    /// MiB of the large file.
    pub mib: usize,
    /// Small files.
    pub files: usize,
    /// One per workload.
    pub rows: Vec<Row>,
}

/// One workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub workload: String,
    /// Median seconds in the directory; null if it was not done.
    pub seconds: Option<f64>,
    /// The same in the directory beside it.
    pub beside_seconds: Option<f64>,
    /// How many times slower than there: the median over the repetitions.
    pub ratio: Option<f64>,
    /// Every repetition, in seconds, here and beside.
    pub taken: Vec<Vec<f64>>,
    /// Why it was not done.
    pub skipped: Option<String>,
}

impl Row {
    pub(super) fn new(workload: &str, taken: Vec<Vec<f64>>, skipped: Option<String>) -> Row {
        let beside = taken.get(1).cloned().unwrap_or_default();
        let ratios = taken[0].iter().zip(&beside).map(|(here, there)| here / there).collect();
        Row {
            workload: workload.to_owned(),
            seconds: median(taken[0].clone()),
            beside_seconds: median(beside),
            ratio: median(ratios),
            taken,
            skipped,
        }
    }

    /// How many times slower than in `baseline`, by the ratio to the directory beside where both have one.
    fn against(&self, baseline: &Row) -> Option<f64> {
        match (self.ratio, baseline.ratio) {
            (Some(now), Some(then)) => Some(now / then),
            _ => Some(self.seconds? / baseline.seconds?),
        }
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

impl Report {
    /// Workloads that are slower than in `baseline` by [`REGRESSION_FACTOR`] or more, and how many times.
    pub fn regressions(&self, baseline: &Report) -> Vec<(String, f64)> {
        let slower = self
            .rows
            .iter()
            .filter_map(|row| Some((row.workload.clone(), self.change(row, baseline)?)));
        slower.filter(|(_, factor)| *factor >= REGRESSION_FACTOR).collect()
    }

    fn change(&self, row: &Row, baseline: &Report) -> Option<f64> {
        let then = baseline.rows.iter().find(|then| then.workload == row.workload)?;
        row.against(then)
    }

    /// A Markdown table.
    pub fn markdown(&self, baseline: Option<&Report>) -> String {
        let mut out = String::from("| workload | beside | here | ratio |");
        out.push_str(if baseline.is_some() {
            " before → now |\n|---|---|---|---|---|\n"
        } else {
            "\n|---|---|---|---|\n"
        });
        let seconds = |value: Option<f64>| value.map_or("–".to_owned(), |s| format!("{s:.3} s"));
        for row in &self.rows {
            let ratio = row.ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
            let (there, here) = (seconds(row.beside_seconds), seconds(row.seconds));
            let _to_a_string = write!(out, "| {} | {there} | {here} | {ratio} |", row.workload);
            if let Some(baseline) = baseline {
                let change = match self.change(row, baseline) {
                    None => "–".to_owned(),
                    Some(factor) if factor >= REGRESSION_FACTOR => format!("× {factor:.2} **slower**"),
                    Some(factor) => format!("× {factor:.2}"),
                };
                let _to_a_string = write!(out, " {change} |");
            }
            out.push('\n');
        }
        for row in self.rows.iter().filter(|row| row.skipped.is_some()) {
            let needs = row.skipped.as_deref().unwrap_or_default();
            let _to_a_string = writeln!(out, "\n{} was not measured: it needs {needs}.", row.workload);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rows: Vec<Row>) -> Report {
        Report {
            kernel: "6.18".into(),
            cores: 2,
            mib: 1,
            files: 10,
            rows,
        }
    }

    #[test]
    fn ratios_are_taken_within_a_repetition() {
        // The machine was busy in the second repetition: both sides suffered alike.
        let row = Row::new("x", vec![vec![2.0, 20.0, 2.0], vec![1.0, 10.0, 1.0]], None);
        assert_eq!(
            (row.ratio, row.seconds, row.beside_seconds),
            (Some(2.0), Some(2.0), Some(1.0))
        );
    }

    #[test]
    fn a_regression_is_told_and_noise_is_not() {
        let row = |name: &str, ratio: f64| Row::new(name, vec![vec![ratio], vec![1.0]], None);
        let before = report(vec![row("a", 2.0), row("b", 2.0)]);
        let now = report(vec![row("a", 2.2), row("b", 3.0), row("new", 9.0)]);
        assert_eq!(now.regressions(&before), [("b".to_owned(), 1.5)]);
        let table = now.markdown(Some(&before));
        assert!(
            table.contains("| b | 1.000 s | 3.000 s | 3.00 | × 1.50 **slower** |"),
            "{table}"
        );
        assert!(table.contains("| new | 1.000 s | 9.000 s | 9.00 | – |"), "{table}");
    }

    #[test]
    fn without_anything_beside_it_seconds_are_compared() {
        let row = |seconds| Row::new("a", vec![vec![seconds]], None);
        let (before, now) = (report(vec![row(1.0)]), report(vec![row(2.0)]));
        assert_eq!(now.regressions(&before), [("a".to_owned(), 2.0)]);
    }

    #[test]
    fn what_was_skipped_says_so() {
        let skipped = Row::new("cold", vec![Vec::new()], Some("root".into()));
        assert!(
            report(vec![skipped])
                .markdown(None)
                .contains("cold was not measured: it needs root.")
        );
    }

    #[test]
    fn a_report_reads_back() {
        let report = report(vec![Row::new("a", vec![vec![1.5]], None)]);
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
