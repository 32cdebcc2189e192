//! A network namespace of the test's own, so that the ports of two tests never meet.
//!
//! It needs root, or user namespaces for ordinary users; and the commands `unshare` (util-linux) and `ip`
//! (iproute2).

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Lives as long as this value or a process in it.
pub struct NetNs {
    namespace: File,
}

impl NetNs {
    /// Makes a namespace with nothing in it but a loopback interface that is up.
    pub fn new() -> NetNs {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && read -r _"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`unshare` of util-linux is needed: bash .ci/run installs what is missing");
        let mut up = [0; 3];
        let made = holder.stdout.take().expect("its output is piped").read_exact(&mut up);
        assert!(
            made.is_ok() && up == *b"up\n",
            "no network namespace could be made: root rights and `ip` of iproute2 are needed"
        );
        let namespace = File::open(format!("/proc/{}/ns/net", holder.id())).expect("the holder's namespace");
        // The open file keeps the namespace from here on; end of input ends the holder.
        drop(holder.stdin.take());
        holder.wait().expect("the holder ends at the end of its input");
        NetNs { namespace }
    }

    /// Runs `action` on a thread inside the namespace. What it spawns, and the sockets that it opens, stay
    /// inside.
    pub fn inside<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let entered = scope.spawn(|| {
                move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("setns into the test's network namespace (root rights are needed)");
                action()
            });
            match entered.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// The number by which /proc names it: `net:[inode]`.
    pub fn inode(&self) -> u64 {
        self.namespace.metadata().expect("fstat of an open file").ino()
    }
}

impl Default for NetNs {
    fn default() -> NetNs {
        NetNs::new()
    }
}
