//! The network that a twin sees: scripted listeners under addresses.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::model::time::Mono;
use crate::ring::Peer;

/// A network shared by any number of twins of one thread. Addresses at which nobody listens refuse.
#[derive(Clone, Default)]
pub struct World {
    listeners: Rc<RefCell<BTreeMap<Peer, Listener>>>,
}

/// What a listener does with a connection.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// Packets to it vanish.
    BlackHole,
    /// This host has no port left for a connection to it (EADDRNOTAVAIL).
    NoPort,
    /// The host answers that there is no way to it (EHOSTUNREACH).
    Unreachable,
    /// The handshake takes `handshake`; when the whole request has come, the script runs.
    Accept { handshake: Duration, script: Arc<[Step]> },
}

/// One step of a script: `after` the whole request has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    pub after: Duration,
    pub piece: Piece,
}

/// What a server sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    Data(Bytes),
    Fin,
    Reset,
    /// The script begins anew with the next request on this connection.
    Again,
}

/// Time that a packet needs each way.
pub const LATENCY: Duration = Duration::from_micros(50);

impl Behaviour {
    /// Accepts, and runs this script.
    pub fn script(steps: impl IntoIterator<Item = (Duration, Piece)>) -> Behaviour {
        let steps = steps.into_iter().map(|(after, piece)| Step { after, piece }).collect();
        Behaviour::Accept { handshake: LATENCY, script: steps }
    }

    /// Answers `bytes` after `delay` and closes.
    pub fn answer(delay: Duration, bytes: impl Into<Bytes>) -> Behaviour {
        Behaviour::script([(delay, Piece::Data(bytes.into())), (delay, Piece::Fin)])
    }

    /// Answers `bytes` after `delay` to each request on the connection, and leaves it open.
    pub fn keep_alive(delay: Duration, bytes: impl Into<Bytes>) -> Behaviour {
        Behaviour::script([(delay, Piece::Data(bytes.into())), (delay, Piece::Again)])
    }

    /// Accepts and never says anything: a dead-locked server.
    pub fn hang() -> Behaviour {
        Behaviour::script([])
    }

    /// Sends `bytes` one by one, one every `every`, then closes.
    pub fn drip(every: Duration, bytes: impl Into<Bytes>) -> Behaviour {
        let bytes = bytes.into();
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let pieces = (0..count).map(|n| (every * n, Piece::Data(bytes.slice(n as usize..n as usize + 1))));
        Behaviour::script(pieces.chain([(every * count, Piece::Fin)]))
    }

    /// Sends `bytes` after `delay`, then nothing more and no end.
    pub fn partial(delay: Duration, bytes: impl Into<Bytes>) -> Behaviour {
        Behaviour::script([(delay, Piece::Data(bytes.into()))])
    }

    /// Resets the connection `delay` after the request.
    pub fn reset(delay: Duration) -> Behaviour {
        Behaviour::script([(delay, Piece::Reset)])
    }

    /// Closes in order, without an answer.
    pub fn close(delay: Duration) -> Behaviour {
        Behaviour::script([(delay, Piece::Fin)])
    }
}

impl World {
    /// A world in which nobody listens.
    pub fn new() -> World {
        World::default()
    }

    /// From now on `addr` behaves like this; open connections keep their script.
    pub fn listen(&self, addr: impl Into<Peer>, behaviour: Behaviour) {
        let addr = addr.into();
        let mut listeners = self.listeners.borrow_mut();
        match listeners.get_mut(&addr) {
            Some(listener) => listener.behaviour = Some(behaviour),
            None => {
                listeners.insert(
                    addr,
                    Listener { behaviour: Some(behaviour), killed_at: Mono::ZERO, accepted: 0 },
                );
            }
        }
    }

    /// The process behind `addr` dies: new connections are refused, open ones are reset.
    pub fn kill(&self, addr: impl Into<Peer>, now: Mono) {
        if let Some(listener) = self.listeners.borrow_mut().get_mut(&addr.into()) {
            listener.behaviour = None;
            listener.killed_at = now;
        }
    }

    /// Connections that `addr` has accepted so far.
    pub fn accepted(&self, addr: impl Into<Peer>) -> u64 {
        self.listeners.borrow().get(&addr.into()).map_or(0, |listener| listener.accepted)
    }

    pub(super) fn behaviour(&self, addr: &Peer) -> Option<Behaviour> {
        self.listeners.borrow().get(addr).and_then(|listener| listener.behaviour.clone())
    }

    pub(super) fn accept(&self, addr: &Peer) {
        if let Some(listener) = self.listeners.borrow_mut().get_mut(addr) {
            listener.accepted += 1;
        }
    }

    /// When the process that accepted at `since` died, if it did.
    pub(super) fn killed_after(&self, addr: &Peer, since: Mono) -> Option<Mono> {
        let killed_at = self.listeners.borrow().get(addr)?.killed_at;
        (killed_at > since).then_some(killed_at)
    }
}

struct Listener {
    /// None: dead, connections are refused.
    behaviour: Option<Behaviour>,
    killed_at: Mono,
    accepted: u64,
}
