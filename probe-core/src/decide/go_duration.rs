//! Go's duration text (`time.Duration.String`), as it stands in kubelet's messages.

use std::fmt;
use std::time::Duration;

/// Shows a duration as Go does: `10s`, `1m20s`, `5m0s`, `1.5s`, `250ms`, `0s`.
#[derive(Copy, Clone, Debug)]
pub struct GoDuration(pub Duration);

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total_ns = self.0.as_nanos();
        if total_ns == 0 {
            return f.write_str("0s");
        }
        if total_ns < 1_000 {
            return write!(f, "{total_ns}ns");
        }
        if total_ns < 1_000_000 {
            return write!(f, "{}µs", decimal(total_ns, 1_000));
        }
        if total_ns < 1_000_000_000 {
            return write!(f, "{}ms", decimal(total_ns, 1_000_000));
        }
        let total_s = self.0.as_secs();
        let (hours, minutes) = (total_s / 3_600, total_s / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if total_s >= 60 {
            write!(f, "{minutes}m")?;
        }
        let below_minute_ns = u128::from(total_s % 60) * 1_000_000_000 + u128::from(self.0.subsec_nanos());
        write!(f, "{}s", decimal(below_minute_ns, 1_000_000_000))
    }
}

/// `value / unit` with as many decimals as it takes.
fn decimal(value: u128, unit: u128) -> String {
    let (whole, rest) = (value / unit, value % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let digits = unit.ilog10() as usize;
    let fraction = format!("{rest:0digits$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_that_of_go() {
        let cases: &[(u64, &str)] = &[
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (999_999_999, "999.999999ms"),
            (1_000_000_000, "1s"),
            (1_500_000_000, "1.5s"),
            (10_000_000_000, "10s"),
            (60_000_000_000, "1m0s"),
            (80_000_000_000, "1m20s"),
            (160_000_000_000, "2m40s"),
            (300_000_000_000, "5m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_661_001_000_000, "1h1m1.001s"),
        ];
        for (ns, text) in cases {
            assert_eq!(GoDuration(Duration::from_nanos(*ns)).to_string(), *text);
        }
    }
}
