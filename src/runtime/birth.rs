//! Asking the spawner for a process without blocking the runtime's thread.

use std::io::{self, Write};

use probe_core::model::limits::SPAWN_SPEC_MAX_BYTES;
use probe_core::sys::spawn::{Birth, ChildSpec, Newborn, SpawnFailure, Spawner};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::watched::watched;

/// Bytes of an answer of the child; the failure is shorter.
const ANSWER_MAX_BYTES: usize = 64;

/// The spawner, one request at a time, in the order in which they came.
pub struct Nursery {
    spawner: Mutex<AsyncFd<Spawner>>,
    pid: u32,
}

impl Nursery {
    /// Call it inside the runtime that will use it.
    pub fn new(spawner: Spawner) -> io::Result<Nursery> {
        let pid = spawner.pid();
        Ok(Nursery { spawner: Mutex::new(watched(spawner, Interest::READABLE | Interest::WRITABLE)?), pid })
    }

    /// Pid of the spawner, which leads the session of its newborn.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A child that waits for its description.
    pub async fn request(&self, birth: Birth<'_>) -> io::Result<Newborn> {
        let spawner = self.spawner.lock().await;
        let mut pending = loop {
            match spawner.get_ref().send(birth) {
                Ok(pending) => break pending,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    spawner.writable().await?.clear_ready();
                }
                Err(error) => return Err(self.explain(error)),
            }
        };
        loop {
            let mut ready = spawner.readable().await?;
            match spawner.get_ref().receive(pending) {
                Ok(newborn) => return Ok(newborn),
                Err((_, Some(again))) => {
                    pending = again;
                    ready.clear_ready();
                }
                Err((error, None)) => return Err(self.explain(error)),
            }
        }
    }

    fn explain(&self, error: io::Error) -> io::Error {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
                let text = format!("the spawner (pid {}) is gone: restart the agent", self.pid);
                io::Error::new(error.kind(), text)
            }
            _ => error,
        }
    }
}

/// How the step from newborn to program went.
pub enum Go {
    Running,
    Failed(SpawnFailure),
}

/// Gives the child its description and waits until it runs the program or says why it cannot.
pub async fn go(control: std::os::unix::net::UnixStream, spec: &ChildSpec) -> io::Result<Go> {
    let encoded = spec.encode().map_err(io::Error::other)?;
    debug_assert!(encoded.len() <= SPAWN_SPEC_MAX_BYTES + size_of::<u32>());
    control.set_nonblocking(true)?;
    // Nearly every description fits into the socket at once: then tokio need not know about it yet.
    let written = match (&control).write(&encoded) {
        Ok(written) => written,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => return Err(error),
    };
    let mut control = UnixStream::from_std(control)?;
    match control.write_all(&encoded[written..]).await {
        // A child that was killed meanwhile reads no more; its end is seen as an exit.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Go::Running),
        other => other?,
    }
    let mut answer = Vec::with_capacity(ANSWER_MAX_BYTES);
    let read = (&mut control).take(ANSWER_MAX_BYTES as u64).read_to_end(&mut answer).await;
    match read {
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => return Err(error),
        _ => {}
    }
    Ok(SpawnFailure::decode(&answer).map_or(Go::Running, Go::Failed))
}
