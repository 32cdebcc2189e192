//! What is called a kill for memory: counters in files of the test's own, and marks by script.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::super::watched::{Container, Marks, Next, Teller, Watched};
use super::super::{Key, Mark, Member};
use super::scripted::{Script, Scripted, child_death, main_death};
use crate::model::id::{ContainerIx, InstanceId, PodUid};
use crate::model::limits::{OOM_NAMING, OOM_SETTLE, OOM_SPARED};
use crate::model::runtime::{ExitStatus, OomFacts, OomLimit, OomVictim, RuntimeEvent};
use crate::model::time::{Mono, Now, Wall};
use crate::sys::cgroup::{Group, Uncounted};
use crate::sys::pidfd;

const KILLED: ExitStatus = ExitStatus::Signal { number: 9, core_dumped: false };
const KEY: Key = Key(1);
const CHILD: u32 = 77;
/// No process has this pid.
const GONE: u32 = u32::MAX;
const MARK: Mark = Mark { rss_bytes: Some(4_096) };

/// How much a container's host can tell.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Host {
    has_counter: bool,
    has_programs: bool,
    kills_together: bool,
}

const FULL: Host = Host { has_counter: true, has_programs: true, kills_together: false };

struct World {
    dir: TempDir,
    watched: Watched,
    script: Script,
    deaths: Option<Scripted>,
    now_ms: u64,
    out: Vec<RuntimeEvent>,
}

impl World {
    /// A container whose main process is this one: it lives.
    fn new(host: Host) -> World {
        let dir = tempfile::tempdir().unwrap();
        let script = Script::default();
        let deaths = host.has_programs.then(|| script.deaths().0);
        if host.has_counter {
            write_counters(&dir, 0, 0);
        }
        let pid = std::process::id();
        let watched = Watched::new(Container {
            instance: InstanceId { pod: PodUid(1), container: ContainerIx(0), restart_count: 0 },
            pidfd: Arc::new(pidfd::open(pid).unwrap()),
            member: Member { pid, start_ticks: 0, cgroup_id: None },
            execs: Some(Group::at(dir.path().to_owned(), Vec::new()).execs()),
            oom: Group::at(dir.path().to_owned(), Vec::new()).oom_watch().unwrap(),
            uncounted: Uncounted::default(),
            kills_together: host.kills_together,
        });
        let mut world = World { dir, watched, script, deaths, now_ms: 1_000, out: Vec::new() };
        world.watched.start();
        world
    }

    fn now(&self) -> Now {
        Now { mono: Mono::from_ns(self.now_ms * 1_000_000), wall: Wall::default() }
    }

    fn wait(&mut self, time: Duration) {
        self.now_ms += u64::try_from(time.as_millis()).unwrap();
    }

    /// The kernel has counted so many kills so far, at the container's own limit.
    fn count(&self, kills: u64) {
        write_counters(&self.dir, kills, kills);
    }

    fn mark_main(&self) {
        self.script.mark(std::process::id(), MARK);
    }

    fn main_dies(&mut self, status: ExitStatus) -> Next {
        let now = self.now();
        match &mut self.deaths {
            None => self.watched.on_end(status, 0, Teller::Pidfd, Marks(None), now, &mut self.out),
            Some(deaths) => {
                let death = main_death(KEY, std::process::id(), status);
                self.watched.on_death(death, Marks(Some(deaths)), now, &mut self.out)
            }
        }
    }

    fn child_dies(&mut self, pid: u32, status: ExitStatus) -> Next {
        self.child_dies_in(None, pid, status)
    }

    /// In this folder directly below the container's own.
    fn child_dies_in(&mut self, cgroup_child_id: Option<u64>, pid: u32, status: ExitStatus) -> Next {
        let now = self.now();
        let death = super::super::Death { at: now.mono, cgroup_child_id, ..child_death(KEY, pid, status) };
        let marks = Marks(self.deaths.as_mut().map(|deaths| deaths as _));
        self.watched.on_death(death, marks, now, &mut self.out)
    }

    fn look(&mut self) -> Next {
        let now = self.now();
        let marks = Marks(self.deaths.as_mut().map(|deaths| deaths as _));
        self.watched.look(marks, now, &mut self.out)
    }

    /// What was said: the facts of killed children, and of the end whether it was for memory.
    fn said(&mut self) -> Vec<Result<OomFacts, bool>> {
        let said = self.out.drain(..).map(|event| match event {
            RuntimeEvent::ChildOomKilled { facts, .. } => Ok(facts),
            RuntimeEvent::Exited { oom_killed, .. } => Err(oom_killed),
            other => panic!("{other:?}"),
        });
        said.collect()
    }
}

fn moment(event: &RuntimeEvent) -> Mono {
    match event {
        RuntimeEvent::ChildOomKilled { at, .. } => at.mono,
        other => panic!("{other:?}"),
    }
}

fn write_counters(dir: &TempDir, ooms: u64, kills: u64) {
    fs::write(dir.path().join("memory.events"), format!("oom {ooms}\noom_kill {kills}\n")).unwrap();
    fs::write(dir.path().join("memory.events.local"), format!("oom {ooms}\noom_kill {kills}\n")).unwrap();
}

fn named(pid: u32, rss_bytes: Option<u64>, limit: OomLimit) -> OomFacts {
    OomFacts {
        kills: 1,
        victim: Some(OomVictim { pid, command: "work".into(), rss_bytes, is_exec: false }),
        limit,
    }
}

fn unnamed(kills: u64) -> OomFacts {
    OomFacts { kills, victim: None, limit: OomLimit::Container }
}

#[test]
fn a_main_process_needs_two_witnesses() {
    // Counter, programs; counted, marked, status; whether for memory.
    let cases = [
        (true, true, 1, true, KILLED, true),
        (true, true, 0, true, KILLED, false),
        (true, true, 0, false, KILLED, false),
        (true, true, 1, true, ExitStatus::Code(137), false),
        (true, false, 1, false, KILLED, true),
        (true, false, 0, false, KILLED, false),
        (false, true, 0, true, KILLED, true),
        (false, true, 0, false, KILLED, false),
        (false, false, 0, false, KILLED, false),
    ];
    for (has_counter, has_programs, counted, marked, status, for_memory) in cases {
        let mut world = World::new(Host { has_counter, has_programs, ..FULL });
        if has_counter {
            world.count(counted);
        }
        if marked {
            world.mark_main();
        }
        assert_eq!(world.main_dies(status), Next::Settled);
        let said = world.said();
        let case = (has_counter, has_programs, counted, marked, status);
        assert_eq!(said.last(), Some(&Err(for_memory)), "{case:?}: {said:?}");
        // A kill that was not its own was another's, whose end has not come yet.
        let others = u64::from(!for_memory && counted > 0);
        assert_eq!(said.len() as u64, 1 + others, "{case:?}");
    }
}

#[test]
fn a_kill_from_outside_while_a_child_is_killed_for_memory() {
    let mut world = World::new(FULL);
    world.count(1);
    assert_eq!(world.main_dies(KILLED), Next::LookAgain, "whose is the kill?");
    assert_eq!(world.said(), []);
    // A second end of the same process changes nothing.
    world.main_dies(KILLED);
    assert_eq!(world.look(), Next::LookAgain);
    // The mark of the main process does not come.
    world.wait(OOM_SETTLE);
    assert_eq!(world.look(), Next::Settled);
    assert_eq!(world.said(), [Err(true)], "SIGKILL and the counter");

    // The mark comes late.
    let mut world = World::new(FULL);
    world.count(1);
    world.main_dies(KILLED);
    world.mark_main();
    assert_eq!(world.look(), Next::Settled);
    assert_eq!(world.said(), [Err(true)]);
}

#[test]
fn a_child_is_named() {
    let mut world = World::new(FULL);
    for kills in 1..=3 {
        world.count(kills);
        world.script.mark(CHILD, MARK);
        world.child_dies(CHILD, KILLED);
        assert_eq!(world.said(), [Ok(named(CHILD, Some(4_096), OomLimit::Container))]);
    }
    // The notification comes late, and says nothing new.
    assert_eq!(world.look(), Next::Settled);
    // Killed by somebody else; ended by itself; marked while it was ending.
    world.child_dies(CHILD, KILLED);
    world.child_dies(CHILD, ExitStatus::Code(0));
    world.script.mark(CHILD, MARK);
    world.child_dies(CHILD, KILLED);
    assert_eq!(world.look(), Next::Settled);
    world.main_dies(ExitStatus::Code(0));
    assert_eq!(world.said(), [Err(false)]);
}

#[test]
fn a_process_of_a_probe_is_known_by_its_cgroup() {
    // The mark comes before the end, or after it. `/proc` knows nothing of this pid.
    for is_late in [false, true] {
        let mut world = World::new(FULL);
        let main = make_folder(&world.dir, "main");
        let own = [(None, false), (Some(main), false)];
        tell_victims(&mut world, 0, is_late, &own);
        // After the first probe or hook.
        let probe = make_folder(&world.dir, "probe");
        tell_victims(&mut world, 2, is_late, &own);
        tell_victims(&mut world, 4, is_late, &[(Some(probe), true)]);
    }
}

/// Each of these folders loses a process, which is of a probe or hook or not.
fn tell_victims(world: &mut World, before: u64, is_late: bool, cases: &[(Option<u64>, bool)]) {
    for ((cgroup_child_id, is_exec), kills) in cases.iter().zip(before + 1..) {
        let mark = |world: &World| world.script.mark(GONE, MARK);
        world.count(kills);
        if !is_late {
            mark(world);
        }
        world.child_dies_in(*cgroup_child_id, GONE, KILLED);
        if is_late {
            mark(world);
            world.look();
        }
        let mut expected = named(GONE, Some(4_096), OomLimit::Container);
        expected.victim.as_mut().unwrap().is_exec = *is_exec;
        assert_eq!(world.said(), [Ok(expected)], "{cgroup_child_id:?}, late: {is_late}");
    }
}

/// Returns its inode.
fn make_folder(container: &TempDir, name: &str) -> u64 {
    let dir = container.path().join(name);
    fs::create_dir(&dir).unwrap();
    fs::metadata(dir).unwrap().ino()
}

#[test]
fn two_children_in_the_same_moment_are_two_reports() {
    let mut world = World::new(FULL);
    world.count(2);
    for pid in [CHILD, CHILD + 1] {
        world.script.mark(pid, MARK);
        world.child_dies(pid, KILLED);
    }
    let moments: Vec<Mono> = world.out.iter().map(moment).collect();
    assert!(moments.is_sorted_by(|a, b| a < b), "{moments:?}");
    let facts = |pid| Ok(named(pid, Some(4_096), OomLimit::Container));
    assert_eq!(world.said(), [facts(CHILD), facts(CHILD + 1)]);
}

#[test]
fn a_kill_from_outside_beside_a_child_that_is_named() {
    // The child's record comes after the main process's end, or its mark does.
    for is_late in [false, true] {
        let mut world = World::new(FULL);
        world.count(1);
        if is_late {
            world.child_dies(CHILD, KILLED);
        }
        assert_eq!(world.main_dies(KILLED), Next::LookAgain);
        world.script.mark(CHILD, MARK);
        if !is_late {
            world.child_dies(CHILD, KILLED);
        }
        assert_eq!(world.look(), Next::Settled);
        assert_eq!(
            world.said(),
            [Ok(named(CHILD, Some(4_096), OomLimit::Container)), Err(false)],
            "{is_late}"
        );
    }
}

#[test]
fn a_limit_that_was_hit_in_vain_says_nothing_later() {
    let mut world = World::new(FULL);
    write_counters(&world.dir, 1, 0);
    assert_eq!(world.look(), Next::LookAgain, "a kill may follow");
    world.watched.give_up();
    assert_eq!(world.look(), Next::Settled);
    // The machine runs out of memory.
    write_counters(&world.dir, 1, 1);
    world.look();
    world.wait(OOM_NAMING);
    world.look();
    let limit = OomLimit::Node;
    assert_eq!(world.said(), [Ok(OomFacts { kills: 1, victim: None, limit })]);
}

#[test]
fn a_child_without_a_counter_is_named() {
    let mut world = World::new(Host { has_counter: false, ..FULL });
    world.script.mark(CHILD, Mark { rss_bytes: None });
    world.child_dies(CHILD, KILLED);
    world.child_dies(CHILD + 1, KILLED);
    assert_eq!(world.said(), [Ok(named(CHILD, None, OomLimit::Unknown))]);
}

#[test]
fn a_mark_after_the_end() {
    let mut world = World::new(FULL);
    world.count(1);
    world.child_dies(CHILD, KILLED);
    assert_eq!(world.look(), Next::LookAgain);
    world.script.mark(CHILD, MARK);
    assert_eq!(world.look(), Next::Settled);
    assert_eq!(world.said(), [Ok(named(CHILD, Some(4_096), OomLimit::Container))]);
}

#[test]
fn a_count_whose_victim_nobody_names() {
    for (has_programs, kills_together, settle) in
        [(true, false, OOM_NAMING), (false, false, OOM_SPARED), (false, true, OOM_SETTLE)]
    {
        let mut world = World::new(Host { has_programs, kills_together, ..FULL });
        world.count(2);
        assert_eq!(world.look(), Next::LookAgain);
        world.wait(settle - Duration::from_millis(1));
        assert_eq!(world.look(), Next::LookAgain);
        world.wait(Duration::from_millis(1));
        assert_eq!(world.look(), Next::Settled);
        assert_eq!(world.said(), [Ok(unnamed(2))]);
    }
}

#[test]
fn without_marks_a_main_process_that_was_spared_is_no_victim() {
    let mut world = World::new(Host { has_programs: false, ..FULL });
    world.count(1);
    world.look();
    world.wait(OOM_SPARED);
    assert_eq!(world.look(), Next::Settled);
    world.main_dies(KILLED);
    assert_eq!(world.said(), [Ok(unnamed(1)), Err(false)], "killed from outside, a moment later");
}

#[test]
fn a_mark_of_a_later_process_is_not_taken() {
    let mut world = World::new(FULL);
    world.child_dies(CHILD, KILLED);
    world.wait(OOM_NAMING + Duration::from_millis(1));
    world.count(1);
    world.script.mark(CHILD, MARK);
    world.look();
    world.wait(OOM_NAMING);
    world.look();
    assert_eq!(world.said(), [Ok(unnamed(1))]);
}

#[test]
fn where_all_are_killed_together_the_main_process_may_be_next() {
    let together = Host { kills_together: true, ..FULL };
    let mut world = World::new(together);
    world.count(1);
    world.script.mark(CHILD, MARK);
    world.child_dies(CHILD, KILLED);
    assert_eq!(world.look(), Next::LookAgain);
    world.count(2);
    world.mark_main();
    world.main_dies(KILLED);
    assert_eq!(world.said(), [Err(true)], "one word for all of it");

    // It lives: its score forbids to kill it.
    let mut world = World::new(together);
    world.count(1);
    world.script.mark(CHILD, MARK);
    world.child_dies(CHILD, KILLED);
    world.look();
    world.wait(OOM_SETTLE);
    assert_eq!(world.look(), Next::Settled);
    assert_eq!(world.said(), [Ok(named(CHILD, Some(4_096), OomLimit::Container))]);
}
