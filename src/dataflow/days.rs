//! Means and medians: a histogram of whole days for each cell, exact, incremental, and added up over instances.

use differential_dataflow::VecCollection;

use crate::dataflow::graph::Time;
use crate::indicator::Summing;
use crate::model::{Cell, Figure};

/// The figure of every cell from how many times it holds each number of days.
pub(super) fn figures<'scope>(
    histograms: VecCollection<'scope, Time, ((Cell, Summing), u32), i32>,
) -> VecCollection<'scope, Time, (Cell, Figure), i32> {
    histograms
        .reduce(|(_, summing), days, output| {
            let is_median = matches!(summing, Summing::Days { is_median: true });
            let figure = summed(days.iter().map(|(days, count)| (**days, *count)), is_median);
            if !figure.is_empty() {
                output.push((figure, 1));
            }
        })
        .map(|((cell, _), figure)| (cell, figure))
}

/// Sum, number and median of a histogram, in ascending order of days.
fn summed(histogram: impl Iterator<Item = (u32, i32)> + Clone, is_median: bool) -> Figure {
    let (mut sum, mut total) = (0_i64, 0_i64);
    for (days, count) in histogram.clone() {
        sum += i64::from(days) * i64::from(count);
        total += i64::from(count);
    }
    // The two middle ones of an even number, the middle one twice of an odd.
    let (lower, upper) = ((total - 1) / 2, total / 2);
    let (mut seen, mut doubled) = (0_i64, 0_i64);
    for (days, count) in histogram {
        let end = seen + i64::from(count);
        for middle in [lower, upper] {
            if (seen..end).contains(&middle) {
                doubled += i64::from(days);
            }
        }
        seen = end;
    }
    let median_doubled = (is_median && total > 0).then_some(doubled);
    Figure { numerator: sum, denominator: total, median_doubled }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_histogram() {
        let figure = |histogram: &[(u32, i32)]| summed(histogram.iter().copied(), true);
        assert_eq!(figure(&[(7, 1)]).median_doubled, Some(14));
        assert_eq!(figure(&[(7, 1), (8, 1)]).median_doubled, Some(15));
        assert_eq!(figure(&[(0, 2), (8, 1)]).median_doubled, Some(0));
        assert_eq!(figure(&[(0, 2), (8, 2)]).median_doubled, Some(8));
        assert_eq!(figure(&[(3, 3), (5, 4)]).median_doubled, Some(10));
        let mean = summed([(3, 3), (5, 4)].into_iter(), false);
        assert_eq!(mean, Figure { numerator: 29, denominator: 7, median_doubled: None });
        assert_eq!(figure(&[]), Figure { median_doubled: None, ..Figure::default() });
    }
}
