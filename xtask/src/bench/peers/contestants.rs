//! The contestants: how each is started, and which loads it can meet.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use test_support::NetNs;
use test_support::server::{Delays, Plan, Script, Server};

use super::Cpus;
use super::blackbox::{self, Blackbox};
use super::haproxy::{self, Haproxy, Pace};
use super::loads::{self, Kind, Load};
use super::process::Process;
use super::score::Told;
use crate::go;
use crate::repo::{Repo, run as run_command};

const KUBELET_SOURCE: &str = "benches/peers/kubelet";
const KUBELET: &str = "target/peers/kubelet";
/// Of the server, inside its namespace; and one where nobody listens.
pub const PORT: u16 = 19_000;
pub const CLOSED_PORT: u16 = 19_001;
/// One target in a hundred fails every third time.
pub const SCRIPT: Script = Script { every: 100, cycle: 3, window_first: 1, window_length: 1 };
/// Half a percent of the targets answer late, after times that no tick divides.
pub const DELAYS: Delays = Delays {
    every: 200,
    lengths: &[Duration::from_micros(1_300), Duration::from_micros(3_700), Duration::from_micros(10_900)],
};

#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum Contestant {
    /// The real path: schedule, engine, thresholds
    Defib,
    /// The cheapest known sequence of kernel calls, and nothing else
    Floor,
    /// Health checks of HAProxy, one thread
    Haproxy,
    /// A prober in kubelet's way, in Go
    Kubelet,
    /// blackbox_exporter, scraped once per probe
    Blackbox,
    /// One task per target on tokio-uring
    TokioUring,
    /// One task per target on tokio, with hyper
    TokioHyper,
}

/// Installs the Debian packages of these contestants.
pub fn install(wanted: &[Contestant]) -> Result<()> {
    let packages = [(Contestant::Haproxy, "haproxy"), (Contestant::Blackbox, "prometheus-blackbox-exporter")];
    let wanted = packages.iter().filter(|(contestant, _)| wanted.contains(contestant));
    let names: Vec<&str> = wanted.map(|(_, package)| *package).collect();
    if names.is_empty() {
        return Ok(());
    }
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    run_command(command.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(names))
}

/// Binaries and versions.
pub struct Built {
    folder: PathBuf,
    kubelet: Option<PathBuf>,
    /// For the document.
    pub versions: Vec<String>,
}

impl Contestant {
    pub fn name(self) -> &'static str {
        match self {
            Contestant::Defib => "defib",
            Contestant::Floor => "floor",
            Contestant::Haproxy => "haproxy",
            Contestant::Kubelet => "kubelet",
            Contestant::Blackbox => "blackbox",
            Contestant::TokioUring => "tokio-uring",
            Contestant::TokioHyper => "tokio-hyper",
        }
    }

    /// The load as this contestant meets it; None: not at all.
    pub fn load(self, load: Load) -> Option<Load> {
        match (self, load.name) {
            // A descriptor per server: 20,000 of them are more than the usual limit allows.
            (Contestant::Haproxy, loads::HTTP_20K) => Some(load.halved()),
            (Contestant::Haproxy, loads::HTTP_100K) => None,
            // Only compared with itself: the same rate as from 100,000 targets.
            (Contestant::Defib, loads::HTTP_1K) => Some(load),
            (_, loads::HTTP_1K) => None,
            // One scrape per probe: beyond this rate the driver is measured, not the exporter.
            (Contestant::Blackbox, name) if name != loads::HTTP_5K => None,
            _ => Some(load),
        }
    }
}

/// Builds what these contestants need, or says how to get it.
pub fn build(repo: &Repo, wanted: &[Contestant]) -> Result<Built> {
    run_command(repo.cargo().args(["build", "--release", "--quiet", "--package", "peers"]))?;
    let mut built = Built { folder: repo.path("target/release"), kubelet: None, versions: Vec::new() };
    if wanted.contains(&Contestant::Haproxy) {
        built.versions.push(haproxy::version()?);
    }
    if wanted.contains(&Contestant::Blackbox) {
        built.versions.push(blackbox::version()?);
    }
    if wanted.contains(&Contestant::Kubelet) {
        let binary = repo.path(KUBELET);
        built.versions.push(go::build(repo, KUBELET_SOURCE, &binary)?);
        built.kubelet = Some(binary);
    }
    Ok(built)
}

/// A namespace of its own for one run, with the server in it: nothing of the run before is left, no socket in
/// TIME_WAIT either.
pub struct Arena {
    pub net: NetNs,
    pub server: Server,
    pub plan: Plan,
}

impl Arena {
    pub fn new(load: &Load, server_cpu: usize) -> Result<Arena> {
        Arena::of(Plan { targets: load.targets as usize, script: SCRIPT, delays: DELAYS }, server_cpu)
    }

    /// With other targets than those of the contest.
    pub fn of(plan: Plan, server_cpu: usize) -> Result<Arena> {
        let net = NetNs::new();
        let listener = net.inside(|| TcpListener::bind(("0.0.0.0", PORT))).context("the server's port")?;
        let server = Server::start(listener, plan, Some(server_cpu))?;
        server.counts().healed.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(Arena { net, server, plan })
    }
}

/// A contestant at work.
pub enum Running {
    Process(Process),
    Haproxy(Haproxy),
    Blackbox(Blackbox),
}

impl Running {
    pub fn start(
        contestant: Contestant,
        built: &Built,
        arena: &Arena,
        cpus: Cpus,
        load: &Load,
        pace: Pace,
    ) -> Result<Running> {
        let cpu = cpus.cpu;
        let ours = |name: &str| {
            Process::start(arena, &built.folder.join(name), &[], cpu, load).map(Running::Process)
        };
        match contestant {
            Contestant::Defib => ours("peer-defib"),
            Contestant::Floor => ours("peer-floor"),
            Contestant::TokioUring => ours("peer-tokio-uring"),
            Contestant::TokioHyper => ours("peer-tokio-hyper"),
            Contestant::Haproxy => Haproxy::start(arena, cpu, load, pace).map(Running::Haproxy),
            Contestant::Blackbox => {
                let driver = built.folder.join("peer-blackbox-driver");
                Blackbox::start(arena, &driver, cpus, load).map(Running::Blackbox)
            }
            Contestant::Kubelet => {
                let binary = built.kubelet.as_ref().context("the Go prober was not built")?;
                Process::start(arena, binary, &[], cpu, load).map(Running::Process)
            }
        }
    }

    pub fn pid(&self) -> u32 {
        match self {
            Running::Process(process) => process.pid(),
            Running::Haproxy(haproxy) => haproxy.pid(),
            Running::Blackbox(blackbox) => blackbox.pid(),
        }
    }

    /// The measured window begins.
    pub fn measure(&mut self, load: &Load) -> Result<()> {
        match self {
            Running::Process(process) => process.measure(),
            Running::Haproxy(haproxy) => {
                haproxy.measure(load);
                Ok(())
            }
            Running::Blackbox(blackbox) => blackbox.measure(),
        }
    }

    pub fn stop(self) -> Result<Told> {
        match self {
            Running::Process(process) => process.stop(),
            Running::Haproxy(haproxy) => haproxy.stop(),
            Running::Blackbox(blackbox) => blackbox.stop(),
        }
    }
}

/// Targets that nobody answers for.
pub fn refusing(load: &Load) -> std::collections::BTreeSet<u32> {
    let is_refusing = |target: &u32| load.kind == Kind::Tcp && SCRIPT.concerns(*target as usize);
    (0..load.targets).filter(is_refusing).collect()
}
