//! Ages as kubectl writes them (apimachinery `duration.HumanDuration`).

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// How long ago, at two digits of precision or a little more; `<unknown>` without a time.
pub fn since(time: Option<&Time>, now: Timestamp) -> String {
    match time {
        Some(Time(at)) => human(now.duration_since(*at).as_millis()),
        None => "<unknown>".to_owned(),
    }
}

/// A duration in milliseconds. Slightly negative ones are clocks that differ.
pub fn human(ms: i128) -> String {
    let s = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    match s {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        _ if s < 2 * MINUTE => format!("{s}s"),
        _ if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        _ if s < 3 * HOUR => format!("{}m", s / MINUTE),
        _ if s < 8 * HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        _ if s < 2 * DAY => format!("{}h", s / HOUR),
        _ if s < 8 * DAY => two(s / DAY, "d", s % DAY / HOUR, "h"),
        _ if s < 2 * YEAR => format!("{}d", s / DAY),
        _ if s < 8 * YEAR => two(s / YEAR, "y", s % YEAR / DAY, "d"),
        _ => format!("{}y", s / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            (-2 * 1_000, "<invalid>"),
            (-1_500, "0s"),
            (-500, "0s"),
            (0, "0s"),
            (999, "0s"),
            (119_999, "119s"),
            (120_000, "2m"),
            (189_000, "3m9s"),
            (599_000, "9m59s"),
            (600_000, "10m"),
            (i128::from(3 * HOUR) * 1_000 - 1, "179m"),
            (i128::from(3 * HOUR) * 1_000, "3h"),
            (i128::from(7 * HOUR + 5 * MINUTE) * 1_000, "7h5m"),
            (i128::from(8 * HOUR + 5 * MINUTE) * 1_000, "8h"),
            (i128::from(47 * HOUR) * 1_000, "47h"),
            (i128::from(2 * DAY) * 1_000, "2d"),
            (i128::from(7 * DAY + 3 * HOUR) * 1_000, "7d3h"),
            (i128::from(8 * DAY + 3 * HOUR) * 1_000, "8d"),
            (i128::from(729 * DAY) * 1_000, "729d"),
            (i128::from(2 * YEAR) * 1_000, "2y"),
            (i128::from(2 * YEAR + 40 * DAY) * 1_000, "2y40d"),
            (i128::from(9 * YEAR + 40 * DAY) * 1_000, "9y"),
        ];
        for (ms, text) in cases {
            assert_eq!(human(ms), text, "{ms} ms");
        }
    }
}
