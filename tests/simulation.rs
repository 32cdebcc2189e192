//! The seeded simulation: the real executor and engine shards on the in-memory twin of the ring, with a runtime,
//! servers, delays and faults made from one number, against an observer that knows the rules and nothing else.
//!
//! `DEFIB_SIM_SEEDS=2000` runs so many seeds (20 by default), `DEFIB_SIM_SEED=7` replays one and prints its trace:
//!
//! ```text
//! DEFIB_SIM_SEED=7 cargo test --release --test simulation -- --nocapture
//! ```

mod simulation {
    pub mod agenda;
    pub mod book;
    pub mod engine_watch;
    pub mod harness;
    pub mod health;
    pub mod observer;
    pub mod plan;
    pub mod pods;
    pub mod runtime;
    pub mod trace;
    pub mod waits;
}

use std::any::Any;
use std::cell::RefCell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use simulation::harness::{self, Report};
use simulation::trace::Mode;

/// Seeds of a plain `cargo test`.
const SEEDS: u64 = 20;
/// Failing seeds that are waited for before the rest is left alone.
const FAILURES_SHOWN: usize = 3;

thread_local! {
    static PANIC_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

#[test]
fn every_seed_keeps_the_rules() {
    if let Some(seed) = number("DEFIB_SIM_SEED") {
        let report = harness::run(seed, Mode::Print);
        println!("seed {seed}: {report:?}");
        return;
    }
    let seeds = number("DEFIB_SIM_SEEDS").or_else(|| number("DEFIB_SIMULATION_SEEDS")).unwrap_or(SEEDS);
    let (reports, failures) = run_seeds(seeds);
    let total = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    println!(
        "{} seeds, {} virtual hours, {} messages: {} probe runs reported, {} of them failed, {} starts, \
         {} liveness kills, {} startup kills, {} refused starts, {} stale inputs, {} deletions, {} killed children",
        reports.len(),
        total(|report| report.virtual_time.as_ns() / 1_000_000_000) / 3_600,
        total(|report| report.messages),
        total(|report| report.counts.runs),
        total(|report| report.counts.failures),
        total(|report| report.counts.starts),
        total(|report| report.counts.liveness_kills),
        total(|report| report.counts.startup_kills),
        total(|report| report.counts.refusals),
        total(|report| report.counts.stale),
        total(|report| report.counts.deletions),
        total(|report| report.counts.child_ooms),
    );
    for (seed, text) in &failures {
        println!("seed {seed} failed: {text}");
        println!("replay: DEFIB_SIM_SEED={seed} cargo test --release --test simulation -- --nocapture");
    }
    assert!(failures.is_empty(), "{} seeds broke a rule, the first is {}", failures.len(), failures[0].0);
    assert!(total(|report| report.counts.liveness_kills) > 0, "nothing was ever killed");
    assert!(total(|report| report.counts.refusals) > 0, "back-off was never met");
}

#[test]
fn a_seed_replays_exactly() {
    let hash = |seed| harness::run(seed, Mode::Silent).hash;
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}

/// Runs seeds 0 and up on all processors. Returns what the good ones came to, and the failed ones in order.
fn run_seeds(seeds: u64) -> (Vec<Report>, Vec<(u64, String)>) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(|info| {
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        PANIC_AT.with_borrow_mut(|place| *place = at);
    }));
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let done = Mutex::new((Vec::new(), Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let result = std::panic::catch_unwind(|| harness::run(seed, Mode::Silent));
                    let mut done = done.lock().expect("no thread panics while it holds the lock");
                    match result {
                        Ok(report) => done.0.push(report),
                        Err(panic) => done.1.push((seed, text_of(&*panic))),
                    }
                    stop.fetch_or(done.1.len() >= FAILURES_SHOWN, Ordering::Relaxed);
                }
            });
        }
    });
    std::panic::set_hook(before);
    let (reports, mut failures) = done.into_inner().expect("all threads have ended");
    failures.sort_by_key(|(seed, _): &(u64, String)| *seed);
    (reports, failures)
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text");
    PANIC_AT.with_borrow(|place| format!("{text} (at {place})"))
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}
