//! `cargo xtask bench smoke`: 2,000 containers with one HTTP probe a second each, for two minutes.
//!
//! Every request that the server failed by script must have been reported, nothing else may have been, no
//! probe may have been left out, and defib must have stayed small. defib runs on CPU 0 and the server on the
//! last CPU, in a network namespace of their own.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use test_support::server::{Counts, Delays, Plan, Script, Server};
use test_support::{Agent, World, eventually};

use super::report::{Bound, Report};
use super::usage;
use crate::clock::Stopwatch;
use crate::repo::{Repo, run as run_command};

const CONTAINERS_PER_POD: usize = 50;
const PORT: u16 = 19_000;
/// One target in a hundred fails three times in a row, every forty requests.
const SCRIPT: Script = Script { every: 100, cycle: 40, window_first: 20, window_length: 3 };

/// Bounds of the promise.
const RATE_MIN: f64 = 0.999;
const CPU_MAX_CORES: f64 = 0.2;
const RSS_MAX_MB: f64 = 100.0;

/// Watchdogs, not promises.
const START_MAX: Duration = Duration::from_secs(300);
const SETTLE_MAX: Duration = Duration::from_secs(60);

#[derive(Args)]
pub struct SmokeArgs {
    /// Pods, of 50 containers each
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u16).range(1..=200))]
    pods: u16,
    /// Length of the measured window, in seconds
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(5..=3600))]
    seconds: u64,
    /// Write the figures as JSON, one object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Builds defib, runs the load, prints the figures; a missed bound is an error.
pub fn run(repo: &Repo, args: &SmokeArgs) -> Result<()> {
    run_command(repo.cargo().args(["build", "--release", "--quiet", "--bin", "defib"]))?;
    let pods = usize::from(args.pods);
    let cpus = std::thread::available_parallelism().context("counting CPUs")?.get();
    let mut world = World::of_binary(repo.path("target/release/defib"));
    if cpus > 1 {
        world = world.pinned_to(0);
    }
    let listener =
        world.net().inside(|| TcpListener::bind(("127.0.0.1", PORT))).context("the server's port")?;
    let plan = Plan { targets: pods * CONTAINERS_PER_POD, script: SCRIPT, delays: Delays::NONE };
    let server = Server::start(listener, plan, (cpus > 1).then_some(cpus - 1))?;
    let manifest = world.write("smoke.yaml", &manifest(pods));

    let watch = Stopwatch::start();
    let mut agent = world.run(&[&manifest], &[]);
    wait_until_probed(&agent, server.counts());
    println!(
        "bench smoke: {} containers started and probed after {:.1} s",
        pods * CONTAINERS_PER_POD,
        watch.elapsed().as_secs_f64()
    );

    let figures = measure(&agent, &world, server.counts(), Duration::from_secs(args.seconds))?;
    heal(server.counts());
    let reported = Reported::compare(&agent, server.counts(), pods);
    let code = agent.terminate();
    ensure!(code == 0, "defib ended with {code} after SIGTERM\n{}", agent.log().all().join("\n"));
    server.stop()?;
    world.assert_nothing_left();
    report(&figures, &reported).finish(args.json.as_deref())
}

/// What happened in the measured window.
struct Figures {
    seconds: f64,
    /// Requests that the server saw, by target.
    requests: Vec<u64>,
    cpu_s: f64,
    rss_bytes: u64,
    pss_bytes: u64,
}

/// Failures served by script, against failures in defib's event stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reported {
    scripted: u64,
    missed: u64,
    /// Reported, but never served.
    false_failures: u64,
}

fn wait_until_probed(agent: &Agent, counts: &Counts) {
    eventually("every container is started and probed", START_MAX, || {
        assert!(!agent.events().has_ended(), "defib ended early\n{}", agent.printed());
        counts.requests.iter().all(|requests| requests.load(Ordering::Relaxed) > 0).then_some(())
    });
    let started = agent.events().count("Started container");
    assert_eq!(
        started,
        counts.requests.len(),
        "each container started once\n{}",
        agent.log().all().join("\n")
    );
}

fn measure(agent: &Agent, world: &World, counts: &Counts, window: Duration) -> Result<Figures> {
    let read = || counts.requests.iter().map(|requests| requests.load(Ordering::Relaxed));
    let before = usage::of_agent(agent.pid(), world.binary())?;
    let requests_before: Vec<u64> = read().collect();
    let watch = Stopwatch::start();
    // The window ends by the clock; an agent that ends before is caught when its usage is read.
    agent.events().wait(0, window, |_| false);
    let requests = read().zip(requests_before).map(|(now, then)| now - then).collect();
    let seconds = watch.elapsed().as_secs_f64();
    let after = usage::of_agent(agent.pid(), world.binary())?;
    Ok(Figures {
        seconds,
        requests,
        cpu_s: after.cpu_s - before.cpu_s,
        rss_bytes: after.rss_bytes,
        pss_bytes: after.pss_bytes,
    })
}

/// Ends the script and waits until every target was probed twice more: what was failed is reported by then.
fn heal(counts: &Counts) {
    counts.healed.store(true, Ordering::Relaxed);
    let read = || counts.requests.iter().map(|requests| requests.load(Ordering::Relaxed));
    let at_heal: Vec<u64> = read().collect();
    eventually("every target is probed twice more", SETTLE_MAX, || {
        read().zip(&at_heal).all(|(now, then)| now >= then + 2).then_some(())
    });
}

impl Reported {
    /// An event names its pod, not its container; the script concerns at most one target of a pod.
    fn compare(agent: &Agent, counts: &Counts, pods: usize) -> Reported {
        let mut reported = vec![0_u64; pods];
        let mut total = Reported::default();
        for line in agent.events().all().iter().filter(|line| line.contains("probe failed")) {
            match pod_of(line).filter(|pod| *pod < pods && line.contains("statuscode: 503")) {
                Some(pod) => reported[pod] += 1,
                None => total.false_failures += 1,
            }
        }
        for (pod, targets) in counts.failed.chunks(CONTAINERS_PER_POD).enumerate() {
            let served: u64 = targets.iter().map(|failed| failed.load(Ordering::Relaxed)).sum();
            total.scripted += served;
            total.missed += served.saturating_sub(reported[pod]);
            total.false_failures += reported[pod].saturating_sub(served);
        }
        total
    }
}

/// The number in `pod/smoke-<number>`.
fn pod_of(line: &str) -> Option<usize> {
    let (_, rest) = line.split_once("pod/smoke-")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn report(figures: &Figures, reported: &Reported) -> Report {
    let expected = figures.requests.len() as f64 * figures.seconds;
    let seen = figures.requests.iter().sum::<u64>() as f64;
    let least = figures.requests.iter().min().copied().unwrap_or_default() as f64;
    let mib = |bytes: u64| bytes as f64 / 1_000_000.0;
    let mut report = Report::new("smoke");
    report.add("containers", figures.requests.len() as f64, "", Bound::None);
    report.add("window", figures.seconds, "s", Bound::None);
    report.add("probes served", seen, "", Bound::None);
    report.add("achieved rate", seen / expected, "", Bound::AtLeast(RATE_MIN));
    // A window that starts and ends between two probes holds one less than its length in periods.
    report.add("slowest target", least, "probes", Bound::AtLeast(figures.seconds.floor() - 1.0));
    report.add("failures by script", reported.scripted as f64, "", Bound::AtLeast(1.0));
    report.add("of them not reported", reported.missed as f64, "", Bound::Exactly(0.0));
    report.add("false failures", reported.false_failures as f64, "", Bound::Exactly(0.0));
    report.add("cpu of defib", figures.cpu_s / figures.seconds, "cores", Bound::Below(CPU_MAX_CORES));
    report.add("cpu per probe", figures.cpu_s * 1e6 / seen, "us", Bound::None);
    report.add("resident memory of defib", mib(figures.rss_bytes), "MB", Bound::Below(RSS_MAX_MB));
    report.add("proportional memory", mib(figures.pss_bytes), "MB", Bound::None);
    report
}

/// One pod after another, each with containers that only sleep and a probe at the server's path of their own.
fn manifest(pods: usize) -> String {
    let mut text = String::new();
    for pod in 0..pods {
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: smoke-{pod}\nspec:\n  \
             terminationGracePeriodSeconds: 2\n  containers:\n"
        );
        for place in 0..CONTAINERS_PER_POD {
            let target = pod * CONTAINERS_PER_POD + place;
            let _ = write!(
                text,
                "  - name: c{place}\n    image: none\n    command: [\"/bin/sleep\", \"100000\"]\n    \
                 livenessProbe:\n      httpGet: {{host: 127.0.0.1, port: {PORT}, path: /t/{target}}}\n      \
                 periodSeconds: 1\n      timeoutSeconds: 1\n      failureThreshold: 1000000\n"
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_has_every_target_once() {
        let text = manifest(2);
        assert_eq!(text.matches("kind: Pod").count(), 2);
        for target in 0..2 * CONTAINERS_PER_POD {
            assert_eq!(text.matches(&format!("path: /t/{target}}}")).count(), 1);
        }
    }

    #[test]
    fn the_script_concerns_at_most_one_target_of_a_pod() {
        for pod in 0..40 {
            let targets = pod * CONTAINERS_PER_POD..(pod + 1) * CONTAINERS_PER_POD;
            assert!(targets.filter(|target| SCRIPT.concerns(*target)).count() <= 1);
        }
    }

    #[test]
    fn events_name_their_pod() {
        assert_eq!(pod_of("2s Warning Unhealthy pod/smoke-17 Liveness probe failed: …"), Some(17));
        assert_eq!(pod_of("2s Warning Unhealthy pod/other Liveness probe failed: …"), None);
    }
}
