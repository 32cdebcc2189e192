//! An engine thread on a real ring, and what came out of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use probe_core::engine::{Clocks, Engine, Inbox, Stats};
use probe_core::model::id::{ContainerIx, InstanceId, PodUid, ProbeKey};
use probe_core::model::probe::{
    Arm, Host, HttpSpecial, HttpTarget, ProbeCmd, ProbeEvent, ProbeKind, RunResult, Target, TcpClose,
    TcpTarget, Verdict,
};
use probe_core::model::time::Mono;
use probe_core::model::tls::{TlsConfig, TlsTarget};
use probe_core::ring::{RingKind, RingOptions};
use probe_core::sys::clock;
use probe_core::wire::{headers, http1, tls, url};

/// How long a test waits for anything before it gives up.
pub const WATCHDOG: Duration = Duration::from_secs(60);
/// Longer than any test: a probe with this period runs once.
pub const ONCE: Duration = Duration::from_secs(3_600);

const SLOTS: u32 = 256;

/// Set in a process that runs one test.
const IS_ALONE: &str = "DEFIB_TEST_IS_ALONE";

/// Makes two tests of each function: one on io_uring, one on epoll.
macro_rules! on_both_rings {
    ($($test:ident),+ $(,)?) => {
        mod uring {
            $(#[test]
            fn $test() {
                super::$test(probe_core::ring::RingKind::Uring);
            })+
        }
        mod epoll {
            $(#[test]
            fn $test() {
                super::$test(probe_core::ring::RingKind::Epoll);
            })+
        }
    };
}
pub(crate) use on_both_rings;

pub struct Bench {
    engine: Option<Engine>,
    inbox: Inbox,
    events: Receiver<ProbeEvent>,
    next_index: u32,
    /// Outcomes by probe that were not asked for yet.
    outcomes: HashMap<u32, Vec<RunResult>>,
}

impl Bench {
    pub fn new(ring: RingKind) -> Bench {
        Bench::with(RingOptions::best(ring, SLOTS))
    }

    pub fn with(options: RingOptions) -> Bench {
        let (sender, events) = channel();
        let deliver = move |out: &mut Vec<ProbeEvent>| {
            for event in out.drain(..) {
                // The test may have ended before the engine.
                let _ = sender.send(event);
            }
        };
        let clocks = Clocks { now: clock::now, boot_ns: clock::boot_ns };
        let engine = Engine::start("engine-test", options, clocks, deliver).unwrap();
        let inbox = engine.inbox();
        Bench { engine: Some(engine), inbox, events, next_index: 0, outcomes: HashMap::new() }
    }

    /// Arms a probe that is due now; returns its index.
    pub fn arm(&mut self, target: Target, period: Duration, timeout: Duration) -> u32 {
        let index = self.next_index;
        self.next_index += 1;
        self.inbox.send(&mut vec![ProbeCmd::Arm(Box::new(Arm {
            probe: ProbeKey { executor: 0, index },
            kind: ProbeKind::Liveness,
            generation: 1,
            instance: InstanceId { pod: PodUid(1), container: ContainerIx(0), restart_count: 0 },
            target: Arc::new(target),
            first_due: clock::mono(),
            period,
            timeout,
            report_successes: u32::MAX,
        }))]);
        index
    }

    pub fn drop_probe(&self, index: u32) {
        self.inbox.send(&mut vec![ProbeCmd::Drop { probe: ProbeKey { executor: 0, index } }]);
    }

    /// Runs a target once; again while the machine is so busy that the engine itself was not there to judge.
    #[track_caller]
    pub fn run(&mut self, target: Target, timeout: Duration) -> RunResult {
        loop {
            let index = self.arm(target.clone(), ONCE, timeout);
            let result = self.next_of(index);
            self.drop_probe(index);
            if result.verdict != Verdict::Inconclusive {
                return result;
            }
        }
    }

    /// The next outcome of that probe.
    #[track_caller]
    pub fn next_of(&mut self, index: u32) -> RunResult {
        while self.outcomes.get(&index).is_none_or(Vec::is_empty) {
            self.take();
        }
        self.outcomes.get_mut(&index).unwrap().remove(0)
    }

    /// Outcomes of that probe that have come by now and were not taken.
    pub fn taken(&mut self, index: u32) -> &[RunResult] {
        while let Ok(event) = self.events.try_recv() {
            self.note(event);
        }
        self.outcomes.get(&index).map_or(&[], Vec::as_slice)
    }

    #[track_caller]
    fn take(&mut self) {
        let event = self.events.recv_timeout(WATCHDOG).expect("no outcome came");
        self.note(event);
    }

    fn note(&mut self, event: ProbeEvent) {
        match event {
            ProbeEvent::Outcome(outcome) => {
                self.outcomes.entry(outcome.probe.index).or_default().push(outcome.result);
            }
            ProbeEvent::ExecDue { .. }
            | ProbeEvent::CallDue { .. }
            | ProbeEvent::CallCut { .. }
            | ProbeEvent::OnceDone { .. }
            | ProbeEvent::Resolve { .. } => {
                panic!("{event:?}")
            }
        }
    }

    /// Ends the engine and returns its final counters. Nothing may be stale.
    pub fn stop(mut self) -> Stats {
        let engine = self.engine.take().unwrap();
        let stats = engine.stop().unwrap();
        assert_eq!(stats.counters.stale_completions, 0);
        assert_eq!((stats.in_flight, stats.armed, stats.timers), (0, 0, 0), "something is left");
        stats
    }
}

/// Runs `test`, known to the harness as `name` with `{ring}` filled in, with no other test in its process.
#[track_caller]
pub fn alone(ring: RingKind, name: &str, test: impl FnOnce()) {
    if std::env::var_os(IS_ALONE).is_some() {
        return test();
    }
    let module = match ring {
        RingKind::Uring => "uring",
        RingKind::Epoll => "epoll",
    };
    let name = &name.replace("{ring}", module);
    let this = std::env::current_exe().unwrap();
    let output =
        Command::new(this).args(["--exact", name, "--nocapture"]).env(IS_ALONE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// An HTTP target as `decide::target` makes it.
pub fn http(addr: SocketAddr, path: &str) -> Target {
    http_with(addr, path, &[])
}

pub fn http_with(addr: SocketAddr, path: &str, given: &[(&str, &str)]) -> Target {
    let given: Vec<(Box<str>, Box<str>)> =
        given.iter().map(|(name, value)| (Box::from(*name), Box::from(*value))).collect();
    get(url::Scheme::Http, addr, path, &given, HttpSpecial::default())
}

/// An HTTPS target; None accepts any certificate.
pub fn https(addr: SocketAddr, path: &str, verify: Option<(TlsConfig, &str)>) -> Target {
    let host = addr.ip().to_string();
    let (config, name) = verify.unwrap_or_else(|| (tls::any_certificate(), &host));
    let tls = Some(TlsTarget { config, server_name: tls::server_name(name) });
    get(url::Scheme::Https, addr, path, &[], HttpSpecial { tls, ..HttpSpecial::default() })
}

/// The same target, on a connection that stays open.
pub fn keeping(mut target: Target) -> Target {
    let Target::Http(http) = &mut target else { panic!("no HTTP target") };
    let keeping = String::from_utf8(http.request.to_vec()).unwrap().replace("Connection: close\r\n", "");
    http.special.get_or_insert_default().keep_alive_request = Some(keeping.into());
    target
}

fn get(
    scheme: url::Scheme,
    addr: SocketAddr,
    path: &str,
    given: &[(Box<str>, Box<str>)],
    special: HttpSpecial,
) -> Target {
    let url = url::Url::for_probe(scheme, &addr.ip().to_string(), addr.port(), path).unwrap();
    let lines = headers::request_headers(given, url.authority(), headers::AGENT_PROBE).unwrap();
    Target::Http(HttpTarget {
        host: Host::Ip(addr.ip()),
        port: addr.port(),
        request: http1::request(&url.request_target(), &lines),
        url: url.text().into(),
        special: (special != HttpSpecial::default()).then(|| Box::new(special)),
    })
}

pub fn tcp(addr: SocketAddr) -> Target {
    Target::Tcp(TcpTarget { host: Host::Ip(addr.ip()), port: addr.port(), close: TcpClose::Reset })
}

/// Verdict and text must be these; `{addr}` in the text is the server's address.
#[track_caller]
pub fn check(id: &str, addr: SocketAddr, result: &RunResult, verdict: Verdict, detail: Option<&str>) {
    let detail = detail.map(|text| text.replace("{addr}", &addr.to_string()));
    assert_eq!((result.verdict, result.detail.as_deref()), (verdict, detail.as_deref()), "{id}");
}

/// The whole run, tidying up apart, took this long.
pub fn took(result: &RunResult) -> Duration {
    let submitted: Mono = result.phases.submitted.unwrap();
    result.phases.done.since(submitted)
}

/// The same target, on a Unix socket.
pub fn at_path(mut target: Target, path: &Path) -> Target {
    match &mut target {
        Target::Http(http) => http.host = Host::Unix(path.into()),
        Target::Tcp(tcp) => tcp.host = Host::Unix(path.into()),
        Target::Grpc(_) | Target::Exec | Target::Broken { .. } => panic!("no network target"),
    }
    target
}
