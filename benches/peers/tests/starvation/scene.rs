//! A prober at work on its targets, and what it tells.

use std::io::Write;
use std::net::TcpListener;
use std::ops::Range;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peers::{EventLine, Report};
use probe_core::model::time::Mono;
use rustix::process::setpriority_process;
use rustix::thread::sched_getaffinity;
use test_support::server::{Counts, Delays, Ill, Plan, Script, Server};
use test_support::{AFTER_A_WHILE, Lines, NetNs, SOON, eventually};

const HEALTHY: Range<u32> = 0..10_000;
/// They do not answer while the prober is disturbed, so that there are runs that nobody can judge.
const FLICKERING: Range<u32> = 10_000..10_100;
/// They hang from the end of the disturbance on.
const HANGING: Range<u32> = 10_100..10_105;
/// Some of the healthy ones take their time: they are in flight whenever a disturbance begins.
const DELAYS: Delays = Delays { every: 50, lengths: &[Duration::from_millis(300)] };
/// Runs on flickering targets that are under way when the disturbance begins.
const UNDER_WAY: u64 = 5;
/// 2,500 probes a second, which a build without optimisation carries.
const PERIOD: Duration = Duration::from_secs(4);
const TIMEOUT: Duration = Duration::from_secs(1);
const FAILURE_THRESHOLD: u32 = 2;
const PORT: u16 = 19_000;
/// What else the machine does shall not make targets or prober slow; the disturbances are above any niceness.
const NICE: i32 = -20;

/// Of the machine's processors, one for the prober and one for the targets, by number.
#[derive(Clone)]
pub struct Cpus {
    pub prober: String,
    pub server: String,
}

pub struct Scene {
    pub cpus: Cpus,
    prober: Prober,
    server: Server,
    _net: NetNs,
    /// Two probers on one core would disturb each other.
    _alone: MutexGuard<'static, ()>,
}

/// The process; killed when it is dropped, also while it is stopped.
struct Prober {
    child: Child,
    input: ChildStdin,
    lines: Lines,
}

/// All that the prober has told, at its end.
#[derive(Debug)]
pub struct Told {
    events: Vec<EventLine>,
    report: Report,
}

impl Scene {
    /// Returns when each target was probed.
    pub fn start() -> Scene {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (prober_cpu, server_cpu) = two_cpus();
        let cpus = Cpus { prober: prober_cpu.to_string(), server: server_cpu.to_string() };
        let net = NetNs::new();
        let (server, mut child) = net.inside(|| {
            // Threads and processes inherit it from the thread that makes them, here one of their own.
            setpriority_process(None, NICE).expect("setpriority (root rights are needed)");
            let listener = TcpListener::bind(("0.0.0.0", PORT)).expect("a port of a namespace of our own");
            let script = Script { every: usize::MAX, cycle: 1, window_first: 0, window_length: 0 };
            let plan = Plan { targets: HANGING.end as usize, script, delays: DELAYS };
            let server = Server::start(listener, plan, Some(server_cpu)).expect("the targets");
            let child = command(&cpus.prober).spawn().expect("`taskset` of util-linux");
            (server, child)
        });
        let input = child.stdin.take().expect("its input is piped");
        let lines = Lines::collect(child.stdout.take().expect("its output is piped"));
        let mut prober = Prober { child, input, lines };
        prober.lines.wait(0, AFTER_A_WHILE, |line| line == "ready").expect("the prober is ready");
        prober.tell("measure");
        let scene = Scene { cpus, prober, server, _net: net, _alone: alone };
        scene.wait_for_a_round();
        scene
    }

    pub fn pid(&self) -> u32 {
        self.prober.child.id()
    }

    /// Returns when runs are under way that get no answer.
    pub fn hang_those_that_flicker(&self) {
        let counts = self.server.counts();
        set_ill(counts, FLICKERING, Some(Ill::Silence));
        eventually("runs without an answer are under way", SOON, || {
            (sum(&counts.met_ill) >= UNDER_WAY).then_some(())
        });
    }

    /// The disturbance is over: what flickered is well again, and others begin to hang.
    pub fn hang_for_good(&self) {
        set_ill(self.server.counts(), FLICKERING, None);
        set_ill(self.server.counts(), HANGING, Some(Ill::Silence));
    }

    /// Each target that hangs is given up within failureThreshold × period + timeout + 5 %, on the prober's own clock.
    pub fn assert_caught_after(&self, ended: Mono) {
        let bound = (PERIOD * FAILURE_THRESHOLD + TIMEOUT).mul_f64(1.05);
        for target in HANGING {
            let is_it = |line: &str| {
                event(line).is_some_and(|event| event.target == Some(target) && event.reason == "Killing")
            };
            let found = self.prober.lines.wait(0, AFTER_A_WHILE, is_it);
            let (_, line) = found.unwrap_or_else(|| panic!("target {target} hangs, and nobody noticed"));
            let at = Mono::from_ns(event(&line).expect("it was one").at_ns);
            assert!(at >= ended, "target {target} was given up while it was well");
            assert!(at.since(ended) <= bound, "target {target}: {:?} of {bound:?}", at.since(ended));
        }
    }

    /// Lets every target be probed once more, and ends the prober.
    pub fn stop(mut self) -> Told {
        self.wait_for_a_round();
        self.prober.tell("stop");
        let status = eventually("the prober ends", SOON, || self.prober.child.try_wait().expect("wait"));
        assert!(status.success(), "{status}");
        // No line is wanted: the wait is for the end of the stream.
        let _none = self.prober.lines.wait(0, SOON, |_| false);
        let lines = self.prober.lines.all();
        let report = lines.last().map(|line| serde_json::from_str(line)).expect("its report");
        Told {
            events: lines.iter().filter_map(|line| event(line)).collect(),
            report: report.expect("a report in JSON"),
        }
    }

    fn wait_for_a_round(&self) {
        let requests = &self.server.counts().requests;
        let read = |target: u32| requests[target as usize].load(Ordering::Relaxed);
        let before: Vec<u64> = HEALTHY.map(read).collect();
        eventually("every healthy target is probed", AFTER_A_WHILE, || {
            HEALTHY.zip(&before).all(|(target, before)| read(target) > *before).then_some(())
        });
    }
}

impl Told {
    /// Nothing was said of a healthy target, and of no other one that it was worse than it was.
    pub fn assert_nothing_false(&self) {
        let is_false = |event: &&EventLine| event.target.is_none_or(|target| HEALTHY.contains(&target));
        let wrong: Vec<&EventLine> = self.events.iter().filter(is_false).collect();
        assert!(wrong.is_empty(), "{} events about healthy targets: {:?}", wrong.len(), wrong.first());
    }

    /// There were runs that nobody could judge, and they are shown.
    pub fn assert_inconclusive(&self) {
        assert!(self.report.inconclusive >= 1, "{:?}", self.report);
    }

    pub fn lateness_p99(&self) -> Duration {
        Duration::from_micros(self.report.lateness_us.expect("probes were made").p99)
    }
}

impl Prober {
    fn tell(&mut self, word: &str) {
        writeln!(self.input, "{word}").expect("the prober runs");
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(cpu: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", cpu, env!("CARGO_BIN_EXE_peer-defib"), "--events"]);
    let numbers = [
        ("--targets", u128::from(HANGING.end)),
        ("--period-ms", PERIOD.as_millis()),
        ("--timeout-ms", TIMEOUT.as_millis()),
        ("--port", u128::from(PORT)),
        ("--failure-threshold", u128::from(FAILURE_THRESHOLD)),
    ];
    for (flag, value) in numbers {
        command.args([flag, &value.to_string()]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// The first and the last that this process may use.
fn two_cpus() -> (usize, usize) {
    let allowed = sched_getaffinity(None).expect("sched_getaffinity");
    let mut all = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    let first = all.next().expect("a thread runs somewhere");
    (first, all.next_back().expect("two CPUs are needed"))
}

fn event(line: &str) -> Option<EventLine> {
    serde_json::from_str(line).ok()
}

fn set_ill(counts: &Counts, targets: Range<u32>, ill: Option<Ill>) {
    targets.for_each(|target| counts.set_ill(target as usize, ill));
}

fn sum(counts: &[AtomicU64]) -> u64 {
    counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
}
