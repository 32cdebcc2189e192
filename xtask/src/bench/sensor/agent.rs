//! Restarts by a real defib: decisions from its trace, new processes from the stamps that they write.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use test_support::World;

use super::fixture::{Fixture, Slots};
use super::load::{self, Dice, Turn, until};
use crate::bench::usage::{self, Usage};
use crate::clock::{Stopwatch, pause};

const CONTAINERS_PER_POD: usize = 10;
/// The first restart of a container never waits; no container is restarted twice.
const RESTART_PERIOD: &str = "1s";
/// `defib::decided` says when a decision was made, the rest only what is wrong.
const LOG_FILTER: &str = "info,defib::decided=trace";
/// After the start, so that nothing of it is measured; then as long for what an idle agent uses.
const IDLE: Duration = Duration::from_secs(5);

/// The sensor looks for losses ten times a second.
const LOSSES_AFTER: Duration = Duration::from_secs(1);

/// Watchdogs, not promises.
const START_MAX: Duration = Duration::from_secs(300);
const END_MAX: Duration = Duration::from_secs(120);

/// What one run has shown.
#[derive(Default)]
pub struct Restarts {
    /// From the stamp of the end.
    pub to_decision_ns: Vec<u64>,
    pub to_new_process_ns: Vec<u64>,
    pub resident_bytes: u64,
    pub idle_cores: f64,
    pub cpu_per_restart_s: f64,
}

/// Starts the containers, ends each once, and joins what the agent and the processes have written.
pub fn restarts(
    binary: &Path,
    fixture: &Fixture,
    sensor: &'static str,
    containers: usize,
    dice: &mut Dice,
) -> Result<Restarts> {
    let world = World::of_binary(binary.to_owned());
    let slots = fixture.slots(&format!("{sensor}-{}", world.net().inode()), containers)?;
    let manifest = world.write("pods.yaml", &manifest(fixture, &slots));
    let mut running = Running::start(&world, &manifest, &["--sensor", sensor])?;
    until(START_MAX, "every container runs", || {
        running.ensure_alive()?;
        slots.have_started(1)
    })?;
    let uids = pod_uids(&world);
    pause(IDLE);
    let (before_idle, watch) = (running.usage(&world)?, Stopwatch::start());
    pause(IDLE);
    let (idle, seconds) = (running.usage(&world)?, watch.elapsed().as_secs_f64());
    load::end_each_once(&slots, Turn::AfterRestart, dice)?;
    let busy = running.usage(&world)?;
    running.terminate()?;
    world.assert_nothing_left();
    let mut restarts = join(&running.log()?, &slots, &uids)?;
    restarts.resident_bytes = busy.rss_bytes;
    restarts.idle_cores = (idle.cpu_s - before_idle.cpu_s) / seconds;
    restarts.cpu_per_restart_s = (busy.cpu_s - idle.cpu_s) / containers as f64;
    Ok(restarts)
}

/// Ends as fast as the machine can make them.
#[derive(Copy, Clone, Debug)]
pub struct Flood {
    pub ends: u64,
    pub seconds: f64,
    /// Records that the sensor says it has lost.
    pub lost: u64,
}

/// Containers that make processes as fast as they can, each end a record; and one that keeps defib there until it has
/// looked for losses.
pub fn flood(binary: &Path, fixture: &Fixture, containers: usize, ends_each: u64) -> Result<Flood> {
    let world = World::of_binary(binary.to_owned());
    let slots = fixture.slots("flood", containers + 1)?;
    let mut text = String::new();
    for number in 0..=containers {
        let (count, file, number_text) = (ends_each.to_string(), path(&slots), number.to_string());
        write_pod(&mut text, number, "Never");
        if number < containers {
            write_container(&mut text, 0, fixture, &["fork", &count, &file, &number_text]);
        } else {
            write_container(&mut text, 0, fixture, &["run", &file, &number_text]);
        }
    }
    let manifest = world.write("flood.yaml", &text);
    let mut running = Running::start(&world, &manifest, &["--sensor", "ebpf"])?;
    until(START_MAX, "every container has made its processes", || {
        running.ensure_alive()?;
        let ended = (0..containers).map(|number| Ok(slots.read(number)?.ends_ns.len() == 1));
        Ok(ended.collect::<Result<Vec<_>>>()?.into_iter().all(|ended| ended))
    })?;
    pause(LOSSES_AFTER);
    until(START_MAX, "the last container runs", || Ok(slots.read(containers)?.starts_ns.len() == 1))?;
    slots.end(containers)?;
    until(END_MAX, "defib ends with its containers", || running.has_ended())?;
    world.assert_nothing_left();
    let (mut first_ns, mut last_ns) = (u64::MAX, 0);
    for number in 0..containers {
        let slot = slots.read(number)?;
        let (start, end) = slot.starts_ns.first().zip(slot.ends_ns.first()).context("a flood broke off")?;
        first_ns = first_ns.min(*start);
        last_ns = last_ns.max(*end);
    }
    let ends = ends_each * containers as u64;
    Ok(Flood { ends, seconds: (last_ns - first_ns) as f64 / 1e9, lost: lost(&running.log()?) })
}

/// A `defib run` whose output goes to files: nobody is woken by it while it is measured. Killed when dropped.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(world: &World, manifest: &str, args: &[&str]) -> Result<Running> {
        let log = world.dir().join("log");
        let file = |path: &Path| File::create(path).with_context(|| format!("{}", path.display()));
        let mut command = Command::new(world.binary());
        command.args(["run", manifest, "--log-format", "json"]).arg("--state-dir").arg(world.state_dir());
        command.args(["--max-container-restart-period", RESTART_PERIOD]).args(args);
        command.env("DEFIB_SOCKET", world.socket()).env("DEFIB_LOG", LOG_FILTER).stdin(Stdio::null());
        command.stdout(file(&world.dir().join("events"))?).stderr(file(&log)?);
        let child = world.net().inside(|| command.spawn()).context("starting defib")?;
        Ok(Running { child, log })
    }

    fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("waiting for defib")?.is_some())
    }

    fn ensure_alive(&mut self) -> Result<()> {
        if self.has_ended()? {
            bail!("defib ended early\n{}", self.log()?);
        }
        Ok(())
    }

    fn usage(&self, world: &World) -> Result<Usage> {
        usage::of_agent(self.child.id(), world.binary())
    }

    fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).context("the log of defib")
    }

    fn terminate(&mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("SIGTERM to defib")?;
        until(END_MAX, "defib ends after SIGTERM", || self.has_ended())?;
        let status = self.child.wait().context("waiting for defib")?;
        ensure!(status.success(), "defib ended with {status} after SIGTERM\n{}", self.log()?);
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // Not reaped yet, so the pid is still ours.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A line of the trace.
#[derive(Deserialize)]
struct Line {
    fields: Decided,
}

#[derive(Deserialize)]
struct Decided {
    pod: String,
    container: usize,
    restart_count: u32,
    at_ns: u64,
}

/// The first end of every slot with its decision and with the start that followed.
fn join(log: &str, slots: &Slots, uids: &[String]) -> Result<Restarts> {
    let decided = |line: &str| serde_json::from_str(line).ok().map(|Line { fields }| fields);
    let mut decisions = HashMap::new();
    for Decided { pod, container, restart_count, at_ns } in log.lines().filter_map(decided) {
        if restart_count == 0 {
            decisions.entry((pod, container)).or_insert(at_ns);
        }
    }
    let mut restarts = Restarts::default();
    for number in 0..slots.count() {
        let slot = slots.read(number)?;
        let uid = uids.get(number / CONTAINERS_PER_POD).with_context(|| format!("slot {number}: no pod"))?;
        let decided = decisions.get(&(uid.clone(), number % CONTAINERS_PER_POD));
        let decided = decided.with_context(|| format!("slot {number}: no decision in the trace"))?;
        let [end, started] = [slot.ends_ns.first(), slot.starts_ns.get(1)].map(|stamp| {
            stamp.copied().with_context(|| format!("slot {number} was not restarted: {slot:?}"))
        });
        let (end, started) = (end?, started?);
        let since = |at: u64| at.checked_sub(end).with_context(|| format!("slot {number}: before its end"));
        restarts.to_decision_ns.push(since(*decided)?);
        restarts.to_new_process_ns.push(since(started)?);
    }
    Ok(restarts)
}

/// By the number in the pod's name.
fn pod_uids(world: &World) -> Vec<String> {
    let pods = world.get_json("pods");
    let named = |pod: &serde_json::Value| {
        let number: usize = pod["metadata"]["name"].as_str()?.strip_prefix("bench-")?.parse().ok()?;
        Some((number, pod["metadata"]["uid"].as_str()?.to_owned()))
    };
    let mut uids: Vec<(usize, String)> =
        pods["items"].as_array().into_iter().flatten().filter_map(named).collect();
    uids.sort_unstable();
    uids.into_iter().map(|(_, uid)| uid).collect()
}

/// What the sensor's warnings say, together.
fn lost(log: &str) -> u64 {
    let number = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).ok().and_then(|line| line["fields"]["lost"].as_u64())
    };
    log.lines().filter_map(number).sum()
}

fn manifest(fixture: &Fixture, slots: &Slots) -> String {
    let mut text = String::new();
    for number in 0..slots.count() {
        let place = number % CONTAINERS_PER_POD;
        if place == 0 {
            write_pod(&mut text, number / CONTAINERS_PER_POD, "Always");
        }
        write_container(&mut text, place, fixture, &["run", &path(slots), &number.to_string()]);
    }
    text
}

fn write_pod(text: &mut String, number: usize, restart_policy: &str) {
    let _ = write!(
        text,
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: bench-{number}\nspec:\n  \
         restartPolicy: {restart_policy}\n  terminationGracePeriodSeconds: 2\n  containers:\n"
    );
}

fn write_container(text: &mut String, place: usize, fixture: &Fixture, args: &[&str]) {
    let program = fixture.program();
    let _ = writeln!(
        text,
        "  - name: c{place}\n    image: none\n    command: {:?}\n    args: {args:?}",
        [program.to_string_lossy()]
    );
}

fn path(slots: &Slots) -> String {
    slots.path().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_added_up() {
        let log = "text\n{\"fields\":{\"message\":\"lost\",\"lost\":12}}\n{\"fields\":{\"message\":\"other\"}}\n\
                   {\"fields\":{\"message\":\"lost\",\"lost\":3}}";
        assert_eq!((lost(log), lost("")), (15, 0));
    }

    #[test]
    fn the_manifest_has_every_slot_once() {
        let fixture = Fixture::compile().unwrap();
        let slots = fixture.slots("slots", 25).unwrap();
        let text = manifest(&fixture, &slots);
        assert_eq!(text.matches("kind: Pod").count(), 3);
        for number in 0..25 {
            assert_eq!(text.matches(&format!(", \"{number}\"]")).count(), 1);
        }
    }
}
