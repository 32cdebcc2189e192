//! Which ring carries network probes: what was asked for, and what this host allows.

use anyhow::Context;
use probe_core::engine::EngineError;
use probe_core::ring::{RingError, RingKind};

use crate::cli::args::EngineKind;

/// Chooses, and keeps to its choice: rings that are made later fall back without another word.
pub struct Rings<W> {
    wanted: EngineKind,
    has_fallen_back: bool,
    /// Is told once why io_uring is not used though nobody forbade it.
    warn: W,
}

impl<W: FnMut(&str)> Rings<W> {
    pub fn new(wanted: EngineKind, warn: W) -> Rings<W> {
        Rings { wanted, has_fallen_back: false, warn }
    }

    /// Calls `make` with the ring to use, and where io_uring is refused and epoll will do, once more.
    ///
    /// # Errors
    /// Neither ring can be had, or not the one that was asked for; the text names the cure.
    pub fn with<T>(&mut self, mut make: impl FnMut(RingKind) -> Result<T, EngineError>) -> anyhow::Result<T> {
        match self.wanted {
            EngineKind::Epoll => return make(RingKind::Epoll).context("--engine epoll"),
            EngineKind::Uring => return make(RingKind::Uring).context("--engine uring"),
            EngineKind::Auto if self.has_fallen_back => return Ok(make(RingKind::Epoll)?),
            EngineKind::Auto => {}
        }
        match make(RingKind::Uring) {
            Err(EngineError::Ring(error)) if error.has_fallback() => {
                let made = make(RingKind::Epoll)?;
                self.has_fallen_back = true;
                (self.warn)(&warning(&error));
                Ok(made)
            }
            made => Ok(made?),
        }
    }
}

impl<W> Rings<W> {
    /// What carries the probes by now.
    pub fn name(&self) -> &'static str {
        if self.has_fallen_back || self.wanted == EngineKind::Epoll { "epoll" } else { "io_uring" }
    }
}

fn warning(error: &RingError) -> String {
    format!(
        "no io_uring for probes: {}; epoll carries them, at more CPU for each. To have io_uring: {}",
        error.reason(),
        error.cure()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacking() -> EngineError {
        let (what, kernel) = ("IORING_OP_CONNECT", "5.4".into());
        RingError::Lacks { what, kernel }.into()
    }

    /// The rings that were tried for two engines, and how often was warned.
    fn check(wanted: EngineKind, has_io_uring: bool, expected: &[RingKind], warnings: usize) {
        let (mut tried, mut warned) = (Vec::new(), Vec::new());
        let mut rings = Rings::new(wanted, |text: &str| warned.push(text.to_owned()));
        for _ in 0..2 {
            let made = rings.with(|kind| {
                tried.push(kind);
                if kind == RingKind::Epoll || has_io_uring { Ok(kind) } else { Err(lacking()) }
            });
            assert_eq!(made.is_ok(), wanted != EngineKind::Uring || has_io_uring);
        }
        assert_eq!(tried, expected, "{wanted:?}");
        assert_eq!(warned.len(), warnings, "{warned:?}");
        assert!(warned.iter().all(|text| text.contains("run kernel 6.0")), "{warned:?}");
    }

    #[test]
    fn auto_falls_back_once_and_the_others_never() {
        let (uring, epoll) = (RingKind::Uring, RingKind::Epoll);
        check(EngineKind::Auto, true, &[uring, uring], 0);
        check(EngineKind::Auto, false, &[uring, epoll, epoll], 1);
        check(EngineKind::Uring, false, &[uring, uring], 0);
        check(EngineKind::Epoll, true, &[epoll, epoll], 0);
    }

    #[test]
    fn what_epoll_cannot_cure_is_an_error() {
        let mut rings = Rings::new(EngineKind::Auto, |text: &str| panic!("{text}"));
        let made = rings.with(|_| -> Result<(), EngineError> {
            Err(RingError::Descriptors { limit: 40, slots: 8 }.into())
        });
        assert!(made.is_err_and(|error| error.to_string().contains("RLIMIT_NOFILE is 40")));
    }
}
