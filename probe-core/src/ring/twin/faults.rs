//! Seeded chance, and how often each fault strikes.

use std::time::Duration;

/// A small generator of repeatable numbers (splitmix64, Steele, Lea, Flood 2014). Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// Equal seeds give equal sequences.
    pub fn new(seed: u64) -> Rng {
        Rng { state: seed }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is greater than zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    /// True `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u16) -> bool {
        per_mille > 0 && self.below(1_000) < u64::from(per_mille)
    }

    /// From zero up to `most`.
    pub fn duration_up_to(&mut self, most: Duration) -> Duration {
        let most_ns = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX - 1);
        Duration::from_nanos(self.below(most_ns + 1))
    }
}

/// What goes wrong in the twin, each in times per thousand. All of it is what a real kernel may do, or what a
/// lost packet looks like.
#[derive(Clone, Debug)]
pub struct Faults {
    /// A completion becomes visible late, by up to `late_max`.
    pub late: u16,
    pub late_max: Duration,
    /// A connect or a receive never ends by itself: its packets are lost until somebody cancels it. A healthy
    /// target then looks hung, see [`super::Twin::lost`].
    pub lost: u16,
    /// Completions of different slots that are visible at once come in another order.
    pub reordered: u16,
    /// A cancel comes between two states of the operation and finds nothing.
    pub cancel_misses: u16,
    /// A send takes only a part of the request.
    pub short_send: u16,
    /// The kernel will not disconnect the socket (some kernels about 6.4 while a waiter leaves).
    pub disconnect_fails: u16,
    /// The submission queue has no room.
    pub full_queue: u16,
    /// A receive takes what has come only when the owner looks; a FIN that has come by then is joined to it.
    pub reads_late: u16,
    /// A send or a disconnect ends while it is handed over.
    pub at_once: u16,
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Faults {
        Faults {
            late: 0,
            late_max: Duration::ZERO,
            lost: 0,
            reordered: 0,
            cancel_misses: 0,
            short_send: 0,
            disconnect_fails: 0,
            full_queue: 0,
            reads_late: 0,
            at_once: 0,
        }
    }

    /// Every fault that must not change a verdict, often.
    pub fn harmless() -> Faults {
        Faults {
            late: 100,
            late_max: Duration::from_millis(20),
            lost: 0,
            reordered: 500,
            cancel_misses: 300,
            short_send: 100,
            disconnect_fails: 20,
            full_queue: 50,
            reads_late: 300,
            at_once: 300,
        }
    }
}
