//! What the programs in the kernel cost and hold, without an agent: by the kernel's own statistics.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use aya::sys::Stats;
use probe_core::model::id::PodUid;
use probe_core::sys::cgroup::{Group, Limits, Tree};
use probe_ebpf::{LoadOptions, Loaded, Member, ProgramCost, Reader};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::fixture::Fixture;
use crate::repo::run as run_command;

/// Ends that the mean is made of.
const ENDS: u64 = 20_000;
/// More than the ring buffer holds.
const ENDS_TO_FILL: u64 = 120_000;
/// Key of the container whose processes end; the others count from 2.
const KEY: u64 = 1;
/// Pids and cgroups of containers that only fill the tables: beyond what a kernel gives out.
const PID_BASE: u32 = 1 << 22;
const CGROUP_BASE: u64 = 1 << 40;
/// How often the reading thread looks whether it shall end.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// The mean of one run of the exit program.
#[derive(Copy, Clone, Debug)]
pub struct Cost {
    pub runs: u64,
    pub mean_us: f64,
}

/// A cgroup where those of containers lie. Removed when it is dropped.
pub struct Place {
    tree: Tree,
    group: Group,
}

impl Place {
    pub fn make() -> Result<Place> {
        let tree = Tree::detect()?;
        let group = tree.make(PodUid(u128::from(std::process::id())), "bench.0", Limits::NONE)?;
        Ok(Place { tree, group })
    }

    fn procs(&self) -> PathBuf {
        self.group.main().dir.join("cgroup.procs")
    }

    fn member(&self) -> Result<Member> {
        Ok(Member { pid: PID_BASE, start_ticks: 0, cgroup_id: Some(self.group.id().context("a cgroup")?) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = self.group.remove() {
            eprintln!("bench sensor: {error}");
        }
        self.tree.remove_if_empty();
    }
}

/// Ends of processes that nobody has registered, beside so many registered containers.
pub fn unregistered(fixture: &Fixture, place: &Place, containers: usize) -> Result<Cost> {
    let _statistics = statistics()?;
    let Loaded { registry, reader, exit_program, .. } = load()?;
    fill(&registry, containers)?;
    let cost = measure(&reader, exit_program, || make(fixture, place, ENDS))?;
    ensure!(reader.counts()?.deaths == 0, "an unregistered process was told");
    Ok(cost)
}

/// Ends of processes of one of so many registered containers, while a thread reads the records as they come.
pub fn registered(fixture: &Fixture, place: &Place, containers: usize) -> Result<Cost> {
    let _statistics = statistics()?;
    let Loaded { registry, mut reader, exit_program, .. } = load()?;
    registry.register(KEY, place.member()?)?;
    fill(&registry, containers.saturating_sub(1))?;
    let before = cost(&reader, exit_program)?;
    let is_over = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        let reading = scope.spawn(|| take_until(&mut reader, &is_over));
        let made = make(fixture, place, ENDS);
        is_over.store(true, Ordering::Relaxed);
        let taken = reading.join().map_err(|_| anyhow::anyhow!("the reading thread panicked"))??;
        made.map(|()| taken)
    })?;
    ensure!(taken >= ENDS, "{taken} records of {ENDS} ends, {:?}", reader.counts());
    Ok(mean(before, cost(&reader, exit_program)?))
}

/// The same while nobody reads, so that nobody is woken either. All records have room.
pub fn registered_unread(fixture: &Fixture, place: &Place, containers: usize) -> Result<Cost> {
    let _statistics = statistics()?;
    let Loaded { registry, reader, exit_program, .. } = load()?;
    registry.register(KEY, place.member()?)?;
    fill(&registry, containers.saturating_sub(1))?;
    let cost = measure(&reader, exit_program, || make(fixture, place, ENDS))?;
    ensure!(reader.counts()?.lost == 0, "records were lost that have room");
    Ok(cost)
}

/// Records that the ring buffer takes while nobody reads.
pub fn records_until_loss(fixture: &Fixture, place: &Place) -> Result<u64> {
    let Loaded { registry, reader, .. } = load()?;
    registry.register(KEY, place.member()?)?;
    make(fixture, place, ENDS_TO_FILL)?;
    let counts = reader.counts()?;
    ensure!(counts.lost > 0, "{} records and no loss", counts.deaths);
    Ok(counts.deaths - counts.lost)
}

fn load() -> Result<Loaded> {
    probe_ebpf::load(LoadOptions::default()).context("loading the eBPF programs")
}

/// The kernel measures while this is open.
fn statistics() -> Result<OwnedFd> {
    aya::sys::enable_stats(Stats::RunTime).context("the kernel's statistics of programs")
}

fn fill(registry: &probe_ebpf::Registry, containers: usize) -> Result<()> {
    for number in 1..=u32::try_from(containers)? {
        let cgroup_id = Some(CGROUP_BASE + u64::from(number));
        registry.register(
            KEY + u64::from(number),
            Member { pid: PID_BASE + number, start_ticks: 0, cgroup_id },
        )?;
    }
    Ok(())
}

/// The main process of the fixture is in the cgroup, too, and counts.
fn make(fixture: &Fixture, place: &Place, ends: u64) -> Result<()> {
    let slots = fixture.slots(&format!("forks-{}", probe_core::sys::clock::mono().as_ns()), 1)?;
    let mut command = Command::new(fixture.program());
    command.arg("fork").arg(ends.to_string()).arg(slots.path()).arg("0").arg(place.procs());
    run_command(&mut command)
}

fn take_until(reader: &mut Reader, is_over: &AtomicBool) -> Result<u64> {
    let mut taken = 0;
    loop {
        // Read before the last take: what ended before it was set is in the buffer by then.
        let is_last = is_over.load(Ordering::Relaxed);
        while reader.take_death().is_some() {
            taken += 1;
        }
        if is_last {
            return Ok(taken);
        }
        let ready = poll(&mut [PollFd::from_borrowed_fd(reader.as_fd(), PollFlags::IN)], Some(&LOOK_EVERY));
        ready.context("waiting for records")?;
    }
}

fn measure(reader: &Reader, program: &str, run: impl FnOnce() -> Result<()>) -> Result<Cost> {
    let before = cost(reader, program)?;
    run()?;
    Ok(mean(before, cost(reader, program)?))
}

fn cost(reader: &Reader, program: &str) -> Result<ProgramCost> {
    reader.cost(program).with_context(|| format!("no statistics of program {program}"))
}

/// Ends of others on this machine count as well; they are few.
fn mean(before: ProgramCost, after: ProgramCost) -> Cost {
    let runs = after.runs - before.runs;
    Cost { runs, mean_us: (after.time_ns - before.time_ns) as f64 / 1e3 / runs as f64 }
}
