//! Process deaths as events. One thread sleeps in the kernel until a watched process ends, takes its exit
//! status, and delivers [`RuntimeEvent::Exited`]. Beside it the same thread watches the OOM counter of the
//! container's cgroup and delivers [`RuntimeEvent::ChildOomKilled`].
//!
//! It needs pidfds and the right to wait for them, so it sees the agent's own children: the main processes of
//! the process runtime. They are reaped here and nowhere else.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use thiserror::Error;

use crate::model::id::InstanceId;
use crate::model::limits::{OOM_LOOKS, OOM_SETTLE, SENSOR_BATCH};
use crate::model::runtime::{ExitStatus, OomFacts, OomLimit, RuntimeEvent};
use crate::model::time::Mono;
use crate::sys::cgroup::{OomKills, OomWatch};
use crate::sys::clock;
use crate::sys::wake::Waker;
use crate::sys::{pidfd, procfs};

/// Takes an event; called on the sensor's thread, so it must not block.
pub type Deliver = Arc<dyn Fn(RuntimeEvent) + Send + Sync>;

/// The status of a watched process: empty while it runs, filled before `Exited` is delivered.
pub type ExitCell = Arc<OnceLock<ExitStatus>>;

/// Key of the wake-up among the watched processes.
const STOP: u64 = u64::MAX;
const SIGKILL: u8 = 9;

/// The sensor cannot be started, or cannot watch one more container.
#[derive(Error, Debug)]
pub enum SensorError {
    #[error("cannot start the exit sensor: {operation}: {source}")]
    Start { operation: &'static str, source: io::Error },
    #[error(
        "cannot watch process {pid} of {instance:?}: {source}: each container needs a descriptor, \
         raise the limit on open files (LimitNOFILE= of the unit, ulimit -n)"
    )]
    Descriptors { instance: InstanceId, pid: u32, source: io::Error },
    #[error("cannot watch process {pid} of {instance:?}: {source}")]
    Watch { instance: InstanceId, pid: u32, source: io::Error },
}

/// The thread and its table. Dropping it stops the watching; the processes live on.
#[derive(Debug)]
pub struct Sensor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    epoll: OwnedFd,
    stop: Waker,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Never used twice, so a stale readiness finds nobody.
    next_key: u64,
    watched: HashMap<u64, Watched>,
}

#[derive(Debug)]
struct Watched {
    instance: InstanceId,
    pidfd: Arc<OwnedFd>,
    pid: u32,
    status: ExitCell,
    oom: Option<OomWatch>,
    /// Kills that nobody was told of, and since when.
    untold: Option<(OomKills, Mono)>,
}

/// What a readiness is about: the lowest bit of its number says it, the rest is the entry's key.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Ready {
    Stop,
    Exit(u64),
    Oom(u64),
}

impl Ready {
    fn of(number: u64) -> Ready {
        match (number, number & 1) {
            (STOP, _) => Ready::Stop,
            (_, 0) => Ready::Exit(number >> 1),
            (_, _) => Ready::Oom(number >> 1),
        }
    }

    fn number(self) -> u64 {
        match self {
            Ready::Stop => STOP,
            Ready::Exit(key) => key << 1,
            Ready::Oom(key) => key << 1 | 1,
        }
    }
}

impl Sensor {
    /// Starts the thread. Events are delivered in the order in which the kernel reports the deaths.
    pub fn start(deliver: Deliver) -> Result<Sensor, SensorError> {
        let failed = |operation| move |source| SensorError::Start { operation, source };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|error| failed("epoll_create")(error.into()))?;
        let stop = Waker::new().map_err(failed("eventfd"))?;
        epoll::add(&epoll, &stop, EventData::new_u64(STOP), EventFlags::IN)
            .map_err(|error| failed("epoll_ctl")(error.into()))?;
        let shared = Arc::new(Shared { epoll, stop, table: Mutex::default() });
        let inside = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("defib-sensor".to_owned())
            .spawn(move || run(&inside, &deliver))
            .map_err(failed("thread"))?;
        Ok(Sensor { shared, thread: Some(thread) })
    }

    /// Watches a child that nobody has reaped. Call it after `Started` was delivered: from here on `Exited` may
    /// come at any time, also when the process has ended already.
    pub fn watch(
        &self,
        instance: InstanceId,
        pid: u32,
        pidfd: Arc<OwnedFd>,
        oom: Option<OomWatch>,
    ) -> Result<ExitCell, SensorError> {
        let mut table = self.shared.lock();
        let key = table.next_key;
        table.next_key += 1;
        let data = |ready: Ready| EventData::new_u64(ready.number());
        let epoll = &self.shared.epoll;
        let added = epoll::add(epoll, &*pidfd, data(Ready::Exit(key)), EventFlags::IN);
        added.map_err(|error| {
            let source = io::Error::from(error);
            match source.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE | libc::ENOSPC) => {
                    SensorError::Descriptors { instance, pid, source }
                }
                _ => SensorError::Watch { instance, pid, source },
            }
        })?;
        let oom = oom.filter(|watch| {
            let added = epoll::add(epoll, watch, data(Ready::Oom(key)), watch.interest() | EventFlags::ET);
            if let Err(error) = added {
                tracing::warn!(?instance, %error, "kills for memory are not seen before the end");
            }
            added.is_ok()
        });
        let status = ExitCell::default();
        table
            .watched
            .insert(key, Watched { instance, pidfd, pid, status: Arc::clone(&status), oom, untold: None });
        Ok(status)
    }

    /// Processes that are watched now.
    pub fn watched(&self) -> usize {
        self.shared.lock().watched.len()
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        self.shared.stop.wake();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed where it happened; there is nothing to add at the end.
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    /// A panic under the lock leaves a table that is still right: it changes in single steps.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the entry of a process that has ended. None for a stale report.
    /// Kills of others that it must be told of first come with it.
    fn take(&self, key: u64) -> Option<(Option<RuntimeEvent>, RuntimeEvent)> {
        let mut table = self.lock();
        let watched = table.watched.get(&key)?;
        let status = match pidfd::reap(watched.pidfd.as_fd()) {
            Ok(Some(status)) => status,
            Ok(None) => return None,
            Err(error) => {
                // Somebody else took the status: the end is certain, how it came is lost.
                tracing::error!(instance = ?watched.instance, %error, "exit status of a container is lost");
                ExitStatus::Code(u8::MAX)
            }
        };
        let mut watched = table.watched.remove(&key)?;
        // The runtime may keep the descriptor for long, so it is not left to the close to unwatch it.
        if let Err(error) = epoll::delete(&self.epoll, &*watched.pidfd) {
            tracing::error!(instance = ?watched.instance, %error, "cannot stop watching an ended process");
        }
        // Empty until now: an entry is taken once.
        let _first = watched.status.set(status);
        // The kernel counts before it kills, so the count is there when the victim has ended. SIGKILL and the
        // count are the two witnesses; others that died with the main process say nothing more.
        watched.look_for_kills(clock::now().mono);
        let is_killed = matches!(status, ExitStatus::Signal { number: SIGKILL, .. });
        let (instance, at) = (watched.instance, clock::now());
        let kills = watched.untold.take();
        let oom_killed = is_killed && kills.is_some();
        let children = kills.filter(|_| !oom_killed).map(|(kills, _)| child_oom_killed(instance, kills));
        let exited = RuntimeEvent::Exited { instance, status, oom_killed, at };
        Some((children, exited))
    }

    /// A cgroup has run out of memory, now or a moment ago.
    fn oom(&self, key: u64) -> Oom {
        let now = clock::now().mono;
        let mut table = self.lock();
        let Some(watched) = table.watched.get_mut(&key) else { return Oom::Nothing };
        watched.look_for_kills(now);
        let Some((kills, since)) = watched.untold else {
            let may_come = watched.oom.as_ref().is_some_and(OomWatch::is_early);
            return if may_come { Oom::NotYet } else { Oom::Nothing };
        };
        // The count rises before the victim ends. If that is the main process, its exit takes the count.
        if procfs::is_dying(watched.pid).unwrap_or(true) {
            return Oom::Nothing;
        }
        if now.since(since) < OOM_SETTLE {
            return Oom::NotYet;
        }
        watched.untold = None;
        Oom::Killed(child_oom_killed(watched.instance, kills))
    }
}

/// What the counter of a cgroup says after a notification.
enum Oom {
    Nothing,
    /// Nothing was killed yet, or it is not certain yet who.
    NotYet,
    Killed(RuntimeEvent),
}

impl Watched {
    fn look_for_kills(&mut self, now: Mono) {
        let Some(watch) = &mut self.oom else { return };
        match watch.take() {
            Ok(OomKills { kills: 0, .. }) => {}
            Ok(new) => {
                let (before, _) = self.untold.unwrap_or_default();
                let kills = before.kills + new.kills;
                self.untold = Some((OomKills { kills, own_limit: before.own_limit || new.own_limit }, now));
            }
            Err(error) => {
                tracing::error!(instance = ?self.instance, %error, "kills for memory are not seen any more");
                self.oom = None;
            }
        }
    }
}

fn child_oom_killed(instance: InstanceId, OomKills { kills, own_limit }: OomKills) -> RuntimeEvent {
    let limit = if own_limit { OomLimit::Container } else { OomLimit::Unknown };
    let facts = OomFacts { kills, victim: None, limit };
    RuntimeEvent::ChildOomKilled { instance, facts, at: clock::now() }
}

/// Cgroups that ran out of memory and are looked at again soon.
#[derive(Default)]
struct Early {
    /// Key, and looks so far.
    waiting: Vec<(u64, usize)>,
}

impl Early {
    fn add(&mut self, key: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != key);
        self.waiting.push((key, 0));
    }

    /// How long the thread may sleep: the shortest of the waits. The longer ones then come too early, which
    /// costs a look and no more.
    fn sleep(&self) -> Option<Timespec> {
        let next = self.waiting.iter().filter_map(|(_, looks)| OOM_LOOKS.get(*looks)).min()?;
        Timespec::try_from(*next).ok()
    }

    /// One more look at each; those that were looked at often enough are let go.
    fn look(&mut self, shared: &Shared, deliver: &Deliver) {
        self.waiting.retain_mut(|(key, looks)| match shared.oom(*key) {
            Oom::Nothing => false,
            Oom::Killed(event) => {
                deliver(event);
                false
            }
            Oom::NotYet => {
                *looks += 1;
                *looks < OOM_LOOKS.len()
            }
        });
    }
}

fn run(shared: &Shared, deliver: &Deliver) {
    let mut events: Vec<epoll::Event> = Vec::with_capacity(SENSOR_BATCH);
    let mut early = Early::default();
    loop {
        events.clear();
        let sleep = early.sleep();
        match epoll::wait(&shared.epoll, spare_capacity(&mut events), sleep.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "the exit sensor cannot wait any more; exits are not seen");
                return;
            }
        }
        for event in &events {
            match Ready::of(event.data.u64()) {
                Ready::Stop => return,
                Ready::Exit(key) => {
                    if let Some((children, exited)) = shared.take(key) {
                        children.into_iter().chain([exited]).for_each(&**deliver);
                    }
                }
                Ready::Oom(key) => match shared.oom(key) {
                    Oom::Nothing => {}
                    Oom::NotYet => early.add(key),
                    Oom::Killed(event) => deliver(event),
                },
            }
        }
        early.look(shared, deliver);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::model::id::{ContainerIx, PodUid};

    const WATCHDOG: Duration = Duration::from_secs(30);

    fn sensor() -> (Sensor, mpsc::Receiver<RuntimeEvent>) {
        let (sender, events) = mpsc::sync_channel(1_024);
        let deliver: Deliver = Arc::new(move |event| sender.send(event).unwrap());
        (Sensor::start(deliver).unwrap(), events)
    }

    fn instance(number: u32) -> InstanceId {
        InstanceId { pod: PodUid(1), container: ContainerIx(0), restart_count: number }
    }

    /// Pid of a child that only the sensor will reap.
    fn shell(script: &str) -> u32 {
        Command::new("/bin/sh").args(["-c", script]).spawn().unwrap().id()
    }

    fn watch(sensor: &Sensor, number: u32, pid: u32) {
        let pidfd = Arc::new(pidfd::open(pid).unwrap());
        sensor.watch(instance(number), pid, pidfd, None).unwrap();
    }

    fn next(events: &mpsc::Receiver<RuntimeEvent>) -> (InstanceId, ExitStatus) {
        match events.recv_timeout(WATCHDOG).unwrap() {
            RuntimeEvent::Exited { instance, status, .. } => (instance, status),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_kind_of_end_is_told_once() {
        let (sensor, events) = sensor();
        let cases = [
            ("exit 0", ExitStatus::Code(0)),
            ("exit 1", ExitStatus::Code(1)),
            ("exit 255", ExitStatus::Code(255)),
            ("kill -TERM $$", ExitStatus::Signal { number: 15, core_dumped: false }),
            ("kill -KILL $$", ExitStatus::Signal { number: 9, core_dumped: false }),
        ];
        for (number, (script, expected)) in (0..).zip(cases) {
            let pid = shell(script);
            watch(&sensor, number, pid);
            assert_eq!(next(&events), (instance(number), expected), "{script}");
            assert_eq!(procfs::stat(pid).unwrap(), None, "{script}: no zombie");
        }
        assert_eq!(sensor.watched(), 0);
        drop(sensor);
        assert!(events.recv_timeout(WATCHDOG).is_err(), "no second report, and the sender is gone");
    }

    #[test]
    fn a_core_dump_is_seen() {
        let (sensor, events) = sensor();
        for (limit, may_dump) in [("0", false), ("unlimited", true)] {
            let home = tempfile::tempdir().unwrap();
            let script = format!("cd {}; ulimit -c {limit}; kill -SEGV $$", home.path().display());
            watch(&sensor, 0, shell(&script));
            let (_, status) = next(&events);
            // A core pattern may send the dump elsewhere, or the hard limit forbid it; a file proves one.
            let dumped = may_dump && std::fs::read_dir(home.path()).unwrap().count() > 0;
            let ExitStatus::Signal { number: 11, core_dumped } = status else { panic!("{status:?}") };
            assert!(core_dumped || !dumped, "a core file, and no flag");
            assert!(may_dump || !core_dumped, "a flag without the right to dump");
        }
    }

    #[test]
    fn a_process_that_ended_before_it_is_watched_is_told() {
        let (sensor, events) = sensor();
        let pid = shell("exit 3");
        let pidfd = Arc::new(pidfd::open(pid).unwrap());
        pidfd::wait_ended(pidfd.as_fd(), Some(WATCHDOG)).unwrap();
        sensor.watch(instance(0), pid, pidfd, None).unwrap();
        assert_eq!(next(&events), (instance(0), ExitStatus::Code(3)));
    }

    #[test]
    fn many_deaths_at_once() {
        const CHILDREN: u32 = 300;
        let (sensor, events) = sensor();
        let (read, write) = io::pipe().unwrap();
        let spawn = |code: u32| {
            let script = format!("read line; exit {code}");
            let stdin = read.try_clone().unwrap();
            Command::new("/bin/sh").args(["-c", &script]).stdin(stdin).spawn().unwrap().id()
        };
        let children: Vec<u32> = (0..CHILDREN).map(|number| spawn(number % 256)).collect();
        for (number, child) in (0..).zip(children) {
            watch(&sensor, number, child);
        }
        drop((read, write));
        let mut seen: Vec<(InstanceId, ExitStatus)> = (0..CHILDREN).map(|_| next(&events)).collect();
        seen.sort_by_key(|(instance, _)| instance.restart_count);
        for (number, (instance, status)) in (0u32..).zip(seen) {
            let code = u8::try_from(number % 256).unwrap();
            assert_eq!((instance.restart_count, status), (number, ExitStatus::Code(code)));
        }
    }
}
