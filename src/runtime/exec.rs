//! `Exec`: a command in the container's cgroup, with its environment, folder, user and mounts.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use probe_core::model::id::Ticket;
use probe_core::model::limits::PROBE_OUTPUT_MAX_BYTES;
use probe_core::model::runtime::{Blame, ExecResult, RuntimeEvent};
use probe_core::sys::cgroup::{CgroupError, Group, Place};
use probe_core::sys::pidfd;
use probe_core::sys::procfs::{self, FileId};
use probe_core::sys::session::{Orphans, Session};
use probe_core::sys::spawn::{Birth, Newborn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use thiserror::Error;
use tokio::net::unix::pipe::Receiver;

use super::birth::{self, Go};
use super::grouping::{EndError, Grouping, ended};
use super::instance::{Instance, Main, Phase};
use super::launch::{LaunchError, c_string};
use super::process::{Shared, not_running};

/// Bytes read from a pipe at once.
const CHUNK_BYTES: usize = 16 * 1024;

#[derive(Error, Debug)]
enum Failure {
    #[error("failed to exec in container: {0}")]
    Config(#[from] LaunchError),
    #[error("failed to exec in container: {0}")]
    Cgroup(#[from] CgroupError),
    #[error("failed to exec in container: {0}")]
    End(#[from] EndError),
    #[error("failed to exec in container: cannot {operation}: {source}")]
    Io { operation: &'static str, source: io::Error },
    #[error("failed to exec in container: {text}")]
    Run { text: String, blame: Blame },
    #[error("failed to exec in container: the container has ended")]
    ContainerEnded,
}

impl Failure {
    fn blame(&self) -> Blame {
        match self {
            // A command with a NUL byte can be run nowhere.
            Failure::Config(_) => Blame::Command,
            Failure::Run { blame, .. } => *blame,
            Failure::Cgroup(_) | Failure::End(_) | Failure::Io { .. } | Failure::ContainerEnded => {
                Blame::Elsewhere
            }
        }
    }
}

/// Runs it and answers `ExecDone`.
pub async fn run(
    shared: Rc<Shared>,
    instance: Rc<Instance>,
    ticket: Ticket,
    argv: Arc<[Box<str>]>,
    timeout: Option<Duration>,
) {
    // Counted before the wait, so that a clean-up waits for the answer.
    instance.execs.send_modify(|running| *running += 1);
    let event = match instance.main.get() {
        Some(main) if *instance.phase.borrow() == Phase::Running => {
            let result = match in_container(&shared, &instance, main, &argv, timeout).await {
                Ok(result) => result,
                Err(error) => ExecResult::Failed { error: error.to_string().into(), blame: error.blame() },
            };
            RuntimeEvent::ExecDone { instance: instance.id, ticket, result }
        }
        _ => not_running(instance.id, ticket),
    };
    instance.execs.send_modify(|running| *running -= 1);
    shared.tell(event);
}

async fn in_container(
    shared: &Shared,
    instance: &Instance,
    main: &Main,
    argv: &[Box<str>],
    timeout: Option<Duration>,
) -> Result<ExecResult, Failure> {
    let permit = tokio::select! {
        permit = shared.execs.acquire() => permit,
        () = instance.ending() => return Err(Failure::ContainerEnded),
    };
    // The semaphore is never closed; without a permit the run would merely not be counted.
    let _permit = permit.ok();
    let number = instance.execs_so_far.get();
    instance.execs_so_far.set(number + 1);
    let place = match &instance.group {
        Some(group) => Some((group, group.exec(&number.to_string())?)),
        None => None,
    };
    let outcome = in_place(shared, instance, main, argv, timeout, place.as_ref()).await;
    if let Some((_, place)) = &place {
        place.remove();
    }
    outcome
}

async fn in_place(
    shared: &Shared,
    instance: &Instance,
    main: &Main,
    argv: &[Box<str>],
    timeout: Option<Duration>,
    place: Option<&(&Group, Place)>,
) -> Result<ExecResult, Failure> {
    let mut spec = instance.launch.exec(argv)?;
    for tasks in place.iter().flat_map(|(_, place)| &place.v1_tasks) {
        spec.v1_tasks.push(c_string("a cgroup", tasks.as_os_str())?);
    }
    let (stdout, stdout_end) = pipe()?;
    let (stderr, stderr_end) = pipe()?;
    let files = [&stdout_end, &stderr_end].map(FileId::of_fd).into_iter().flatten().collect();
    let cgroup = place.map(|(_, place)| place.open()).transpose()?;
    let birth = Birth {
        cgroup: cgroup.as_ref().map(AsFd::as_fd),
        output: Some((stdout_end.as_fd(), stderr_end.as_fd())),
        namespace_of: shared.host.may_mount.then(|| main.pidfd.as_fd()),
    };
    let Newborn { pid, pidfd, control } =
        shared.nursery.request(birth).await.map_err(io("make a process"))?;
    drop((stdout_end, stderr_end, cgroup));
    shared.children.borrow_mut().insert(pid);
    let start_ticks = procfs::stat(pid).ok().flatten().map_or(0, |stat| stat.start_ticks);
    let process = Process {
        pidfd: Arc::new(pidfd),
        session: Session {
            leader: pid,
            leader_start_ticks: start_ticks,
            files,
            environ: None,
            // Only where there are no cgroups are we the subreaper.
            orphans: if place.is_some() { Orphans::Anybodys } else { Orphans::Ours },
        },
    };
    let mut output = [Captured::new(stdout), Captured::new(stderr)];
    let ran = async {
        match birth::go(control, &spec).await.map_err(io("start the process"))? {
            Go::Running => process.drain_until_ended(&mut output).await,
            Go::Failed(failure) => {
                ended(&process.pidfd).await?;
                Err(Failure::Run { text: failure.message(&spec), blame: failure.blame() })
            }
        }
    };
    let outcome = tokio::select! {
        ran = ran => Some(ran),
        () = sleep(timeout) => None,
        () = instance.ending() => Some(Err(Failure::ContainerEnded)),
    };
    let result = process.finish(outcome, place, &mut output).await;
    shared.children.borrow_mut().remove(&pid);
    result
}

/// The main process of one run.
struct Process {
    pidfd: Arc<OwnedFd>,
    session: Session,
}

impl Process {
    /// A background child may hold the pipes for ever; the run ends with its main process.
    async fn drain_until_ended(&self, output: &mut [Captured; 2]) -> Result<(), Failure> {
        let [stdout, stderr] = output;
        let end = ended(&self.pidfd);
        tokio::pin!(end);
        loop {
            tokio::select! {
                ended = &mut end => return Ok(ended?),
                () = stdout.read(), if stdout.is_open => {}
                () = stderr.read(), if stderr.is_open => {}
            }
        }
    }

    /// Takes the status of a run that ended, or kills the whole tree of one that did not. `outcome` is None
    /// when the time was over.
    async fn finish(
        &self,
        outcome: Option<Result<(), Failure>>,
        place: Option<&(&Group, Place)>,
        output: &mut [Captured; 2],
    ) -> Result<ExecResult, Failure> {
        let killed = match &outcome {
            Some(Ok(()) | Err(Failure::Run { .. })) => Ok(()),
            None | Some(Err(_)) => self.kill_tree(place, output).await,
        };
        let status = pidfd::reap(self.pidfd.as_fd()).map_err(io("reap the process"))?;
        killed?;
        match (outcome, status) {
            (None, _) => Ok(ExecResult::TimedOut),
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(())), Some(status)) => {
                output.iter_mut().for_each(Captured::take_what_is_there);
                let [stdout, stderr] = output;
                Ok(ExecResult::Exited { status, output: joined(&stdout.kept, &stderr.kept).into() })
            }
            (Some(Ok(())), None) => Err(io("reap the process")(io::ErrorKind::NotFound.into())),
        }
    }

    async fn kill_tree(
        &self,
        place: Option<&(&Group, Place)>,
        output: &[Captured; 2],
    ) -> Result<(), Failure> {
        // By its own descriptor first: it may have left its cgroup.
        pidfd::signal(self.pidfd.as_fd(), libc::SIGKILL).map_err(io("kill the process"))?;
        if let Some((group, place)) = place {
            Grouping::Exec(group, place).end().await?;
        }
        ended(&self.pidfd).await?;
        // A child may have left the cgroup as well. Then it still holds the pipes; to walk over all processes
        // for every run that took too long would cost too much.
        if place.is_none() || output.iter().any(Captured::is_held) {
            Grouping::Session(&self.session).end().await?;
        }
        Ok(())
    }
}

/// The first bytes of one stream; the rest is read and dropped, so that the writer never blocks.
struct Captured {
    pipe: Receiver,
    kept: Vec<u8>,
    is_open: bool,
    chunk: Box<[u8]>,
}

impl Captured {
    fn new(pipe: Receiver) -> Captured {
        Captured { pipe, kept: Vec::new(), is_open: true, chunk: vec![0; CHUNK_BYTES].into() }
    }

    async fn read(&mut self) {
        if self.pipe.readable().await.is_err() {
            self.is_open = false;
        } else {
            let read = self.pipe.try_read(&mut self.chunk);
            self.take(read);
        }
    }

    /// Without waiting, and no more than is kept: a background child may write without end. It asks the kernel
    /// itself, since tokio may not have heard yet of what was written last.
    fn take_what_is_there(&mut self) {
        while self.is_open && self.kept.len() < PROBE_OUTPUT_MAX_BYTES {
            let read = rustix::io::read(&self.pipe, &mut *self.chunk).map_err(io::Error::from);
            if !self.take(read) {
                break;
            }
        }
    }

    /// Whether a process still has the writing end.
    fn is_held(&self) -> bool {
        let mut pipe = [PollFd::new(&self.pipe, PollFlags::IN)];
        let polled = poll(&mut pipe, Some(&Timespec::default()));
        self.is_open && !(polled.is_ok() && pipe[0].revents().contains(PollFlags::HUP))
    }

    /// Whether there was something.
    fn take(&mut self, read: io::Result<usize>) -> bool {
        match read {
            Ok(0) => self.is_open = false,
            Ok(length) => {
                let room = PROBE_OUTPUT_MAX_BYTES - self.kept.len();
                self.kept.extend(&self.chunk[..length.min(room)]);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.is_open = false,
        }
        false
    }
}

/// Never, without a timeout.
async fn sleep(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

/// The reading end for us, and the writing end for the child, which must block as a program expects.
fn pipe() -> Result<(Receiver, OwnedFd), Failure> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| io("make a pipe")(error.into()))?;
    Ok((Receiver::from_owned_fd(read).map_err(io("watch a pipe"))?, write))
}

/// stdout then stderr, cut at a character.
fn joined(stdout: &[u8], stderr: &[u8]) -> String {
    let all = [stdout, stderr].concat();
    let mut text = String::from_utf8_lossy(&all[..all.len().min(PROBE_OUTPUT_MAX_BYTES)]).into_owned();
    text.truncate(text.floor_char_boundary(PROBE_OUTPUT_MAX_BYTES));
    text
}

fn io(operation: &'static str) -> impl Fn(io::Error) -> Failure {
    move |source| Failure::Io { operation, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_stdout_then_stderr_and_short() {
        assert_eq!(joined(b"out", b"err"), "outerr");
        let long = vec![b'x'; PROBE_OUTPUT_MAX_BYTES];
        assert_eq!(joined(&long, b"err").len(), PROBE_OUTPUT_MAX_BYTES);
        // Each bad byte becomes three.
        assert!(joined(&vec![0xff; PROBE_OUTPUT_MAX_BYTES], b"").len() <= PROBE_OUTPUT_MAX_BYTES);
    }
}
