//! A host that forbids io_uring, as the default profiles of Docker and containerd do.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// From now on the calls of io_uring fail with EPERM for this thread, and for all that it starts. It cannot be
/// undone, so the thread should end soon.
pub(crate) fn forbid_io_uring() {
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    let rules = BTreeMap::from(calls.map(|call| (call, Vec::new())));
    let arch = std::env::consts::ARCH.try_into().expect("an architecture that seccomp knows");
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).expect("a sound filter");
    let program = BpfProgram::try_from(filter).expect("a filter is a program");
    apply_filter(&program).expect("seccomp filters are in every kernel of today");
}
