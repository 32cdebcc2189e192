//! What the server behind a probe does, and how that looks to each kind of handler.

use std::time::Duration;

use probe_core::model::probe::Handler;
use probe_core::model::runtime::{Blame, ExecResult, ExitStatus};
use probe_core::ring::twin::{Behaviour, Piece, Rng};

use super::plan::Mood;

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Health {
    Good,
    /// Says that it is not well, or refuses.
    Failing,
    /// Says nothing any more.
    Hung,
    /// Cannot be judged: stops in the middle of the body, cannot be run.
    Garbled,
    /// Redirects to somebody else: as good as success.
    Elsewhere,
}

/// What a run against this server comes to.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Expected {
    Passes,
    Fails,
    Errs,
}

impl Health {
    pub fn expected(self, handler: &Handler) -> Expected {
        match (self, handler) {
            (Health::Good | Health::Elsewhere, _) => Expected::Passes,
            (Health::Failing | Health::Hung, _) => Expected::Fails,
            (Health::Garbled, Handler::TcpSocket(_)) => Expected::Passes,
            (Health::Garbled, Handler::HttpGet(_) | Handler::Grpc(_) | Handler::Exec(_)) => Expected::Errs,
        }
    }
}

/// The `step`-th health of an instance, and for how long; None: for the rest of its life.
pub fn next(mood: Mood, step: u32, rng: &mut Rng) -> (Health, Option<Duration>) {
    let up_to = |rng: &mut Rng, seconds: u64| Some(rng.duration_up_to(Duration::from_secs(seconds)));
    let bad = if rng.chance(500) { Health::Failing } else { Health::Hung };
    match (mood, step) {
        (Mood::Steady, _) => (Health::Good, None),
        (Mood::Wedges, 0) => (Health::Good, up_to(rng, 200)),
        (Mood::Wedges, _) => (Health::Hung, None),
        (Mood::Flaps, step) if step % 2 == 0 => (Health::Good, up_to(rng, 60)),
        (Mood::Flaps, _) => (bad, up_to(rng, 20)),
        (Mood::Bad, _) => (bad, None),
        (Mood::LateStarter, 0) => (bad, up_to(rng, 12)),
        (Mood::LateStarter, _) => (Health::Good, None),
        (Mood::Mixed, _) => {
            let all = [Health::Good, Health::Failing, Health::Hung, Health::Garbled, Health::Elsewhere];
            (all[rng.below(5) as usize], up_to(rng, 40))
        }
    }
}

/// A server that answers 200 after `delay`.
pub fn ok(delay: Duration) -> Behaviour {
    Behaviour::answer(delay, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
}

/// None: nobody listens.
pub fn http(health: Health, rng: &mut Rng) -> Option<Behaviour> {
    let delay = rng.duration_up_to(Duration::from_millis(20));
    match health {
        Health::Good if rng.chance(100) => {
            let head = Piece::Data("HTTP/1.1 200 OK\r\n".into());
            let rest = Piece::Data("Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".into());
            Some(Behaviour::script([(delay, head), (delay + delay, rest), (delay + delay, Piece::Fin)]))
        }
        Health::Good => Some(ok(delay)),
        Health::Failing => match rng.below(3) {
            0 => None,
            1 => Some(Behaviour::reset(delay)),
            _ => Some(Behaviour::answer(
                delay,
                "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            )),
        },
        Health::Hung => Some(if rng.chance(500) { Behaviour::hang() } else { Behaviour::BlackHole }),
        Health::Garbled => Some(Behaviour::partial(delay, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok")),
        Health::Elsewhere => {
            let answer =
                "HTTP/1.1 302 Found\r\nLocation: http://elsewhere.test/\r\nContent-Length: 0\r\n\r\n";
            Some(Behaviour::answer(delay, answer))
        }
    }
}

pub fn tcp(health: Health) -> Option<Behaviour> {
    match health {
        Health::Good | Health::Garbled | Health::Elsewhere => Some(Behaviour::hang()),
        Health::Failing => None,
        Health::Hung => Some(Behaviour::BlackHole),
    }
}

/// How long an exec run takes, and what it comes to.
pub fn exec(health: Health, timeout: Option<Duration>, rng: &mut Rng) -> (Duration, ExecResult) {
    let takes = rng.duration_up_to(Duration::from_millis(30));
    match (health, timeout) {
        (Health::Good | Health::Elsewhere, _) => (takes, exited(0)),
        (Health::Failing, _) => (takes, exited(1)),
        (Health::Hung, Some(timeout)) => (timeout, ExecResult::TimedOut),
        (Health::Hung, None) => (Duration::from_secs(20), exited(1)),
        (Health::Garbled, _) => {
            (takes, ExecResult::Failed { error: "no such command".into(), blame: Blame::Command })
        }
    }
}

pub fn exited(code: u8) -> ExecResult {
    ExecResult::Exited { status: ExitStatus::Code(code), output: "out".into() }
}
