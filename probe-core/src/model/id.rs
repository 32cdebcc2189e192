//! Names and handles. Handles are index plus generation, so that a stale one is detected, never followed.

use std::fmt;

/// Pod uid: a UUID made when the pod is created (design 9.1).
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(pub u128);

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            (v >> 96) as u32,
            (v >> 80) as u16,
            (v >> 64) as u16,
            (v >> 48) as u16,
            v & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Container id: 32 random bytes, new for every instance; shown as `defib://` and 64 hex digits.
#[derive(Copy, Clone, PartialEq, Eq, Hash)]
pub struct ContainerId(pub [u8; 32]);

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("defib://")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Index of a container in [`crate::model::pod::PodSpec::containers`].
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ContainerIx(pub u16);

impl ContainerIx {
    /// As an index into `PodSpec::containers` and the tables beside it.
    pub fn at(self) -> usize {
        usize::from(self.0)
    }
}

/// One run of one container. `restart_count` grows with every instance that is created, so a message
/// about an older instance never matches the current one.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    pub pod: PodUid,
    pub container: ContainerIx,
    pub restart_count: u32,
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.{}", self.pod, self.container.0, self.restart_count)
    }
}

/// Handle of one probe: the executor shard that owns it and its place in that shard's probe table.
/// The executor gives it out; the engine keeps its targets under it.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProbeKey {
    pub executor: u16,
    pub index: u32,
}

/// A number that ties an answer to its question (exec runs, one-shot probes, host name look-ups).
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);
