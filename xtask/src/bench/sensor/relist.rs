//! What looking at everything once a second gives, as kubelet's relist does: measured with children of our own.

use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use probe_core::sys::clock;

use super::fixture::{Fixture, Slots};
use super::load::{self, Dice, Turn, until};
use crate::clock::{Stopwatch, pause};

/// `genericPlegRelistPeriod` of pkg/kubelet/kubelet.go.
const PERIOD: Duration = Duration::from_secs(1);
/// A watchdog, not a promise.
const START_MAX: Duration = Duration::from_secs(60);

/// Times from the stamp of each end: noticed, and the next process runs.
pub struct Relisted {
    pub to_decision_ns: Vec<u64>,
    pub to_new_process_ns: Vec<u64>,
}

/// Starts the processes, ends each once while they are looked at every second, and reads the stamps.
pub fn restarts(fixture: &Fixture, containers: usize, dice: &mut Dice) -> Result<Relisted> {
    let slots = fixture.slots(&format!("relist-{containers}-{}", clock::mono().as_ns()), containers)?;
    let mut children =
        Children { running: Vec::with_capacity(containers), noticed_ns: vec![None; containers] };
    for number in 0..containers {
        children.running.push(start(fixture, &slots, number)?);
    }
    until(START_MAX, "every process runs", || slots.have_started(1))?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let looking = scope.spawn(|| children.look_until(&is_over, fixture, &slots));
        let loaded = load::end_each_once(&slots, Turn::ByPace, dice);
        is_over.store(true, Ordering::Relaxed);
        let looked = looking.join().map_err(|_| anyhow::anyhow!("the relist panicked"))?;
        loaded.and(looked)
    })?;
    let mut relisted = Relisted { to_decision_ns: Vec::new(), to_new_process_ns: Vec::new() };
    for (number, noticed) in children.noticed_ns.iter().enumerate() {
        let slot = slots.read(number)?;
        let since_end = |at: Option<u64>| at?.checked_sub(*slot.ends_ns.first()?);
        let what = || format!("process {number} was not restarted: {slot:?}");
        relisted.to_decision_ns.push(since_end(*noticed).with_context(what)?);
        relisted.to_new_process_ns.push(since_end(slot.starts_ns.get(1).copied()).with_context(what)?);
    }
    Ok(relisted)
}

/// Killed when they are dropped.
struct Children {
    running: Vec<Child>,
    /// When the first end of each was seen.
    noticed_ns: Vec<Option<u64>>,
}

impl Children {
    fn look_until(&mut self, is_over: &AtomicBool, fixture: &Fixture, slots: &Slots) -> Result<()> {
        let watch = Stopwatch::start();
        for round in 1.. {
            pause((PERIOD * round).saturating_sub(watch.elapsed()));
            // All are looked at before anything is started, as kubelet does: one list, then its differences.
            let mut ended = Vec::new();
            for (number, child) in self.running.iter_mut().enumerate() {
                if child.try_wait().context("waiting for a process")?.is_some() {
                    self.noticed_ns[number].get_or_insert(clock::mono().as_ns());
                    ended.push(number);
                }
            }
            for number in ended {
                self.running[number] = start(fixture, slots, number)?;
            }
            if is_over.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(())
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.running {
            // Not reaped yet, so the pid is still ours; one that has ended is fine.
            let _ = child.kill();
        }
        for child in &mut self.running {
            let _ = child.wait();
        }
    }
}

fn start(fixture: &Fixture, slots: &Slots, number: usize) -> Result<Child> {
    let mut command = Command::new(fixture.program());
    command.arg("run").arg(slots.path()).arg(number.to_string()).spawn().context("starting the fixture")
}
