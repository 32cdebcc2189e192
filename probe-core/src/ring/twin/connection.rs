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
    /// When the latest bytes came that were read.
    data_at: Option<Mono>,
}

/// What a receive brings.
pub struct Read {
    pub data: Vec<u8>,
    /// When the last of it came; a FIN that it found behind the data counts.
    pub stamp: Mono,
}

impl Connection {
    pub fn new(to: Peer, world: &World) -> Connection {
        let behaviour = world.behaviour(&to);
        Connection {
            to,
            behaviour,
            established_at: None,
            request_at: None,
            place: 0,
            place_read: 0,
            data_at: None,
        }
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
            // A script that does not begin anew goes on from the first request.
            self.request_at = self.request_at.or(Some(at.after(LATENCY)));
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
    pub fn read(&mut self, world: &World, room: usize, at: Mono) -> Result<Read, Errno> {
        let (mut data, mut stamp) = (Vec::new(), at);
        while let Some((came_at, piece)) = self.come_by(at) {
            match piece {
                Piece::Data(bytes) => {
                    let rest = &bytes[self.place_read..];
                    let count = rest.len().min(room - data.len());
                    if count > 0 {
                        (stamp, self.data_at) = (came_at, Some(came_at));
                    }
                    data.extend_from_slice(&rest[..count]);
                    if count < rest.len() {
                        self.place_read += count;
                        return Ok(Read { data, stamp });
                    }
                    self.place += 1;
                    self.place_read = 0;
                }
                Piece::Again => break,
                Piece::Reset if data.is_empty() => return Err(Errno::CONNRESET),
                Piece::Fin => return Ok(Read { data, stamp: came_at }),
                Piece::Reset => return Ok(Read { data, stamp }),
            }
        }
        let established_at = self.established_at.unwrap_or(Mono::MAX);
        let is_killed = world.killed_after(&self.to, established_at).is_some_and(|killed_at| killed_at <= at);
        if data.is_empty() && is_killed { Err(Errno::CONNRESET) } else { Ok(Read { data, stamp }) }
    }

    /// When the last bytes had come by `now`, if the peer had closed by then.
    pub fn last_data_at(&self, now: Mono) -> Option<Mono> {
        let Some(Behaviour::Accept { script, .. }) = &self.behaviour else { return None };
        let mut data_at = self.data_at;
        for step in &script[self.place..] {
            let came_at = self.step_at(step).filter(|at| *at <= now)?;
            match step.piece {
                Piece::Data(_) => data_at = Some(came_at),
                Piece::Fin => return data_at,
                Piece::Reset | Piece::Again => return None,
            }
        }
        None
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

    /// The next piece of the script and when it came, if that was by `at`.
    fn come_by(&self, at: Mono) -> Option<(Mono, Piece)> {
        let step = self.next_step()?;
        let came_at = self.step_at(step).filter(|came_at| *came_at <= at)?;
        Some((came_at, step.piece.clone()))
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
