//! A prober that is starved, stopped or frozen never blames its targets for it, and finds what really hangs as soon as
//! it is back. The prober is a process of its own on defib's real path (schedule, ring, thresholds) with 10,000 healthy
//! targets; what is said of them is read from its events.

#[path = "starvation/scene.rs"]
mod scene;

use std::process::Command;
use std::time::Duration;

use probe_core::sys::clock;
use rustix::process::{Pid, Signal, kill_process};
use test_support::{Freezer, pass};

use scene::{Cpus, Scene};

/// A probe that was not even begun for so long was kept waiting by the disturbance, not by chance.
const DISTURBED: Duration = Duration::from_millis(500);

#[test]
fn a_prober_whose_core_is_burnt_at_higher_priority() {
    const LENGTH_S: &str = "5";
    let scene = Scene::start();
    let Cpus { prober, server } = scene.cpus.clone();
    // A real-time loop leaves the core a twentieth of each second (sched(7)): the engine comes and goes.
    let burner =
        ["chrt", "--fifo", "50", "taskset", "--cpu-list", &prober, "sh", "-c", "while :; do :; done"];
    let mut timeout = Command::new("taskset");
    timeout.args(["--cpu-list", &server, "timeout", "--signal=KILL", LENGTH_S]).args(burner);
    scene.hang_those_that_flicker();
    timeout.status().expect("`taskset`, `chrt` of util-linux and `timeout` of coreutils");
    let ended = clock::mono();
    scene.hang_for_good();
    scene.assert_caught_after(ended);
    let told = scene.stop();
    told.assert_nothing_false();
    assert!(told.lateness_p99() >= DISTURBED, "the core was not burnt: {told:?}");
}

#[test]
fn a_prober_that_is_stopped() {
    const LENGTH: Duration = Duration::from_secs(3);
    let scene = Scene::start();
    let pid = i32::try_from(scene.pid()).ok().and_then(Pid::from_raw).expect("a pid");
    scene.hang_those_that_flicker();
    kill_process(pid, Signal::STOP).expect("it runs");
    pass(LENGTH);
    let ended = clock::mono();
    scene.hang_for_good();
    kill_process(pid, Signal::CONT).expect("it is stopped");
    scene.assert_caught_after(ended);
    let told = scene.stop();
    told.assert_nothing_false();
    told.assert_inconclusive();
}

#[test]
fn a_prober_whose_cgroup_is_frozen() {
    const LENGTH: Duration = Duration::from_secs(10);
    let scene = Scene::start();
    let freezer = Freezer::around(scene.pid());
    scene.hang_those_that_flicker();
    freezer.freeze();
    pass(LENGTH);
    let ended = clock::mono();
    scene.hang_for_good();
    freezer.thaw();
    scene.assert_caught_after(ended);
    drop(freezer);
    let told = scene.stop();
    told.assert_nothing_false();
    told.assert_inconclusive();
}
