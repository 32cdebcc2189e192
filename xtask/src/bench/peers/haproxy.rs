//! HAProxy's health checks: one thread, one backend per target so that each has its path, verdicts from its log.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::contestants::{Arena, CLOSED_PORT, PORT, SCRIPT};
use super::loads::{Kind, Load, TIMEOUT};
use super::process::on_cpu;
use super::score::Told;
use crate::repo::output;

/// Where the log goes, inside the namespace.
const LOG_PORT: u16 = 19_014;
const LOG_LINE_MAX_BYTES: usize = 2_048;
const LOG_LOOK_EVERY: Duration = Duration::from_millis(100);

pub fn version() -> Result<String> {
    let text = output(Command::new("haproxy").arg("-v")).context("as root: apt-get install haproxy")?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// HAProxy counts its interval from the end of a check, so that the pace it is told is one it falls behind. It is
/// told a shorter interval, learnt from the rate of its latest window, for it shall meet the offered one.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Pace {
    /// Share of the load's period.
    interval: f64,
}

impl Pace {
    /// A rate nearer to the offered one teaches nothing: intervals are whole milliseconds.
    const SLACK: f64 = 0.003;
    /// A contestant that would need less cannot meet the load.
    const MIN: f64 = 0.8;
    /// Of what a window was off. Windows differ by as much as the correction: all of it at once would swing.
    const GAIN: f64 = 0.6;

    pub const OFFERED: Pace = Pace { interval: 1.0 };

    /// From the share of the offered rate that was achieved at this pace.
    pub fn learn(&mut self, achieved: f64) {
        if (achieved - 1.0).abs() > Pace::SLACK {
            self.interval = (self.interval * (1.0 + Pace::GAIN * (achieved - 1.0))).clamp(Pace::MIN, 1.0);
        }
    }

    fn interval_ms(self, load: &Load) -> u64 {
        (load.period.as_secs_f64() * 1e3 * self.interval).round() as u64
    }
}

pub struct Haproxy {
    child: Child,
    log: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    _folder: tempfile::TempDir,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    seen: Mutex<Seen>,
}

/// Servers that went down.
#[derive(Clone, Debug, Default)]
struct Seen {
    scripted: BTreeMap<u32, u64>,
    other: u64,
    example: Option<String>,
}

impl Haproxy {
    pub fn start(arena: &Arena, cpu: usize, load: &Load, pace: Pace) -> Result<Haproxy> {
        let folder = tempfile::tempdir().context("a folder for HAProxy")?;
        let path = folder.path().join("haproxy.cfg");
        fs::write(&path, config(load, pace, folder.path())).context("HAProxy's configuration")?;
        let socket =
            arena.net.inside(|| UdpSocket::bind(("127.0.0.1", LOG_PORT))).context("the log's port")?;
        socket.set_read_timeout(Some(LOG_LOOK_EVERY)).context("SO_RCVTIMEO")?;
        let shared = Arc::new(Shared::default());
        let (for_log, kind) = (Arc::clone(&shared), load.kind);
        let log = std::thread::spawn(move || follow(&socket, kind, &for_log));
        let mut command = on_cpu(cpu);
        command.args(["haproxy", "-db", "-q", "-f"]).arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
        let child = arena.net.inside(|| command.spawn()).context("cannot start haproxy")?;
        Ok(Haproxy { child, log: Some(log), shared, _folder: folder })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Forgets what HTTP servers did until now. Refusing TCP servers go down once, at the start, so those stay.
    pub fn measure(&mut self, load: &Load) {
        let mut seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = if load.kind == Kind::Tcp { std::mem::take(&mut seen.scripted) } else { BTreeMap::new() };
        *seen = Seen { scripted: kept, ..Seen::default() };
    }

    pub fn stop(mut self) -> Result<Told> {
        ensure!(self.child.try_wait().context("wait")?.is_none(), "haproxy has ended early");
        self.end();
        let seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Told {
            scripted: seen.scripted.into_iter().collect(),
            other_failures: seen.other,
            example: seen.example,
            ..Told::default()
        })
    }

    fn end(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(log) = self.log.take() {
            let _ = log.join();
        }
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        if self.log.is_some() {
            self.end();
        }
    }
}

fn follow(socket: &UdpSocket, kind: Kind, shared: &Shared) {
    let mut line = [0; LOG_LINE_MAX_BYTES];
    while !shared.is_over.load(Ordering::Relaxed) {
        let Ok(count) = socket.recv(&mut line) else { continue };
        let line = String::from_utf8_lossy(&line[..count]);
        let Some((target, is_scripted)) = down(&line, kind) else { continue };
        let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if is_scripted {
            *seen.scripted.entry(target).or_default() += 1;
        } else {
            seen.other += 1;
            seen.example.get_or_insert_with(|| line.into_owned());
        }
    }
}

/// The target of a server that went down, and whether it did so by script.
fn down(line: &str, kind: Kind) -> Option<(u32, bool)> {
    let (_, rest) = line.split_once("Server b")?;
    let (target, rest) = rest.split_once("/s is DOWN")?;
    let is_scripted = match kind {
        Kind::Http => rest.contains("code: 503"),
        Kind::Tcp => rest.contains("Connection refused"),
    };
    Some((target.parse().ok()?, is_scripted))
}

/// Every failing check takes its server down and is logged; every good one brings it back.
fn config(load: &Load, pace: Pace, folder: &Path) -> String {
    let mut text = format!(
        "global\n  nbthread 1\n  log 127.0.0.1:{LOG_PORT} local0\n  maxconn 16\n\
         defaults\n  log global\n  timeout connect {0}ms\n  timeout client {0}ms\n  timeout server {0}ms\n  \
         timeout check {0}ms\n  default-server check inter {1}ms fall 1 rise 1\n\
         frontend unused\n  mode http\n  bind unix@{2}\n",
        TIMEOUT.as_millis(),
        pace.interval_ms(load),
        folder.join("unused.sock").display(),
    );
    for target in 0..load.targets {
        let is_scripted = SCRIPT.concerns(target as usize);
        let port = if load.kind == Kind::Tcp && is_scripted { CLOSED_PORT } else { PORT };
        let address = format!("127.0.0.{}:{port}", 1 + target % 16);
        let check = match load.kind {
            Kind::Http => format!(
                "  mode http\n  option httpchk\n  http-check send meth GET uri /t/{target} ver HTTP/1.1 hdr Host \
                 {address} hdr User-Agent kube-probe/1.34 hdr Accept */*\n  http-check expect status 200\n"
            ),
            Kind::Tcp => "  mode tcp\n".to_owned(),
        };
        let _ = write!(text, "backend b{target}\n{check}  server s {address}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::peers::loads;

    #[test]
    fn the_interval_follows_the_rate() {
        let load = Load { period: Duration::from_millis(500), ..loads::ALL[1] };
        let mut pace = Pace::OFFERED;
        let mut check = |achieved, expected_ms| {
            pace.learn(achieved);
            assert_eq!(pace.interval_ms(&load), expected_ms, "after {achieved}");
        };
        check(0.998, 500);
        check(0.95, 485);
        check(1.002, 485);
        check(1.02, 491);
        check(1.2, 500);
        check(0.1, 400);
    }

    #[test]
    fn a_line_names_the_server_that_went_down() {
        let check = |line, kind, expected| assert_eq!(down(line, kind), expected, "{line}");
        let scripted = "<129>Nov 25 10:00:00 haproxy[7]: Server b150/s is DOWN, reason: Layer7 wrong status, \
                        code: 503, info: \"Service Unavailable\", check duration: 0ms. 0 active";
        check(scripted, Kind::Http, Some((150, true)));
        let timeout = "Server b7/s is DOWN, reason: Layer4 timeout, check duration: 1001ms.";
        check(timeout, Kind::Http, Some((7, false)));
        let refused = "Server b50/s is DOWN, reason: Layer4 connection problem, info: \"Connection refused\"";
        check(refused, Kind::Tcp, Some((50, true)));
        check("Server b7/s is UP, reason: Layer7 check passed, code: 200", Kind::Http, None);
        check("backend b7 has no server available!", Kind::Http, None);
    }
}
