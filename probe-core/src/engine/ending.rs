//! How the connection of a run ends: in order where there is somebody to be polite to, else at once.

use std::time::Duration;

use super::io::{Io, Timer};
use super::keep::Keeping;
use super::run::{Effects, Run, Stage, Winding};
use crate::model::limits::FIN_WAIT;
use crate::model::probe::{Host, Target, TcpClose};
use crate::model::time::Mono;
use crate::ring::{Op, OpKind, Ring};

/// How long until a cancel that found nothing is repeated.
const CANCEL_AGAIN: Duration = Duration::from_millis(1);

impl Run {
    /// A TCP probe has seen what it wanted to see.
    pub(super) fn end_bare<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        match &*self.target {
            Target::Tcp(tcp) if tcp.close == TcpClose::Graceful => self.parted(io, now, effects),
            Target::Tcp(_) | Target::Http(_) | Target::Grpc(_) | Target::Exec | Target::Broken { .. } => {
                self.wind_down(io, now, Winding::Cancelled, effects);
            }
        }
    }

    /// Ends a connection on which everything is said. A server that would keep it learns that we do not.
    pub(super) fn end_in_order<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        match (&self.secure, self.keeping) {
            (Some(_), _) => self.say_goodbye(io, now, effects),
            (None, Keeping::Fresh | Keeping::Reused) => self.part(io, now, effects),
            (None, Keeping::Not) => self.wait_for_fin(io, now, effects),
        }
    }

    /// Ends the session in order: our close_notify, then the connection.
    pub(super) fn say_goodbye<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        if let Some(secure) = &mut self.secure {
            secure.session.close();
        }
        self.part(io, now, effects);
    }

    /// Sends the session's last word, and then ends our half of the connection.
    pub(super) fn part<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        self.stage = Stage::Parting;
        self.wait_for_fin_until(io, now);
        if !self.send_outgoing(io, now) {
            self.parted(io, now, effects);
        }
    }

    /// Everything of ours is said. A server that keeps its side open learns that we do not.
    pub(super) fn parted<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        // A connection that has ended already needs no end.
        let _ = io.ring.shutdown(self.slot);
        if io.is_quiet(self.slot) {
            self.wait_for_fin(io, now, effects);
        }
        // Otherwise a receive is in flight, which brings the server's FIN.
    }

    /// What is in flight while the connection is being ended has come to its end.
    pub(super) fn parting<R: Ring>(
        &mut self,
        io: &mut Io<R>,
        now: Mono,
        kind: OpKind,
        effects: &mut Effects,
    ) {
        match kind {
            OpKind::Send => self.parted(io, now, effects),
            OpKind::Recv => self.wind_down(io, now, Winding::Cancelled, effects),
            OpKind::Connect | OpKind::Disconnect | OpKind::Cancel => {}
        }
    }

    /// Gives the server a moment to close first.
    pub(super) fn wait_for_fin<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        if !io.is_quiet(self.slot) {
            // The server has answered before it read all of the request.
            return self.wind_down(io, now, Winding::Cancelled, effects);
        }
        self.stage = Stage::Finishing;
        self.wait_for_fin_until(io, now);
        self.push_on_open(io, Op::Finish);
    }

    /// Begins the time that ending a connection in order may take, if it has not begun.
    pub(super) fn wait_for_fin_until<R: Ring>(&mut self, io: &mut Io<R>, now: Mono) {
        if self.closing.is_none() {
            self.set_closing(io, now.after(FIN_WAIT));
        }
    }

    /// Whatever the last receive brought, the disconnect behind it ends the connection.
    pub(super) fn finishing<R: Ring>(
        &mut self,
        io: &mut Io<R>,
        now: Mono,
        kind: OpKind,
        effects: &mut Effects,
    ) {
        if io.is_quiet(self.slot) {
            return self.disconnected(io, now, effects);
        }
        if kind == OpKind::Cancel {
            // It may have come between two states of the receive.
            self.set_closing(io, now.after(CANCEL_AGAIN));
        }
    }

    /// Ends what is in flight, then the connection.
    pub(super) fn wind_down<R: Ring>(
        &mut self,
        io: &mut Io<R>,
        now: Mono,
        winding: Winding,
        effects: &mut Effects,
    ) {
        io.withdraw(self.slot);
        self.stage = Stage::Winding(winding);
        if io.is_quiet(self.slot) {
            return self.disconnect(io, now, effects);
        }
        if winding == Winding::Cancelled {
            self.push_on_open(io, Op::Cancel);
        }
    }

    pub(super) fn winding<R: Ring>(
        &mut self,
        io: &mut Io<R>,
        now: Mono,
        kind: OpKind,
        winding: Winding,
        effects: &mut Effects,
    ) {
        if io.is_quiet(self.slot) {
            return self.disconnect(io, now, effects);
        }
        if winding == Winding::ByItself || io.is_cancelling(self.slot) {
            return;
        }
        if kind == OpKind::Cancel {
            // What it found ends in a moment; what it did not find is looked for again.
            self.set_closing(io, now.after(CANCEL_AGAIN));
        } else {
            // The end of one operation may have started the next one of the chain.
            self.push_on_open(io, Op::Cancel);
        }
    }

    /// The wait for the FIN is over, or a cancel is to be repeated.
    pub fn closing_due<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        self.closing = None;
        match self.stage {
            Stage::Parting => self.wind_down(io, now, Winding::Cancelled, effects),
            Stage::Finishing | Stage::Winding(_) if !io.is_cancelling(self.slot) => {
                self.push_on_open(io, Op::Cancel);
            }
            Stage::Finishing
            | Stage::Winding(_)
            | Stage::Unresolved
            | Stage::Asked
            | Stage::Resolving
            | Stage::Working
            | Stage::Idle
            | Stage::Disconnecting => {}
        }
    }

    pub(super) fn disconnect<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        self.clear_closing(io);
        self.stage = Stage::Disconnecting;
        if !io.ring.is_connected(self.slot) {
            return self.ended(io, now, effects);
        }
        self.push_on_open(io, Op::Disconnect);
    }

    /// Nothing of the connection is in flight any more; a socket that the kernel would not disconnect goes.
    pub(super) fn disconnected<R: Ring>(&mut self, io: &mut Io<R>, now: Mono, effects: &mut Effects) {
        if io.ring.is_connected(self.slot) {
            io.ring.replace_socket(self.slot);
            // A Unix socket always is.
            io.counters.replaced_sockets += u64::from(!matches!(self.host(), Some(Host::Unix(_))));
        }
        self.ended(io, now, effects);
    }

    pub(super) fn set_closing<R: Ring>(&mut self, io: &mut Io<R>, at: Mono) {
        self.clear_closing(io);
        self.closing = Some(io.wheel.insert(at, Timer::Closing(self.slot)));
    }

    pub(super) fn clear_closing<R: Ring>(&mut self, io: &mut Io<R>) {
        if let Some(id) = self.closing.take() {
            io.wheel.cancel(id);
        }
    }
}
