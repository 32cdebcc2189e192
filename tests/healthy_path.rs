//! The path of a healthy probe takes no memory, gives none back, and makes no system call but io_uring_enter: watched
//! on the thread of a real engine shard, fed by a real executor shard, against servers on loopback.
//!
//! Each case runs in a process of its own, since a seccomp filter cannot be taken off again. docs/engine.md says what
//! this proves.

mod healthy_path {
    pub mod node;
    pub mod server;
}

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use healthy_path::node::{Node, SLOTS};
use healthy_path::server::Server;
use probe_core::engine::{Counters, coalesce};
use probe_core::model::limits::FAST_PERIOD;
use probe_core::model::probe::{Host, HttpTarget, Target, TcpClose, TcpTarget};
use probe_core::sys::clock;
use probe_core::wire::url::{Scheme, Url};
use probe_core::wire::{headers, http1};
use serde_json::{Value, json};
use test_support::watched::{self, CountingAllocator, Seen};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Set in a process that runs one case.
const IS_ALONE: &str = "DEFIB_TEST_IS_ALONE";
/// The last word of a case that holds.
const HOLDS: &str = "nothing taken";
/// Runs in the window.
const RUNS: u64 = 15_000;
/// Calls of io_uring_enter in one turn: what completions have led to, what is due, two looks after the requests, the wait
/// (two calls before 6.12), and a look for what ended meanwhile.
const ENTERS_PER_TURN_MAX: u64 = 7;
/// A look runs 20 operations (6.13), and a run begins with three: a large burst needs more looks.
const RUNS_PER_LOOK: u64 = 20 / 3;

/// So many targets at such a period.
#[derive(Copy, Clone)]
struct Load {
    targets: u32,
    period_ms: u32,
}

/// A table that doubled would be all but full of them, so one that is not sized for their runs too would grow.
const MANY: Load = Load { targets: 570, period_ms: 100 };
/// Fewer than half of the slots, so that each has its kept connection.
const FEW: Load = Load { targets: 20, period_ms: 10 };

#[test]
fn http() {
    alone("http", || check(MANY, Server::answering(), http_probe, "{}"));
}

#[test]
fn tcp_with_a_reset() {
    alone("tcp_with_a_reset", || check(MANY, Server::answering(), tcp_probe, "{}"));
}

#[test]
fn http_on_kept_connections() {
    let kept = r#"{"defib.dev/liveness.keep-alive": "true"}"#;
    alone("http_on_kept_connections", || check(FEW, Server::keeping(), http_probe, kept));
}

#[test]
fn a_breach_is_seen() {
    alone("a_breach_is_seen", || {
        std::thread::spawn(|| {
            loop {
                watched::follow();
                drop(std::hint::black_box(Box::new(1)));
                // A call that nothing waits for.
                std::hint::black_box(rustix::process::getppid());
            }
        });
        watched::begin();
        let seen = watched::end();
        assert!(seen.allocations > 0 && seen.frees > 0, "{seen:?}");
        assert_eq!(seen.calls.keys().collect::<Vec<_>>(), [&(libc::SYS_getppid as usize)]);
    });
}

/// Probes `server` and watches the engine's thread over [`RUNS`] runs.
fn check(load: Load, server: Server, probe: fn(&Server, u32) -> Value, annotations: &str) {
    let mut annotations: Value = serde_json::from_str(annotations).expect("JSON");
    annotations["defib.dev/liveness.period-ms"] = json!(load.period_ms.to_string());
    let mut node = Node::start();
    // A slot makes its sockets when it is first used, once for all: let all of them be used.
    let target = Arc::new(target(&server, &probe(&server, 0)));
    node.run_at_once(SLOTS, &target);
    // Their first runs come after the window was opened: those take as little as any other.
    node.arm_pods(load.targets, &annotations, |target| probe(&server, target));
    // Commands are read in their order, so all probes are armed when this one has run.
    node.run_at_once(1, &target);

    let opened = clock::mono();
    watched::begin();
    let read_after = node.counters();
    // What differs from it was written after the window was opened.
    let first = node.turn_until(|counters| counters.turns != read_after.turns);
    // Everything is due at once: more than there are slots.
    node.stall(Duration::from_millis(u64::from(load.period_ms) * 2));
    let last = node.turn_until(|counters| counters.runs() >= first.runs() + RUNS);
    let seen = watched::end();
    let window = clock::mono().since(opened);

    assert_eq!(seen, Seen::default(), "(system calls by number)");
    node.assert_all_healthy();
    let of = |count: fn(&Counters) -> u64| count(&last) - count(&first);
    let (runs, turns, enters) = (of(Counters::runs), of(|all| all.turns), of(|all| all.enters));
    println!("{runs} runs in {window:?}: {turns} turns, {enters} calls of io_uring_enter");
    let enters_max = turns * ENTERS_PER_TURN_MAX + runs.div_ceil(RUNS_PER_LOOK);
    assert!(enters > 0 && enters <= enters_max, "{enters} calls in {turns} turns");
    // The kernel takes the wait in whole microseconds, rounded down.
    let period = Duration::from_millis(u64::from(load.period_ms));
    let rate_per_s = u64::from(load.targets) * 1_000 / u64::from(load.period_ms);
    let tick = coalesce(rate_per_s, period < FAST_PERIOD);
    let turn_min = tick - tick / 100;
    assert!(turn_min * (turns as u32) <= window, "{turns} turns in {window:?}");
}

/// What one run outside of any schedule needs to use the same kind of socket.
fn target(server: &Server, probe: &Value) -> Target {
    let (ip, port) = (server.addr().ip(), server.addr().port());
    if probe["httpGet"].is_null() {
        return Target::Tcp(TcpTarget { host: Host::Ip(ip), port, close: TcpClose::Reset });
    }
    let url = Url::for_probe(Scheme::Http, &ip.to_string(), port, "/").expect("a URL");
    let lines = headers::request_headers(&[], url.authority(), headers::AGENT_PROBE).expect("headers");
    Target::Http(HttpTarget {
        host: Host::Ip(ip),
        port,
        request: http1::request(&url.request_target(), &lines),
        url: url.text().into(),
        special: None,
    })
}

fn http_probe(server: &Server, target: u32) -> Value {
    let addr = server.addr();
    json!({"httpGet": {"host": addr.ip().to_string(), "port": addr.port(), "path": format!("/t/{target}")}})
}

fn tcp_probe(server: &Server, _: u32) -> Value {
    let addr = server.addr();
    json!({"tcpSocket": {"host": addr.ip().to_string(), "port": addr.port()}})
}

/// Runs `case`, the test `name`, in a process that ends with it.
#[track_caller]
fn alone(name: &str, case: impl FnOnce()) {
    if std::env::var_os(IS_ALONE).is_some() {
        case();
        println!("{HOLDS}");
        // The watched thread could not even end: that takes system calls.
        std::process::exit(0);
    }
    let this = std::env::current_exe().expect("the path of the running test");
    let output = Command::new(this)
        .args(["--exact", name, "--nocapture"])
        .env(IS_ALONE, "1")
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains(HOLDS), "{text}");
    println!("{text}");
}
