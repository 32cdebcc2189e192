//! Look-ups of host names: half of the slots may wait for a resolver, and a quarter for their turn there, so that a
//! resolver that is dead leaves slots to probes of addresses.

use std::net::IpAddr;

use super::io::Io;
use super::run::{Effects, Run, Stage};
use super::text;
use crate::model::probe::{LookupError, Verdict};
use crate::model::time::Mono;
use crate::ring::Ring;

impl Run {
    /// Asks for the address of its host's name, or waits for its turn if there is a place for that.
    pub(super) fn look_up<R: Ring>(
        &mut self,
        io: &mut Io<R>,
        now: Mono,
        name: Box<str>,
        effects: &mut Effects,
    ) {
        // Until somebody looks it up the time is ours.
        if self.paused.is_none() {
            self.pause(io, now);
        }
        if io.may_resolve() {
            self.stage = Stage::Asked;
            io.resolving += 1;
            effects.resolve = Some((name, self.deadline_at));
        } else if io.may_wait_to_resolve() {
            self.stage = Stage::Unresolved;
            io.unresolved.push_back(self.slot);
        } else {
            // So it is not repeated: see `finish`.
            self.stage = Stage::Unresolved;
            let text = self.in_context(text::crowded_lookup(&name));
            self.finish(io, now, Verdict::Errored, text, effects);
            self.ended(io, now, effects);
        }
    }

    /// There is a place among those that resolve.
    pub fn resolve_now<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        if self.stage == Stage::Unresolved {
            self.stage = Stage::Working;
            self.begin_connection(io, now, effects);
        }
    }

    /// The run does not want its host's name looked up any more.
    pub(super) fn end_resolving<R: Ring>(&mut self, io: &mut Io<R>) {
        if self.stage == Stage::Unresolved {
            io.unresolved.retain(|slot| *slot != self.slot);
        } else {
            io.resolving -= 1;
        }
        self.stage = Stage::Working;
    }

    /// Somebody has begun to look the name up: from now on the timeout is the resolver's.
    pub fn resolving<R: Ring>(&mut self, io: &mut Io<R>, now: Mono) {
        if self.stage == Stage::Asked {
            self.stage = Stage::Resolving;
            self.resume(io, now);
        }
    }

    /// The answer to [`Effects::resolve`].
    pub fn resolved<R: Ring>(
        &mut self,
        io: &mut Io<R>,
        now: Mono,
        addr: Result<IpAddr, LookupError>,
        effects: &mut Effects,
    ) {
        if !matches!(self.stage, Stage::Asked | Stage::Resolving) {
            return;
        }
        io.resolving -= 1;
        match addr {
            Ok(ip) => {
                self.resume(io, now);
                self.stage = Stage::Working;
                self.ip = Some(ip);
                self.phases.resolved = Some(now);
                (self.dated_from, self.dated_first) = (now, now);
                self.connect(io, now, effects);
            }
            Err(error) => {
                // One that nobody looked up is not repeated: see `finish`.
                let is_shortage = error.verdict == Verdict::Errored && self.stage == Stage::Resolving;
                io.counters.shortages += u64::from(is_shortage);
                let text = self.in_context(text::lookup(&error.text));
                self.finish(io, now, error.verdict, text, effects);
                self.stage = Stage::Working;
                self.ended(io, now, effects);
            }
        }
    }
}
