//! Process deaths as events. One thread sleeps in the kernel until something of a watched container dies, and
//! delivers [`RuntimeEvent::Exited`] for a main process and [`RuntimeEvent::ChildOomKilled`] for another one that was
//! killed for memory.
//!
//! ```text
//! programs in the kernel ─ Death ─┐                       told at once, with its status and its victim's name
//! pidfd of the main process ──────┼─► Watched ─► events   told when the process can be reaped; reaps it in any case
//! counter of its memory cgroup ───┘                       the second witness of a kill for memory
//! ```
//!
//! The programs are optional ([`Kernel`]). Pidfd and counter are watched beside them: whichever comes first tells, the
//! other then changes nothing, so that a record that was lost costs time and no death. Main processes are children
//! of the agent. They are reaped here and nowhere else.

mod early;
mod source;
mod table;
mod watched;

pub use source::{COMMAND_BYTES, Death, Deaths, Kernel, Key, Mark, Member, Registry};
pub use table::Totals;
pub use watched::Container;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use thiserror::Error;

use crate::model::id::InstanceId;
use crate::model::limits::{DEATHS_PER_PASS_MAX, RESYNC_EVERY, SENSOR_BATCH};
use crate::model::runtime::{ExitStatus, RuntimeEvent};
use crate::model::time::{Mono, Now};
use crate::sys::clock;
use crate::sys::wake::Waker;
use early::Early;
use table::Table;
use watched::{Marks, Next};

/// Takes an event; called on the sensor's thread, so it must not block for long.
pub type Deliver = Arc<dyn Fn(RuntimeEvent) + Send + Sync>;

/// The status of a watched process: empty while it runs, filled before `Exited` is delivered.
pub type ExitCell = Arc<OnceLock<ExitStatus>>;

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

struct Shared {
    epoll: OwnedFd,
    /// Raised for the end, and when there is something to replay.
    wake: Waker,
    is_ending: AtomicBool,
    table: Mutex<Table>,
    registry: Option<Box<dyn Registry>>,
    /// Whether victims are marked.
    has_marks: bool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("table", &self.table).finish_non_exhaustive()
    }
}

/// What a readiness is about. For a container the lowest bit of its number says it, the rest is the key.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Ready {
    /// The sensor ends, or a container was started whose deaths are known already.
    Wake,
    /// The programs in the kernel have told something.
    Deaths,
    Exit(Key),
    Oom(Key),
}

impl Ready {
    const WAKE: u64 = u64::MAX;
    const DEATHS: u64 = u64::MAX - 1;

    fn of(number: u64) -> Ready {
        match (number, number & 1) {
            (Ready::WAKE, _) => Ready::Wake,
            (Ready::DEATHS, _) => Ready::Deaths,
            (_, 0) => Ready::Exit(Key(number >> 1)),
            (_, _) => Ready::Oom(Key(number >> 1)),
        }
    }

    fn data(self) -> EventData {
        EventData::new_u64(match self {
            Ready::Wake => Ready::WAKE,
            Ready::Deaths => Ready::DEATHS,
            Ready::Exit(Key(key)) => key << 1,
            Ready::Oom(Key(key)) => key << 1 | 1,
        })
    }
}

impl Sensor {
    /// Starts the thread. Events are delivered in the order in which the kernel reports the deaths. Without `kernel`
    /// pidfds and counters tell alone.
    pub fn start(deliver: Deliver, kernel: Option<Kernel>) -> Result<Sensor, SensorError> {
        let failed = |operation| move |source| SensorError::Start { operation, source };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|error| failed("epoll_create")(error.into()))?;
        let wake = Waker::new().map_err(failed("eventfd"))?;
        epoll::add(&epoll, &wake, Ready::Wake.data(), EventFlags::IN)
            .map_err(|error| failed("epoll_ctl")(error.into()))?;
        let has_marks = kernel.as_ref().is_some_and(|kernel| kernel.deaths.has_marks());
        let (deaths, registry) = kernel.map(|kernel| (kernel.deaths, kernel.registry)).unzip();
        if let Some(deaths) = &deaths {
            epoll::add(&epoll, deaths.as_fd(), Ready::Deaths.data(), EventFlags::IN)
                .map_err(|error| failed("epoll_ctl")(error.into()))?;
        }
        let shared = Arc::new(Shared {
            epoll,
            wake,
            is_ending: AtomicBool::new(false),
            table: Mutex::default(),
            registry,
            has_marks,
        });
        let inside = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("defib-sensor".to_owned())
            .spawn(move || Looking::new(&inside, &deliver, deaths).run())
            .map_err(failed("thread"))?;
        Ok(Sensor { shared, thread: Some(thread) })
    }

    /// Announces a container before its main process may run, so that none of its deaths is missed. Nothing is
    /// delivered before [`Sensor::watch`].
    pub fn announce(&self, container: Container) -> Key {
        let (instance, member) = (container.instance, container.member);
        let key = self.shared.lock().insert(container);
        if let Some(Err(error)) = self.shared.registry.as_ref().map(|registry| registry.register(key, member))
        {
            tracing::warn!(?instance, %error, "its end is told by its pidfd only");
        }
        key
    }

    /// Call it after `Started` was delivered: from here on `Exited` may come at any time, also when the process has
    /// ended already.
    ///
    /// # Errors
    /// The container is not watched: it is forgotten, and its process must be ended and reaped by the caller.
    pub fn watch(&self, key: Key) -> Result<ExitCell, SensorError> {
        let mut table = self.shared.lock();
        let watching = table.watch(key, &self.shared.epoll);
        let has_replay = table.has_replay();
        drop(table);
        if has_replay {
            self.shared.wake.wake();
        }
        if watching.is_err() {
            self.forget(key);
        }
        watching
    }

    /// Takes back an announcement: the container never started.
    pub fn forget(&self, key: Key) {
        let member = self.shared.lock().remove(key);
        self.shared.unregister(key, member);
    }

    /// Whether victims of the OOM killer are seen in containers that have no counter of their own.
    pub fn names_victims(&self) -> bool {
        self.shared.has_marks
    }

    /// Containers that are watched now.
    pub fn watched(&self) -> usize {
        self.shared.lock().len()
    }

    /// What was seen since the start.
    pub fn totals(&self) -> Totals {
        self.shared.lock().totals
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        self.shared.is_ending.store(true, Ordering::Release);
        self.shared.wake.wake();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed where it happened; there is nothing to add at the end.
            let _panicked = thread.join();
        }
        self.totals().log();
    }
}

impl Shared {
    /// A panic under the lock leaves a table that is still right: it changes in single steps.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unregister(&self, key: Key, member: Option<Member>) {
        if let (Some(registry), Some(member)) = (&self.registry, member) {
            registry.unregister(key, member);
        }
    }
}

/// The thread's own state.
struct Looking<'a> {
    shared: &'a Shared,
    deliver: &'a Deliver,
    deaths: Option<Box<dyn Deaths>>,
    /// Deaths that were lost, as far as a resync has made up for them.
    lost: u64,
    /// When the losses are asked for next; None while nothing has happened since.
    losses_at: Option<Mono>,
    early: Early,
    /// Delivered when the table is free again.
    out: Vec<RuntimeEvent>,
    over: Vec<(Key, Member)>,
}

impl<'a> Looking<'a> {
    fn new(shared: &'a Shared, deliver: &'a Deliver, deaths: Option<Box<dyn Deaths>>) -> Looking<'a> {
        Looking {
            shared,
            deliver,
            deaths,
            lost: 0,
            losses_at: None,
            early: Early::default(),
            out: Vec::with_capacity(SENSOR_BATCH),
            over: Vec::with_capacity(SENSOR_BATCH),
        }
    }

    fn run(mut self) {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(SENSOR_BATCH);
        loop {
            events.clear();
            let sleep = self.sleep().and_then(|sleep| Timespec::try_from(sleep).ok());
            match epoll::wait(&self.shared.epoll, spare_capacity(&mut events), sleep.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the exit sensor cannot wait any more; exits are not seen");
                    return;
                }
            }
            let now = clock::now();
            if !events.is_empty() {
                self.plan_look_for_losses(now.mono);
            }
            // First, since a record says more than a readiness.
            self.take_deaths(now);
            for event in &events {
                match Ready::of(event.data.u64()) {
                    Ready::Wake if self.shared.is_ending.load(Ordering::Acquire) => {
                        // For the last time, so that the totals are whole.
                        return self.look_for_losses(now);
                    }
                    Ready::Wake => self.replay(now),
                    Ready::Deaths => {}
                    Ready::Exit(key) => self.at(key, |looking, table| looking.reap(table, key, now)),
                    Ready::Oom(key) => {
                        // Looks that were planned for an earlier sign would come too late for this one.
                        self.early.forget(key);
                        self.at(key, |looking, table| looking.look(table, key, now));
                    }
                }
            }
            for key in self.early.due(now.mono) {
                self.at(key, |looking, table| looking.look(table, key, now));
            }
            if self.losses_at.is_some_and(|at| at <= now.mono) {
                self.look_for_losses(now);
            }
        }
    }

    /// How long nothing needs to be done; None while nothing waits.
    fn sleep(&self) -> Option<Duration> {
        let next = [self.early.next(), self.losses_at].into_iter().flatten().min()?;
        Some(next.since(clock::now().mono))
    }

    /// Does something with the table, and delivers what comes of it when the table is free.
    fn at(&mut self, key: Key, change: impl FnOnce(&mut Self, &mut Table) -> Next) {
        let shared = self.shared;
        let mut table = shared.lock();
        let next = change(self, &mut table);
        if let Some(member) = table.remove_over(key) {
            self.over.push((key, member));
        }
        drop(table);
        if !self.early.set(key, next, clock::now().mono) {
            shared.lock().give_up(key);
        }
        self.deliver_all();
    }

    fn deliver_all(&mut self) {
        self.out.drain(..).for_each(&**self.deliver);
        for (key, member) in self.over.drain(..) {
            self.shared.unregister(key, Some(member));
        }
    }

    fn take_deaths(&mut self, now: Now) {
        for _ in 0..DEATHS_PER_PASS_MAX {
            let Some(death) = self.deaths.as_mut().and_then(|deaths| deaths.next()) else { return };
            if let Some(key) = death.main_of.or(death.member_of) {
                self.on_death(key, death, now);
            }
        }
    }

    fn replay(&mut self, now: Now) {
        self.shared.wake.clear();
        let early = self.shared.lock().take_replay();
        for (key, death) in early {
            self.on_death(key, death, now);
        }
    }

    fn on_death(&mut self, key: Key, death: Death, now: Now) {
        self.at(key, |looking, table| {
            let marks = Marks(looking.deaths.as_deref_mut());
            table.on_death(key, death, marks, now, &mut looking.out)
        });
    }

    fn reap(&mut self, table: &mut Table, key: Key, now: Now) -> Next {
        let marks = Marks(self.deaths.as_deref_mut());
        table.reap(key, marks, &self.shared.epoll, now, &mut self.out)
    }

    fn look(&mut self, table: &mut Table, key: Key, now: Now) -> Next {
        let marks = Marks(self.deaths.as_deref_mut());
        table.look(key, marks, now, &mut self.out)
    }

    /// Something has happened. Losses are asked for only then, at most every [`RESYNC_EVERY`], since a full ring buffer
    /// always comes with records to read. Without the programs nothing is planned: nobody would look, and the thread
    /// would never sleep again.
    fn plan_look_for_losses(&mut self, now: Mono) {
        if self.deaths.is_some() {
            self.losses_at.get_or_insert(now.after(RESYNC_EVERY));
        }
    }

    /// Whether records were lost; if so, looks at every container: has its main process ended, was something of it
    /// killed?
    fn look_for_losses(&mut self, now: Now) {
        self.losses_at = None;
        let Some(deaths) = &mut self.deaths else { return };
        let lost = deaths.lost();
        if lost == self.lost {
            return;
        }
        tracing::warn!(lost = lost - self.lost, "records of deaths were lost: looking at every container");
        self.lost = lost;
        let keys = {
            let mut table = self.shared.lock();
            table.totals.lost = lost;
            table.totals.resyncs += 1;
            table.keys()
        };
        for key in keys {
            self.at(key, |looking, table| looking.reap(table, key, now));
            self.at(key, |looking, table| looking.look(table, key, now));
        }
    }
}

#[cfg(test)]
mod tests;
