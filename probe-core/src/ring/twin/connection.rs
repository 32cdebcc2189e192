//! One connection of the twin: what a script has sent so far, as the kernel would show it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::KERNEL_TIME;
use super::world::{Behaviour, LATENCY, Piece, Step, World};
use crate::model::time::Mono;
use crate::ring::{Errno, Peer};

pub struct Connection {
    to: Peer,
    /// As it was when the connect was pushed; None: nobody listens.
    behaviour: Option<Behaviour>,
    established_at: Option<Mono>,
    /// When the whole request had come.
    request_at: Option<Mono>,
    /// The next piece of the script, and how much of it has been read.
    place: usize,
    place_read: usize,
}

impl Connection {
    pub fn new(to: Peer, world: &World) -> Connection {
        let behaviour = world.behaviour(&to);
        Connection { to, behaviour, established_at: None, request_at: None, place: 0, place_read: 0 }
    }

    /// When the connect pushed at `since` ends; None: never.
    pub fn connected_at(&self, world: &World, since: Mono) -> Option<Mono> {
        let killed_at = world.killed_after(&self.to, since);
        let by_itself = match &self.behaviour {
            Some(Behaviour::NoPort) => Some(since),
            None | Some(Behaviour::Unreachable) => Some(since.after(2 * LATENCY)),
            Some(Behaviour::BlackHole) => return None,
            Some(Behaviour::Accept { handshake, .. }) => Some(since.after((2 * *handshake).max(KERNEL_TIME))),
        };
        match (by_itself, killed_at) {
            (Some(by_itself), Some(killed_at)) => Some(by_itself.min(killed_at)),
            (by_itself, _) => by_itself,
        }
    }

    /// The connect ends at `at`.
    pub fn connect(&mut self, world: &World, at: Mono) -> Result<u32, Errno> {
        match &self.behaviour {
            Some(Behaviour::Accept { .. }) if world.behaviour(&self.to).is_some() => {
                self.established_at = Some(at);
                world.accept(&self.to);
                Ok(0)
            }
            Some(Behaviour::Unreachable) => Err(Errno::HOSTUNREACH),
            Some(Behaviour::NoPort) => Err(Errno::ADDRNOTAVAIL),
            Some(Behaviour::Accept { .. } | Behaviour::BlackHole) | None => Err(Errno::CONNREFUSED),
        }
    }

    /// `count` bytes of a request of `whole` bytes, from byte `from` on, are sent at `at`.
    pub fn send(
        &mut self,
        world: &World,
        (from, count): (usize, usize),
        whole: usize,
        at: Mono,
    ) -> Result<u32, Errno> {
        let Some(established_at) = self.established_at else { return Err(Errno::NOTCONN) };
        if world.killed_after(&self.to, established_at).is_some_and(|killed_at| killed_at <= at) {
            return Err(Errno::PIPE);
        }
        if from == 0 && self.next_step().is_some_and(|step| step.piece == Piece::Again) {
            (self.place, self.request_at) = (0, None);
        }
        if from + count >= whole {
            self.request_at = Some(at.after(LATENCY));
        }
        Ok(count as u32)
    }

    /// When there is something to read; None: never, as things are.
    pub fn readable_at(&self, world: &World) -> Option<Mono> {
        let established_at = self.established_at?;
        let killed_at = world.killed_after(&self.to, established_at);
        let by_script = self.next_step().and_then(|step| self.step_at(step));
        match (by_script, killed_at) {
            (Some(by_script), Some(killed_at)) => Some(by_script.min(killed_at)),
            (by_script, killed_at) => by_script.or(killed_at),
        }
    }

    /// Reads at `at` what has come, at most `room` bytes; no bytes are the end of the stream.
    pub fn read(&mut self, world: &World, room: usize, at: Mono) -> Result<Vec<u8>, Errno> {
        let mut data = Vec::new();
        while let Some(step) = self.next_step().filter(|step| self.step_at(step).is_some_and(|t| t <= at)) {
            match step.piece.clone() {
                Piece::Data(bytes) => {
                    let rest = &bytes[self.place_read..];
                    let count = rest.len().min(room - data.len());
                    data.extend_from_slice(&rest[..count]);
                    if count < rest.len() {
                        self.place_read += count;
                        return Ok(data);
                    }
                    self.place += 1;
                    self.place_read = 0;
                }
                Piece::Again => break,
                Piece::Fin if data.is_empty() => return Ok(data),
                Piece::Reset if data.is_empty() => return Err(Errno::CONNRESET),
                Piece::Fin | Piece::Reset => return Ok(data),
            }
        }
        let established_at = self.established_at.unwrap_or(Mono::MAX);
        let is_killed = world.killed_after(&self.to, established_at).is_some_and(|killed_at| killed_at <= at);
        if data.is_empty() && is_killed { Err(Errno::CONNRESET) } else { Ok(data) }
    }

    /// Our half ends at `at`: what a script does after a whole request it does after that.
    pub fn shutdown(&mut self, world: &World, at: Mono) -> Result<(), Errno> {
        let established_at = self.established_at.ok_or(Errno::NOTCONN)?;
        if world.killed_after(&self.to, established_at).is_some_and(|killed_at| killed_at <= at) {
            return Err(Errno::NOTCONN);
        }
        self.request_at = self.request_at.or(Some(at.after(LATENCY)));
        Ok(())
    }

    pub fn is_unix(&self) -> bool {
        matches!(self.to, Peer::Unix(_))
    }

    pub fn local_addr(&self, slot: u32) -> Option<SocketAddr> {
        if self.is_unix() {
            return None;
        }
        Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 255, 0, 1)), 32_768 + (slot % 28_000) as u16))
    }

    fn next_step(&self) -> Option<&Step> {
        match &self.behaviour {
            Some(Behaviour::Accept { script, .. }) => Arc::as_ref(script).get(self.place),
            Some(Behaviour::BlackHole | Behaviour::NoPort | Behaviour::Unreachable) | None => None,
        }
    }

    /// When what the step sends is there; None: it waits for a request, or sends nothing.
    fn step_at(&self, step: &Step) -> Option<Mono> {
        if step.piece == Piece::Again {
            return None;
        }
        Some(self.request_at?.after(step.after).after(LATENCY))
    }
}
