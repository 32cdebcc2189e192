//! Slots: index plus generation, what of each is in flight, and which are free.

use super::OpKind;

/// Largest number of slots: the index has 24 bits in `user_data`.
pub const SLOTS_MAX: u32 = 1 << 24;

/// Handle of one probe run in flight. The generation grows at every release, so a completion of an earlier
/// use is detected.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Slot {
    pub index: u32,
    pub generation: u32,
}

impl Slot {
    /// As an index into tables beside the ring.
    pub fn at(self) -> usize {
        self.index as usize
    }
}

/// The kinds of operations of one slot that are in flight.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct InFlight {
    bits: u8,
}

impl InFlight {
    /// Whether the kernel holds nothing of the slot.
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// Whether an operation of this kind is in flight.
    pub fn has(self, kind: OpKind) -> bool {
        self.bits & bit(kind) != 0
    }

    fn add(&mut self, kind: OpKind) {
        self.bits |= bit(kind);
    }

    fn remove(&mut self, kind: OpKind) {
        self.bits &= !bit(kind);
    }
}

/// `operation (8 bits) | slot (24 bits) | generation (32 bits)`.
pub fn user_data(slot: Slot, kind: OpKind) -> u64 {
    let operation = match kind {
        OpKind::Connect => 1_u64,
        OpKind::Send => 2,
        OpKind::Recv => 3,
        OpKind::Disconnect => 4,
        OpKind::Cancel => 5,
    };
    operation << 56 | u64::from(slot.index) << 32 | u64::from(slot.generation)
}

/// Inverse of [`user_data`]; None for the reserved values.
pub fn parse_user_data(user_data: u64) -> Option<(Slot, OpKind)> {
    let kind = match user_data >> 56 {
        1 => OpKind::Connect,
        2 => OpKind::Send,
        3 => OpKind::Recv,
        4 => OpKind::Disconnect,
        5 => OpKind::Cancel,
        _ => return None,
    };
    let index = (user_data >> 32) as u32 & (SLOTS_MAX - 1);
    Some((Slot { index, generation: user_data as u32 }, kind))
}

/// The book of slots, kept in the same way by the ring and its twin.
pub struct SlotTable {
    entries: Vec<Entry>,
    /// Last released first: its socket and buffer are warm.
    free: Vec<u32>,
    stale: u64,
}

struct Entry {
    generation: u32,
    in_flight: InFlight,
    state: State,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum State {
    Free,
    Taken,
}

impl SlotTable {
    pub fn new(slots: u32) -> SlotTable {
        assert!(slots > 0 && slots <= SLOTS_MAX, "a ring has 1 to {SLOTS_MAX} slots, not {slots}");
        let entry = || Entry { generation: 0, in_flight: InFlight::default(), state: State::Free };
        SlotTable {
            entries: std::iter::repeat_with(entry).take(slots as usize).collect(),
            free: (0..slots).rev().collect(),
            stale: 0,
        }
    }

    pub fn capacity(&self) -> u32 {
        self.entries.len() as u32
    }

    pub fn acquire(&mut self) -> Option<Slot> {
        let index = self.free.pop()?;
        let entry = &mut self.entries[index as usize];
        debug_assert!(entry.state == State::Free && entry.in_flight.is_empty());
        entry.state = State::Taken;
        Some(Slot { index, generation: entry.generation })
    }

    pub fn release(&mut self, slot: Slot) {
        let entry = self.live_mut(slot, "release");
        assert!(entry.in_flight.is_empty(), "release of {slot:?} with {:?} in flight", entry.in_flight);
        entry.state = State::Free;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(slot.index);
    }

    pub fn in_flight(&self, slot: Slot) -> InFlight {
        self.live(slot, "a look at").in_flight
    }

    /// Notes that `kinds` are handed to the kernel.
    pub fn begin(&mut self, slot: Slot, kinds: &[OpKind]) {
        let entry = self.live_mut(slot, "an operation on");
        for kind in kinds {
            assert!(!entry.in_flight.has(*kind), "second {kind:?} on {slot:?} while one is in flight");
            // What one push links may be in flight together; so a disconnect may stand behind its receive.
            let must_be_alone = matches!(kind, OpKind::Disconnect | OpKind::Connect);
            assert!(
                !must_be_alone || entry.in_flight.is_empty(),
                "{kind:?} on {slot:?} with {:?} in flight",
                entry.in_flight
            );
        }
        for kind in kinds {
            entry.in_flight.add(*kind);
        }
    }

    /// Notes a completion. False when it belongs to an earlier use of the slot: ignore it.
    pub fn end(&mut self, slot: Slot, kind: OpKind) -> bool {
        let is_live = self.entries.get_mut(slot.at()).is_some_and(|entry| {
            let is_live = entry.generation == slot.generation && entry.in_flight.has(kind);
            if is_live {
                entry.in_flight.remove(kind);
            }
            is_live
        });
        debug_assert!(is_live, "completion of {kind:?} for {slot:?}, which has moved on");
        self.stale += u64::from(!is_live);
        is_live
    }

    /// The handle under which slot `index` is taken now.
    pub fn current(&self, index: u32) -> Slot {
        Slot { index, generation: self.entries[index as usize].generation }
    }

    pub fn stale(&self) -> u64 {
        self.stale
    }

    /// Operations in flight over all slots.
    pub fn in_flight_total(&self) -> u32 {
        self.entries.iter().map(|entry| entry.in_flight.bits.count_ones()).sum()
    }

    fn live(&self, slot: Slot, what: &str) -> &Entry {
        let entry = &self.entries[slot.at()];
        let is_live = entry.state == State::Taken && entry.generation == slot.generation;
        assert!(is_live, "{what} {slot:?}, which is not taken (generation {})", entry.generation);
        entry
    }

    fn live_mut(&mut self, slot: Slot, what: &str) -> &mut Entry {
        self.live(slot, what);
        &mut self.entries[slot.at()]
    }
}

fn bit(kind: OpKind) -> u8 {
    match kind {
        OpKind::Connect => 1,
        OpKind::Send => 2,
        OpKind::Recv => 4,
        OpKind::Disconnect => 8,
        OpKind::Cancel => 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [OpKind; 5] =
        [OpKind::Connect, OpKind::Send, OpKind::Recv, OpKind::Disconnect, OpKind::Cancel];

    #[test]
    fn user_data_holds_operation_slot_and_generation() {
        for kind in KINDS {
            for (index, generation) in [(0, 0), (SLOTS_MAX - 1, u32::MAX), (77, 5)] {
                let slot = Slot { index, generation };
                assert_eq!(parse_user_data(user_data(slot, kind)), Some((slot, kind)));
            }
        }
        assert_eq!(parse_user_data(u64::MAX), None);
        assert_eq!(parse_user_data(0), None);
    }

    #[test]
    fn a_slot_is_free_only_when_nothing_is_in_flight() {
        let mut slots = SlotTable::new(1);
        let first = slots.acquire().unwrap();
        assert_eq!(slots.acquire(), None);
        slots.begin(first, &[OpKind::Connect, OpKind::Send, OpKind::Recv]);
        assert_eq!(slots.in_flight_total(), 3);
        for kind in [OpKind::Connect, OpKind::Send, OpKind::Recv] {
            assert!(slots.end(first, kind));
        }
        slots.release(first);
        let second = slots.acquire().unwrap();
        assert_eq!((second.index, second.generation), (0, 1));
    }

    fn check_panics(expected: &str, breach: impl FnOnce(&mut SlotTable, Slot) + std::panic::UnwindSafe) {
        let caught = std::panic::catch_unwind(|| {
            let mut slots = SlotTable::new(2);
            let slot = slots.acquire().unwrap();
            breach(&mut slots, slot);
        });
        let payload = caught.expect_err(expected);
        let text = payload.downcast_ref::<String>().unwrap();
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn a_breach_of_the_rules_panics() {
        check_panics("with InFlight", |slots, slot| {
            slots.begin(slot, &[OpKind::Recv]);
            slots.release(slot);
        });
        check_panics("second Recv", |slots, slot| {
            slots.begin(slot, &[OpKind::Recv]);
            slots.begin(slot, &[OpKind::Recv]);
        });
        check_panics("Disconnect on", |slots, slot| {
            slots.begin(slot, &[OpKind::Recv]);
            slots.begin(slot, &[OpKind::Disconnect]);
        });
        check_panics("not taken", |slots, slot| {
            slots.release(slot);
            slots.begin(slot, &[OpKind::Recv]);
        });
    }
}
