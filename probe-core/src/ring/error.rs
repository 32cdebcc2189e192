//! Why a ring cannot be had, and the cure.

use std::fmt::{self, Display, Formatter};

use super::Errno;

/// A refused or broken ring. Every text names the cure.
#[derive(Debug)]
pub enum RingError {
    Refused {
        call: &'static str,
        errno: Errno,
        kernel: Box<str>,
        cure: Box<str>,
    },
    Lacks {
        what: &'static str,
        kernel: Box<str>,
    },
    Descriptors {
        limit: u64,
        slots: u32,
    },
    TooManySlots {
        slots: u32,
        needed: u32,
        given: u32,
    },
    /// Of the ring on epoll.
    Epoll {
        call: &'static str,
        errno: Errno,
        cure: &'static str,
    },
    Enter(Errno),
}

impl Display for RingError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.reason(), self.cure())
    }
}

impl std::error::Error for RingError {}

impl RingError {
    /// What is missing or failed.
    pub fn reason(&self) -> String {
        match self {
            RingError::Refused { call, errno, kernel, .. } => format!("{call} (kernel {kernel}): {errno}"),
            RingError::Lacks { what, kernel } => format!("io_uring of kernel {kernel} lacks {what}"),
            RingError::Descriptors { limit, slots } => {
                format!("RLIMIT_NOFILE is {limit}, too low for {slots} probe slots")
            }
            RingError::TooManySlots { slots, needed, given } => format!(
                "a ring for {slots} probe slots needs {needed} completion entries, the kernel gives {given}"
            ),
            RingError::Epoll { call, errno, .. } => format!("{call} for probes on epoll: {errno}"),
            RingError::Enter(errno) => format!("io_uring_enter: {errno}"),
        }
    }

    /// What to do about it.
    pub fn cure(&self) -> &str {
        match self {
            RingError::Refused { cure, .. } => cure,
            RingError::Lacks { .. } => "run kernel 6.0 or later (6.1 for full speed)",
            RingError::Descriptors { .. } => "raise it (`ulimit -n`, LimitNOFILE= of systemd)",
            RingError::TooManySlots { .. } => "use fewer slots",
            RingError::Epoll { cure, .. } => cure,
            RingError::Enter(_) => "the engine shard cannot go on, restart the agent",
        }
    }

    /// Whether the ring on epoll may be had all the same.
    pub fn has_fallback(&self) -> bool {
        match self {
            RingError::Refused { .. } | RingError::Lacks { .. } | RingError::TooManySlots { .. } => true,
            RingError::Descriptors { .. } | RingError::Epoll { .. } | RingError::Enter(_) => false,
        }
    }

    /// A system call on the way to a ring failed.
    pub(super) fn refused(call: &'static str, errno: Errno) -> RingError {
        RingError::Refused { call, errno, kernel: kernel_release(), cure: cure(errno, disabled()).into() }
    }

    /// A system call of the ring without io_uring failed.
    pub(super) fn epoll(call: &'static str, errno: Errno) -> RingError {
        let cure = match errno {
            Errno::MFILE | Errno::NFILE => "no descriptor left: raise RLIMIT_NOFILE or use fewer probe slots",
            Errno::NOSPC => "raise the sysctl fs.epoll.max_user_watches",
            Errno::NOMEM => "not enough memory: use fewer probe slots",
            _ => "see its manual page",
        };
        RingError::Epoll { call, errno, cure }
    }

    pub(super) fn lacks(what: &'static str) -> RingError {
        RingError::Lacks { what, kernel: kernel_release() }
    }
}

/// `kernel.io_uring_disabled` (6.6): 1 for members of a group only, 2 for nobody.
fn disabled() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

fn kernel_release() -> Box<str> {
    rustix::system::uname().release().to_string_lossy().into()
}

fn cure(errno: Errno, disabled: Option<u32>) -> &'static str {
    match (errno, disabled) {
        (Errno::PERM, Some(1)) => {
            "sysctl kernel.io_uring_disabled is 1: set it to 0, or put the agent into kernel.io_uring_group"
        }
        (Errno::PERM, Some(2..)) => "sysctl kernel.io_uring_disabled forbids io_uring: set it to 0",
        (Errno::PERM | Errno::ACCESS, _) => {
            "a seccomp profile or security module forbids io_uring (the defaults of Docker and containerd do): \
             allow io_uring_setup, io_uring_enter and io_uring_register"
        }
        (Errno::NOSYS, _) => {
            "the kernel is built without io_uring or a seccomp profile hides it: allow it, or run kernel 6.0 or later"
        }
        (Errno::NOMEM, _) => "not enough memory for the rings: raise RLIMIT_MEMLOCK or use fewer probe slots",
        (Errno::MFILE | Errno::NFILE, _) => {
            "no descriptor left: raise RLIMIT_NOFILE or use fewer probe slots"
        }
        (Errno::INVAL, _) => "the kernel is too old: run kernel 6.0 or later",
        _ => "see io_uring_setup(2)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_what_forbids_it() {
        let cases = [
            (Errno::PERM, Some(2), "sysctl"),
            (Errno::PERM, Some(1), "io_uring_group"),
            (Errno::PERM, Some(0), "seccomp"),
            (Errno::PERM, None, "seccomp"),
            (Errno::NOSYS, None, "6.0"),
            (Errno::NOMEM, Some(0), "RLIMIT_MEMLOCK"),
        ];
        for (errno, disabled, word) in cases {
            assert!(cure(errno, disabled).contains(word), "{errno:?} {disabled:?}");
        }
        let text = RingError::refused("io_uring_setup", Errno::NOSYS).to_string();
        assert!(text.contains("io_uring_setup") && text.contains("kernel "), "{text}");
    }
}
