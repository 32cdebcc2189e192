//! The load of one run, from the command line. The Go contestant has the same flags.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Addresses that the targets are spread over, from 127.0.0.1 on: one pair of addresses has 28,000 ports.
const ADDRESSES: u32 = 16;

/// What a probe does.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub enum Kind {
    /// `GET /t/<target>` on a connection of its own; 200 is success.
    Http,
    /// A connection is success.
    Tcp,
}

/// All targets have the same probe.
#[derive(Copy, Clone, Debug, Parser)]
pub struct Load {
    #[arg(long, value_enum, default_value = "http")]
    pub kind: Kind,
    /// Number of targets
    #[arg(long)]
    pub targets: u32,
    /// Time between two probes of one target
    #[arg(long)]
    pub period_ms: u64,
    #[arg(long, default_value_t = 1_000)]
    pub timeout_ms: u64,
    /// Port of the server
    #[arg(long)]
    pub port: u16,
    /// Where nobody listens: TCP targets that fail by script
    #[arg(long, default_value_t = 1)]
    pub closed_port: u16,
    /// Of so many targets one fails by script: the one in the middle
    #[arg(long, default_value_t = 100)]
    pub scripted_every: u32,
    /// Of so many targets the response times of one are reported: the one after a tenth of them
    #[arg(long, default_value_t = 200)]
    pub watched_every: u32,
}

impl Load {
    pub fn period(&self) -> Duration {
        Duration::from_millis(self.period_ms)
    }

    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// Probes a second of all targets.
    pub fn rate_per_s(&self) -> f64 {
        f64::from(self.targets) * 1_000.0 / self.period_ms as f64
    }

    pub fn ip(&self, target: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + target % ADDRESSES)
    }

    /// Where this target's connections go.
    pub fn address(&self, target: u32) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ip(target)), self.port_of(target))
    }

    pub fn port_of(&self, target: u32) -> u16 {
        if self.kind == Kind::Tcp && self.is_scripted(target) { self.closed_port } else { self.port }
    }

    /// Whether it fails by script: at times, with status 503, or for ever, since nobody listens.
    pub fn is_scripted(&self, target: u32) -> bool {
        target % self.scripted_every == self.scripted_every / 2
    }

    /// Whether its response times are reported.
    pub fn is_watched(&self, target: u32) -> bool {
        self.kind == Kind::Http && target % self.watched_every == self.watched_every / 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(kind: Kind) -> Load {
        Load {
            kind,
            targets: 1_000,
            period_ms: 500,
            timeout_ms: 1_000,
            port: 80,
            closed_port: 81,
            scripted_every: 100,
            watched_every: 200,
        }
    }

    #[test]
    fn targets_are_spread_over_addresses() {
        let load = load(Kind::Http);
        assert_eq!(load.address(0), "127.0.0.1:80".parse().unwrap());
        assert_eq!(load.address(50), "127.0.0.3:80".parse().unwrap());
        assert!((load.rate_per_s() - 2_000.0).abs() < f64::EPSILON);
    }

    #[test]
    fn one_in_a_hundred_fails_by_script_and_is_never_watched() {
        let load = load(Kind::Tcp);
        let scripted: Vec<u32> = (0..300).filter(|target| load.is_scripted(*target)).collect();
        assert_eq!(scripted, [50, 150, 250]);
        assert_eq!((load.port_of(50), load.port_of(51)), (81, 80));
        let http = Load { kind: Kind::Http, ..load };
        let watched: Vec<u32> = (0..400).filter(|target| http.is_watched(*target)).collect();
        assert_eq!(watched, [20, 220]);
    }
}
