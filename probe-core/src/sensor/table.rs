//! Every container that is watched, by its key.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, EventFlags};

use super::source::{Death, Key, Member};
use super::watched::{Container, Marks, Next, Stage, Teller, Watched};
use super::{ExitCell, Ready, SensorError};
use crate::model::runtime::{ExitStatus, RuntimeEvent};
use crate::model::time::Now;
use crate::sys::pidfd;

#[derive(Default, Debug)]
pub(super) struct Table {
    last_key: u64,
    watched: HashMap<Key, Watched>,
    /// Deaths that came before `Started` was delivered, and can be told now.
    replay: Vec<(Key, Death)>,
    pub totals: Totals,
}

/// What the sensor has seen. Every death of a main process is in exactly one of the two `told` counts.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct Totals {
    /// Records of the programs in the kernel.
    pub records: u64,
    /// Of them about containers that are not watched any more.
    pub late: u64,
    /// Ends of main processes that a record told.
    pub told_by_record: u64,
    /// Ends of main processes that their pidfd told.
    pub told_by_pidfd: u64,
    /// Ends whose status came out another way when the process was reaped: a defect.
    pub contradicted: u64,
    /// Records that were lost.
    pub lost: u64,
    /// Looks at every container because of that.
    pub resyncs: u64,
}

impl Table {
    pub fn insert(&mut self, container: Container) -> Key {
        self.last_key += 1;
        let key = Key(self.last_key);
        self.watched.insert(key, Watched::new(container));
        key
    }

    pub fn remove(&mut self, key: Key) -> Option<Member> {
        self.watched.remove(&key).map(|watched| watched.container.member)
    }

    /// Removes it if nothing more is to come of it.
    pub fn remove_over(&mut self, key: Key) -> Option<Member> {
        self.watched.get(&key).is_some_and(Watched::is_over).then(|| self.remove(key))?
    }

    pub fn len(&self) -> usize {
        self.watched.len()
    }

    pub fn keys(&self) -> Vec<Key> {
        self.watched.keys().copied().collect()
    }

    /// Lets the kernel tell of its main process and its counter.
    pub fn watch(&mut self, key: Key, epoll: &OwnedFd) -> Result<ExitCell, SensorError> {
        let Some(watched) = self.watched.get_mut(&key) else { return Ok(ExitCell::default()) };
        let Container { instance, member: Member { pid, .. }, .. } = watched.container;
        let added = epoll::add(epoll, &*watched.container.pidfd, Ready::Exit(key).data(), EventFlags::IN);
        added.map_err(|error| match io::Error::from(error) {
            source if matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOSPC)) => {
                SensorError::Descriptors { instance, pid, source }
            }
            source => SensorError::Watch { instance, pid, source },
        })?;
        watched.container.oom = watched.container.oom.take().filter(|watch| {
            let interest = watch.interest() | EventFlags::ET;
            let added = epoll::add(epoll, watch, Ready::Oom(key).data(), interest);
            if let Err(error) = added {
                tracing::warn!(?instance, %error, "kills for memory are not seen before the end");
            }
            added.is_ok()
        });
        self.replay.extend(watched.start().into_iter().map(|death| (key, death)));
        Ok(ExitCell::clone(&watched.status))
    }

    /// Whether somebody has to call [`Table::take_replay`].
    pub fn has_replay(&self) -> bool {
        !self.replay.is_empty()
    }

    pub fn take_replay(&mut self) -> Vec<(Key, Death)> {
        std::mem::take(&mut self.replay)
    }

    pub fn on_death(
        &mut self,
        key: Key,
        death: Death,
        marks: Marks<'_>,
        now: Now,
        out: &mut Vec<RuntimeEvent>,
    ) -> Next {
        let Some(watched) = self.watched.get_mut(&key) else {
            self.totals.records += 1;
            self.totals.late += 1;
            return Next::Nothing;
        };
        // One that comes before the start was told is seen again after it.
        self.totals.records += u64::from(!matches!(watched.stage, Stage::Announced { .. }));
        let was_told = watched.told_by();
        let next = watched.on_death(death, marks, now, out);
        self.totals.count(was_told, watched.told_by());
        next
    }

    /// The main process may have ended: takes its status, so that no zombie stays.
    pub fn reap(
        &mut self,
        key: Key,
        marks: Marks<'_>,
        epoll: &OwnedFd,
        now: Now,
        out: &mut Vec<RuntimeEvent>,
    ) -> Next {
        // A stale readiness finds nobody.
        let Some(watched) = self.watched.get_mut(&key) else { return Next::Nothing };
        if watched.is_reaped || matches!(watched.stage, Stage::Announced { .. }) {
            return Next::Nothing;
        }
        let instance = watched.container.instance;
        let foretold = watched.foretold();
        let status = match pidfd::reap(watched.container.pidfd.as_fd()) {
            Ok(Some(status)) => status,
            Ok(None) => return Next::Nothing,
            // Somebody else took the status: the end is certain, how it came is lost, unless a record told it.
            Err(error) => foretold.unwrap_or_else(|| {
                tracing::error!(?instance, %error, "exit status of a container is lost");
                ExitStatus::Code(u8::MAX)
            }),
        };
        watched.is_reaped = true;
        // The runtime may keep the descriptor for long, so it is not left to the close to unwatch it.
        if let Err(error) = epoll::delete(epoll, &*watched.container.pidfd) {
            tracing::error!(?instance, %error, "cannot stop watching an ended process");
        }
        if let Some(told) = foretold {
            if told != status {
                tracing::error!(
                    ?instance,
                    ?told,
                    ?status,
                    "the kernel's programs told another status than wait"
                );
                self.totals.contradicted += 1;
            }
            return Next::Nothing;
        }
        let start_boot_ns = watched.start_boot_ns();
        let next = watched.on_end(status, start_boot_ns, Teller::Pidfd, marks, now, out);
        self.totals.count(None, watched.told_by());
        next
    }

    /// See [`Watched::give_up`].
    pub fn give_up(&mut self, key: Key) {
        if let Some(watched) = self.watched.get_mut(&key) {
            watched.give_up();
        }
    }

    /// Looks whether something was killed for memory.
    pub fn look(&mut self, key: Key, marks: Marks<'_>, now: Now, out: &mut Vec<RuntimeEvent>) -> Next {
        let Some(watched) = self.watched.get_mut(&key) else { return Next::Settled };
        let was_told = watched.told_by();
        let next = watched.look(marks, now, out);
        self.totals.count(was_told, watched.told_by());
        next
    }
}

impl Totals {
    pub(super) fn log(self) {
        let Totals { records, late, told_by_record, told_by_pidfd, contradicted, lost, resyncs } = self;
        tracing::debug!(
            records,
            late,
            told_by_record,
            told_by_pidfd,
            contradicted,
            lost,
            resyncs,
            "the sensor has ended"
        );
    }

    fn count(&mut self, before: Option<Teller>, after: Option<Teller>) {
        match (before, after) {
            (None, Some(Teller::Record)) => self.told_by_record += 1,
            (None, Some(Teller::Pidfd)) => self.told_by_pidfd += 1,
            (None, None) | (Some(_), _) => {}
        }
    }
}
