//! A running `defib run`, or another verb that goes on by itself.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{AFTER_A_WHILE, Lines, SOON, World, eventually};

/// Killed when it is dropped, so that a failed test leaves nothing behind.
pub struct Agent {
    child: Child,
    events: Lines,
    log: Lines,
}

impl Agent {
    pub(crate) fn start(world: &World, mut command: Command) -> Agent {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = world.spawn(&mut command);
        let events = Lines::collect(child.stdout.take().expect("its output is piped"));
        let log = Lines::collect(child.stderr.take().expect("its log is piped"));
        Agent { child, events, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output: the raw event stream.
    pub fn events(&self) -> &Lines {
        &self.events
    }

    /// Its standard error: its own log.
    pub fn log(&self) -> &Lines {
        &self.log
    }

    /// Waits for an event line that contains `text`: its index and the line.
    pub fn wait_for(&self, text: &str, max: Duration) -> (usize, String) {
        self.wait_from(0, text, max)
    }

    /// As [`Agent::wait_for`], among the lines from index `from` on.
    pub fn wait_from(&self, from: usize, text: &str, max: Duration) -> (usize, String) {
        self.wait_for_event(from, max, text, |line| line.contains(text))
    }

    /// Waits for the events in this order, others may lie between; gives the index of each.
    pub fn wait_for_sequence(&self, texts: &[&str], max: Duration) -> Vec<usize> {
        let mut from = 0;
        let mut found = Vec::with_capacity(texts.len());
        for text in texts {
            let (index, _) = self.wait_from(from, text, max);
            found.push(index);
            from = index + 1;
        }
        found
    }

    /// Waits until the container of `examples/wedge.yaml` has hung, was found out, and runs again.
    pub fn wait_for_wedge(&self) -> Vec<usize> {
        let failed = "Liveness probe failed: Get \"http://127.0.0.1:18080/\": context deadline exceeded";
        self.wait_for_sequence(
            &[
                "Started container server",
                failed,
                failed,
                failed,
                "Container server failed liveness probe, will be restarted",
                "Started container server",
            ],
            AFTER_A_WHILE,
        )
    }

    /// Waits for an event line that `wanted` accepts, from index `from` on. Panics with `what` and all that
    /// defib printed when `max` is over or defib has ended.
    pub fn wait_for_event(
        &self,
        from: usize,
        max: Duration,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> (usize, String) {
        let found = self.events.wait(from, max, wanted);
        found.unwrap_or_else(|| panic!("no event within {max:?}: {what}\n{}", self.printed()))
    }

    /// SIGTERM, then its exit code.
    pub fn terminate(&mut self) -> i32 {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// SIGINT, as Ctrl-C sends it; does not wait.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// SIGKILL, and it is reaped.
    pub fn kill_hard(&mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// Its exit code (128 + signal for a death by signal) once it has ended by itself, and its last lines are read.
    pub fn wait(&mut self) -> i32 {
        let child = &mut self.child;
        let status = eventually("defib ends", AFTER_A_WHILE, || child.try_wait().expect("wait for defib"));
        for lines in [&self.events, &self.log] {
            // No line is wanted: the wait is for the end of the stream.
            let _none = lines.wait(0, SOON, |_| false);
        }
        exit_code(status)
    }

    /// It is not running any more.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("wait for defib").is_some()
    }

    /// Everything it printed, for the text of a failure.
    pub fn printed(&self) -> String {
        format!("--- events\n{}\n--- log\n{}", self.events.all().join("\n"), self.log.all().join("\n"))
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal)
            .unwrap_or_else(|error| panic!("defib is gone: {error}\n{}", self.printed()));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // Not yet reaped, so the pid is still ours.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status.code().or(status.signal().map(|number| 128 + number)).expect("an ended process has one of both")
}

/// SIGKILL for a process of this test; one that is gone already is fine.
pub(crate) fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, Signal::KILL);
    }
}
