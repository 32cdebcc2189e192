//! One-shot probes: lifecycle hooks and `defib probe`.

use std::sync::Arc;
use std::time::Duration;

use super::targets::Job;
use crate::model::id::Ticket;
use crate::model::limits::ENGINE_ONCES_MAX;
use crate::model::probe::Target;
use crate::model::time::Mono;
use crate::ring::Slot;

/// One run outside any schedule.
pub struct Once {
    pub ticket: Ticket,
    pub target: Arc<Target>,
    pub timeout: Duration,
    pub due: Mono,
    /// Where it runs; None while it waits.
    pub slot: Option<Slot>,
    /// It has a place among the calls.
    pub is_called: bool,
}

/// The one-shot probes of a shard that have no answer yet.
#[derive(Default)]
pub struct Onces {
    entries: Vec<(u32, Option<Once>)>,
}

impl Onces {
    /// Takes one in; None when there are too many.
    pub fn add(&mut self, once: Once) -> Option<Job> {
        let place = match self.entries.iter().position(|(_, entry)| entry.is_none()) {
            Some(place) => place,
            None if self.entries.len() < ENGINE_ONCES_MAX => {
                self.entries.push((0, None));
                self.entries.len() - 1
            }
            None => return None,
        };
        let (generation, entry) = &mut self.entries[place];
        *entry = Some(once);
        Some(Job::Once { index: place as u32, generation: *generation })
    }

    pub fn get_mut(&mut self, job: Job) -> Option<&mut Once> {
        let Job::Once { index, generation } = job else { return None };
        let (current, entry) = self.entries.get_mut(index as usize)?;
        entry.as_mut().filter(|_| *current == generation)
    }

    /// Takes one out because it has its answer, or nobody waits for one.
    pub fn take(&mut self, job: Job) -> Option<Ticket> {
        let Job::Once { index, generation } = job else { return None };
        let (current, entry) = self.entries.get_mut(index as usize)?;
        if *current != generation {
            return None;
        }
        let once = entry.take()?;
        *current = current.wrapping_add(1);
        Some(once.ticket)
    }

    /// Takes out the one with this ticket; None when nobody waits for it.
    pub fn take_ticket(&mut self, ticket: Ticket) -> Option<(Job, Once)> {
        let has_ticket = |entry: &Option<Once>| entry.as_ref().is_some_and(|once| once.ticket == ticket);
        let index = self.entries.iter().position(|(_, entry)| has_ticket(entry))?;
        let (generation, entry) = &mut self.entries[index];
        let job = Job::Once { index: index as u32, generation: *generation };
        *generation = generation.wrapping_add(1);
        Some((job, entry.take()?))
    }

    /// The same for one that has a place among the calls.
    pub fn take_called(&mut self, ticket: Ticket) -> Option<Once> {
        let mut entries = self.entries.iter().filter_map(|(_, entry)| entry.as_ref());
        let is_called = entries.any(|once| once.ticket == ticket && once.is_called);
        if is_called { self.take_ticket(ticket).map(|(_, once)| once) } else { None }
    }

    /// Takes all out.
    pub fn drain(&mut self) -> Vec<(Job, Once)> {
        let taken = (0_u32..).zip(&mut self.entries).filter_map(|(index, (generation, entry))| {
            let once = entry.take()?;
            let job = Job::Once { index, generation: *generation };
            *generation = generation.wrapping_add(1);
            Some((job, once))
        });
        taken.collect()
    }
}
