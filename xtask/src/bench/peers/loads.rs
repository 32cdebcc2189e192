//! The loads, and which contestant meets which.

use std::time::Duration;

/// What a probe does.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    Http,
    Tcp,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Http => "http",
            Kind::Tcp => "tcp",
        }
    }
}

/// So many targets, each probed once a period.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Load {
    pub name: &'static str,
    pub kind: Kind,
    pub targets: u32,
    pub period: Duration,
    /// Length of the measured window; and of a quick one.
    pub window: Duration,
    pub quick_window: Duration,
}

/// Of a probe, everywhere.
pub const TIMEOUT: Duration = Duration::from_secs(1);

pub const HTTP_5K: &str = "http-5k";
pub const HTTP_20K: &str = "http-20k";
pub const HTTP_100K: &str = "http-100k";
pub const HTTP_1K: &str = "http-1k";
pub const TCP_5K: &str = "tcp-5k";

pub const ALL: [Load; 5] = [
    load(HTTP_5K, Kind::Http, 5_000, 1_000, 20, 5),
    load(HTTP_20K, Kind::Http, 20_000, 1_000, 60, 6),
    load(HTTP_100K, Kind::Http, 100_000, 10_000, 30, 10),
    load(HTTP_1K, Kind::Http, 1_000, 100, 20, 5),
    load(TCP_5K, Kind::Tcp, 5_000, 1_000, 20, 5),
];

const fn load(
    name: &'static str,
    kind: Kind,
    targets: u32,
    period_ms: u64,
    window_s: u64,
    quick_window_s: u64,
) -> Load {
    let seconds = Duration::from_secs;
    Load {
        name,
        kind,
        targets,
        period: Duration::from_millis(period_ms),
        window: seconds(window_s),
        quick_window: seconds(quick_window_s),
    }
}

impl Load {
    /// Probes a second of all targets.
    pub fn rate_per_s(&self) -> f64 {
        f64::from(self.targets) / self.period.as_secs_f64()
    }

    /// Until every target was probed, and what a start costs is over.
    pub fn warm_up(&self) -> Duration {
        self.period + Duration::from_secs(2)
    }

    /// The same rate from half the targets at twice the pace.
    pub fn halved(self) -> Load {
        Load { targets: self.targets / 2, period: self.period / 2, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_contract() {
        let rates: Vec<f64> = ALL.iter().map(Load::rate_per_s).collect();
        assert_eq!(rates, [5_000.0, 20_000.0, 10_000.0, 10_000.0, 5_000.0]);
        let halved = ALL[1].halved();
        assert_eq!((halved.targets, halved.period.as_millis()), (10_000, 500));
        assert!((halved.rate_per_s() - 20_000.0).abs() < f64::EPSILON);
    }
}
