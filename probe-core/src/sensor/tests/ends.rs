//! Ends of real processes, with and without programs in the kernel.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::super::{Container, Deaths, Deliver, Key, Looking, Member, Sensor};
use super::scripted::{Script, main_death};
use crate::model::id::{ContainerIx, InstanceId, PodUid};
use crate::model::runtime::{ExitStatus, RuntimeEvent};
use crate::sys::cgroup::Uncounted;
use crate::sys::wake::Waker;
use crate::sys::{clock, pidfd, procfs};

const WATCHDOG: Duration = Duration::from_secs(30);

struct World {
    sensor: Sensor,
    events: mpsc::Receiver<RuntimeEvent>,
    script: Script,
    readable: Option<Arc<Waker>>,
}

impl World {
    fn with_pidfds() -> World {
        World::new(None, Script::default())
    }

    fn with_programs() -> World {
        let script = Script::default();
        World::new(Some(()), script)
    }

    fn new(programs: Option<()>, script: Script) -> World {
        let (sender, events) = mpsc::sync_channel(1_024);
        let deliver: Deliver = Arc::new(move |event| sender.send(event).unwrap());
        let (kernel, readable) = programs.map(|()| script.kernel()).unzip();
        World { sensor: Sensor::start(deliver, kernel).unwrap(), events, script, readable }
    }

    fn announce(&self, number: u32, pid: u32) -> Key {
        self.sensor.announce(Container {
            instance: instance(number),
            pidfd: Arc::new(pidfd::open(pid).unwrap()),
            member: Member { pid, start_ticks: 0, cgroup_id: None },
            execs: None,
            oom: None,
            uncounted: Uncounted::default(),
            kills_together: false,
        })
    }

    fn watch(&self, number: u32, pid: u32) -> Key {
        let key = self.announce(number, pid);
        self.sensor.watch(key).unwrap();
        key
    }

    fn record(&self, key: Key, pid: u32, status: ExitStatus) {
        self.script.die(main_death(key, pid, status));
        self.readable.as_ref().unwrap().wake();
    }

    fn next(&self) -> (InstanceId, ExitStatus) {
        match self.events.recv_timeout(WATCHDOG).unwrap() {
            RuntimeEvent::Exited { instance, status, .. } => (instance, status),
            other => panic!("{other:?}"),
        }
    }

    /// Ends the sensor, which says nothing more.
    fn end(self) {
        drop(self.sensor);
        assert!(self.events.recv_timeout(WATCHDOG).is_err(), "the sender is gone, and nothing was left");
    }
}

fn instance(number: u32) -> InstanceId {
    InstanceId { pod: PodUid(1), container: ContainerIx(0), restart_count: number }
}

/// Pid of a child that only the sensor will reap.
fn shell(script: &str) -> u32 {
    Command::new("/bin/sh").args(["-c", script]).spawn().unwrap().id()
}

/// One that ends with this code when its input is closed.
#[expect(clippy::zombie_processes, reason = "the sensor reaps it")]
fn waiting(code: u32) -> (u32, ChildStdin) {
    let script = format!("read line; exit {code}");
    let mut child: Child =
        Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
    (child.id(), child.stdin.take().unwrap())
}

/// Waits until the sensor has reaped and forgotten everything.
fn wait_reaped(world: &World) {
    // An event of another container comes after everything that was done before.
    let mut number = 1_000;
    while world.sensor.watched() > 0 || world.script.registered() > 0 {
        world.watch(number, shell("exit 0"));
        assert_eq!(world.next().0, instance(number));
        number += 1;
    }
}

#[test]
fn every_kind_of_end_is_told_once() {
    let world = World::with_pidfds();
    let cases = [
        ("exit 0", ExitStatus::Code(0)),
        ("exit 1", ExitStatus::Code(1)),
        ("exit 255", ExitStatus::Code(255)),
        ("kill -TERM $$", ExitStatus::Signal { number: 15, core_dumped: false }),
        ("kill -KILL $$", ExitStatus::Signal { number: 9, core_dumped: false }),
    ];
    for (number, (script, expected)) in (0..).zip(cases) {
        let pid = shell(script);
        world.watch(number, pid);
        assert_eq!(world.next(), (instance(number), expected), "{script}");
        assert_eq!(procfs::stat(pid).unwrap(), None, "{script}: no zombie");
    }
    assert_eq!(world.sensor.watched(), 0);
    assert_eq!(world.sensor.totals().told_by_pidfd, 5);
    world.end();
}

#[test]
fn a_core_dump_is_seen() {
    let world = World::with_pidfds();
    for (limit, may_dump) in [("0", false), ("unlimited", true)] {
        let home = tempfile::tempdir().unwrap();
        let script = format!("cd {}; ulimit -c {limit}; kill -SEGV $$", home.path().display());
        world.watch(0, shell(&script));
        let (_, status) = world.next();
        // A core pattern may send the dump elsewhere, or the hard limit forbid it; a file proves one.
        let dumped = may_dump && std::fs::read_dir(home.path()).unwrap().count() > 0;
        let ExitStatus::Signal { number: 11, core_dumped } = status else { panic!("{status:?}") };
        assert!(core_dumped || !dumped, "a core file, and no flag");
        assert!(may_dump || !core_dumped, "a flag without the right to dump");
    }
}

#[test]
fn a_process_that_ended_before_it_is_watched_is_told() {
    let world = World::with_pidfds();
    let pid = shell("exit 3");
    pidfd::wait_ended(pidfd::open(pid).unwrap().as_fd(), Some(WATCHDOG)).unwrap();
    world.watch(0, pid);
    assert_eq!(world.next(), (instance(0), ExitStatus::Code(3)));
}

#[test]
fn many_deaths_at_once() {
    const CHILDREN: u32 = 300;
    let world = World::with_pidfds();
    let (read, write) = io::pipe().unwrap();
    let spawn = |code: u32| {
        let script = format!("read line; exit {code}");
        let stdin = OwnedFd::from(read.try_clone().unwrap());
        Command::new("/bin/sh").args(["-c", &script]).stdin(stdin).spawn().unwrap().id()
    };
    let children: Vec<u32> = (0..CHILDREN).map(|number| spawn(number % 256)).collect();
    for (number, child) in (0..).zip(children) {
        world.watch(number, child);
    }
    drop((read, write));
    let mut seen: Vec<(InstanceId, ExitStatus)> = (0..CHILDREN).map(|_| world.next()).collect();
    seen.sort_by_key(|(instance, _)| instance.restart_count);
    for (number, (instance, status)) in (0u32..).zip(seen) {
        let code = u8::try_from(number % 256).unwrap();
        assert_eq!((instance.restart_count, status), (number, ExitStatus::Code(code)));
    }
}

#[test]
fn a_record_tells_before_the_process_is_gone() {
    let world = World::with_programs();
    let (pid, stdin) = waiting(3);
    let key = world.watch(0, pid);
    assert_eq!(world.script.registered(), 1);
    world.record(key, pid, ExitStatus::Code(3));
    assert_eq!(world.next(), (instance(0), ExitStatus::Code(3)), "it still runs");
    // A second record, and the end itself, change nothing.
    world.record(key, pid, ExitStatus::Code(4));
    drop(stdin);
    wait_reaped(&world);
    let totals = world.sensor.totals();
    assert_eq!((totals.told_by_record, totals.contradicted), (1, 0), "{totals:?}");
    assert_eq!(world.script.registered(), 0);
    world.end();
}

#[test]
fn what_no_record_tells_the_pidfd_does() {
    let world = World::with_programs();
    let (pid, stdin) = waiting(5);
    let key = world.watch(0, pid);
    // A kernel whose structures could not be read.
    world.script.die(crate::sensor::Death { status: None, ..main_death(key, pid, ExitStatus::Code(0)) });
    world.readable.as_ref().unwrap().wake();
    world.script.lose(1);
    drop(stdin);
    assert_eq!(world.next(), (instance(0), ExitStatus::Code(5)));
    wait_reaped(&world);
    assert_eq!(world.sensor.totals().told_by_record, 0);
    // Asked for after a while, whatever else happens.
    let (pid, stdin) = waiting(0);
    let key = world.watch(1, pid);
    while world.sensor.totals().resyncs == 0 {
        world.record(Key(key.0 + 1_000), pid, ExitStatus::Code(0));
    }
    let totals = world.sensor.totals();
    assert_eq!(totals.lost, 1);
    assert!(totals.late > 0, "nobody's records");
    drop(stdin);
    assert_eq!(world.next(), (instance(1), ExitStatus::Code(0)));
    world.end();
}

#[test]
fn a_status_that_wait_contradicts_is_counted() {
    let world = World::with_programs();
    let (pid, stdin) = waiting(3);
    let key = world.watch(0, pid);
    world.record(key, pid, ExitStatus::Code(4));
    assert_eq!(world.next(), (instance(0), ExitStatus::Code(4)));
    drop(stdin);
    wait_reaped(&world);
    assert_eq!(world.sensor.totals().contradicted, 1);
}

#[test]
fn nothing_is_told_before_the_start_is() {
    let world = World::with_programs();
    let pid = shell("exit 6");
    let key = world.announce(0, pid);
    world.record(key, pid, ExitStatus::Code(6));
    // Another one is told, so the record was read by now.
    let (other, _stdin) = waiting(0);
    let second = world.watch(1, other);
    world.record(second, other, ExitStatus::Code(1));
    assert_eq!(world.next().0, instance(1));
    world.sensor.watch(key).unwrap();
    assert_eq!(world.next(), (instance(0), ExitStatus::Code(6)));
    // And one whose start failed is never told.
    let pid = shell("exit 7");
    let key = world.announce(2, pid);
    world.record(key, pid, ExitStatus::Code(7));
    world.sensor.forget(key);
    pidfd::wait_ended(pidfd::open(pid).unwrap().as_fd(), Some(WATCHDOG)).unwrap();
    world.end();
}

#[test]
fn the_thread_sleeps_when_nothing_is_to_be_looked_for() {
    let world = World::with_pidfds();
    let deliver: Deliver = Arc::new(|_| {});
    let (programs, _readable) = world.script.deaths();
    for (deaths, is_planned) in [(None, false), (Some(Box::new(programs) as Box<dyn Deaths>), true)] {
        let mut looking = Looking::new(&world.sensor.shared, &deliver, deaths);
        looking.plan_look_for_losses(clock::now().mono);
        assert_eq!(looking.sleep().is_some(), is_planned);
        looking.look_for_losses(clock::now());
        assert_eq!(looking.sleep(), None);
    }
}
