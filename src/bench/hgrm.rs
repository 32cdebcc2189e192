//! The percentile log of HdrHistogram's own tools, in milliseconds: the public plotter of HdrHistogram reads it.

use std::fmt::Write;

use hdrhistogram::Histogram;

const NS_PER_MS: f64 = 1e6;
/// Lines from one half of what is left to the next, as the tools write by default.
const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// The log of a histogram of nanoseconds.
pub fn text(histogram_ns: &Histogram<u64>) -> String {
    let mut out =
        format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut total = 0;
    for point in histogram_ns.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        total += point.count_since_last_iteration();
        let value_ms = point.value_iterated_to() as f64 / NS_PER_MS;
        let quantile = point.quantile_iterated_to();
        // Writing to a String cannot fail.
        let _ = write!(out, "{value_ms:12.3} {quantile:2.12} {total:10}");
        // The last line has no fourth column: it would be infinite.
        let _ =
            if quantile < 1.0 { writeln!(out, " {:14.2}", 1.0 / (1.0 - quantile)) } else { writeln!(out) };
    }
    let (mean, deviation) = (histogram_ns.mean() / NS_PER_MS, histogram_ns.stdev() / NS_PER_MS);
    let _ = writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
    let max_ms = histogram_ns.max() as f64 / NS_PER_MS;
    let _ = writeln!(out, "#[Max     = {max_ms:12.3}, Total count    = {:12}]", histogram_ns.len());
    let _ = writeln!(
        out,
        "#[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram_ns.buckets(),
        sub_buckets(histogram_ns.sigfig())
    );
    out
}

/// Slots of one bucket: the power of two that tells so many digits apart.
fn sub_buckets(digits: u8) -> u64 {
    (2 * 10_u64.pow(u32::from(digits))).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_the_form_of_the_tools() {
        let mut histogram = Histogram::new_with_max(3_600_000_000_000, 3).unwrap();
        (1..=1_000).for_each(|ms| histogram.record(ms * 1_000_000).unwrap());
        assert_eq!(text(&histogram), include_str!("golden/thousand.hgrm"));
    }

    #[test]
    fn nothing_has_a_log_too() {
        let histogram = Histogram::new_with_max(3_600_000_000_000, 3).unwrap();
        let lines: Vec<String> = text(&histogram).lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert_eq!(lines[3], "#[Max     =        0.000, Total count    =            0]");
    }
}
