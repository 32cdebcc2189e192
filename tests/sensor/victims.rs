//! Killing main processes from outside, each once.

use std::collections::{BTreeMap, HashMap, HashSet};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};
use test_support::{AFTER_A_WHILE, Agent, World, eventually, procs};

use super::random::Random;

/// So many are waited for before the next are killed, as long as there are so many.
const WAVE: usize = 100;

/// A container whose command line ends with a number of its own.
pub struct Victims<'a> {
    agent: &'a Agent,
    /// Kills that each is still to get, by its number.
    left: BTreeMap<usize, u32>,
    /// Main processes that run and were not killed, by pid; with the number of the container.
    alive: HashMap<u32, (usize, procs::Process)>,
    /// Pid and start time of those that were killed.
    killed: HashSet<(u32, u64)>,
    random: Random,
}

impl Victims<'_> {
    pub fn new(agent: &Agent, numbers: impl Iterator<Item = usize>, kills: u32) -> Victims<'_> {
        let left = numbers.map(|number| (number, kills)).collect();
        Victims { agent, left, alive: HashMap::new(), killed: HashSet::new(), random: Random::new() }
    }

    /// Kills until every container has had its kills. Only one that is `ready` is killed.
    pub fn kill_all(&mut self, mut ready: impl FnMut() -> Box<dyn Fn(usize) -> bool>) {
        while !self.left.is_empty() {
            let enough = self.left.len().min(WAVE);
            let mut alive = eventually("containers run again", AFTER_A_WHILE, || {
                self.look();
                let ready = ready();
                let alive = self
                    .alive
                    .values()
                    .filter(|(number, _)| ready(*number) && self.left.contains_key(number));
                let alive: Vec<_> = alive.cloned().collect();
                (alive.len() >= enough).then_some(alive)
            });
            self.random.shuffle(&mut alive);
            // Some stay, so that kills and starts mix.
            alive.truncate(alive.len().div_ceil(2));
            for (number, process) in alive {
                self.kill(number, &process);
            }
        }
    }

    fn look(&mut self) {
        let pids = procs::children_of_main_thread(self.agent.pid());
        let pids: HashSet<u32> = pids.into_iter().collect();
        self.alive.retain(|pid, _| pids.contains(pid));
        for pid in pids {
            if self.alive.contains_key(&pid) {
                continue;
            }
            // One that was just forked has defib's command line, and a dead one has none.
            let Some(process) = procs::process(pid) else { continue };
            let last_word = process.command_line.rsplit_once(' ').map(|(_, last)| last);
            let number =
                last_word.and_then(|word| word.parse().ok()).filter(|number| self.left.contains_key(number));
            if let Some(number) = number
                && !self.killed.contains(&(pid, process.start_ticks))
            {
                self.alive.insert(pid, (number, process));
            }
        }
    }

    fn kill(&mut self, number: usize, process: &procs::Process) {
        let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw).expect("a pid");
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("nobody else ends it");
        // The descriptor is of this very process, not of a later one with its pid.
        let now = procs::process(process.pid).expect("nobody else ends it");
        assert_eq!((now.start_ticks, &now.command_line), (process.start_ticks, &process.command_line));
        assert_ne!(now.state, 'Z');
        self.alive.remove(&process.pid);
        pidfd_send_signal(&pidfd, Signal::KILL).expect("it is alive");
        assert!(self.killed.insert((process.pid, process.start_ticks)), "killed twice");
        let left = self.left.get_mut(&number).expect("it has kills left");
        *left -= 1;
        if *left == 0 {
            self.left.remove(&number);
        }
    }
}

/// Waits until every container of the pods `names` was restarted `kills` times and runs, and checks how the last
/// instance of each ended.
pub fn check_all_killed(world: &World, names: &str, containers: usize, kills: u32) {
    let statuses = eventually("all containers run again", AFTER_A_WHILE, || {
        let statuses = statuses(world, names);
        let runs = |status: &&Value| status["state"]["running"].is_object();
        let is_complete = statuses.iter().filter(runs).count() == containers;
        (is_complete && statuses.iter().all(|status| status["restartCount"].as_u64() >= Some(kills.into())))
            .then_some(statuses)
    });
    for status in statuses {
        assert_eq!(status["restartCount"], kills, "{status}");
        if kills == 0 {
            assert_eq!(status["lastState"], json!({}), "{status}");
            continue;
        }
        let ended = &status["lastState"]["terminated"];
        let facts = [&ended["exitCode"], &ended["signal"], &ended["reason"]];
        assert_eq!(facts, [&json!(137), &json!(9), &json!("Error")], "{status}");
    }
}

/// Of the containers of pods whose name begins so.
fn statuses(world: &World, names: &str) -> Vec<Value> {
    let pods = world.get_json("pods");
    let pods = pods["items"].as_array().into_iter().flatten();
    let named =
        pods.filter(|pod| pod["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(names)));
    named.flat_map(|pod| pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default()).collect()
}
