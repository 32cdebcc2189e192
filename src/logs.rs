//! Logs of containers, read for the API (design 9.6).
//!
//! HTTP handlers may run on any thread of the runtime; files belong to one local task, the worker. A
//! handler hands it a [`LogJob`] over a bounded channel, and the log comes back through the job's own
//! bounded channel, which is the body of the answer.

mod reader;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use probe_core::model::limits::LOG_FILES_MAX;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::files::FileIo;
use crate::store::Store;
use reader::Reader;

/// Jobs that wait for the worker.
const JOBS_WAITING_MAX: usize = 64;

/// One instance's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogName {
    /// `<namespace>_<name>_<uid>`, below `<state>/pods`.
    pub pod_dir: PathBuf,
    pub container: Box<str>,
    pub restart_count: u32,
}

impl LogName {
    /// The file that is written now (`rotation` 0), or an older part: 1 is the newest of those.
    pub fn path(&self, pods_dir: &Path, rotation: u32) -> PathBuf {
        let name = match rotation {
            0 => format!("{}.log", self.restart_count),
            n => format!("{}.log.{n}", self.restart_count),
        };
        pods_dir.join(&self.pod_dir).join(&*self.container).join(name)
    }

    /// All parts that can exist, the newest first.
    fn paths(&self, pods_dir: &Path) -> impl Iterator<Item = PathBuf> {
        (0..LOG_FILES_MAX).map(|rotation| self.path(pods_dir, rotation))
    }
}

/// Where reading starts.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Start {
    Beginning,
    /// So many lines before the end; an unfinished last line counts.
    LastLines(u64),
}

/// Go on with what is written from now.
pub struct Follow {
    /// Wakes the reader when something changes.
    pub store: Store,
    /// Whether more can come. What was written before it turned false is still read.
    pub goes_on: Box<dyn Fn() -> bool + Send>,
}

/// A log to read.
pub struct LogJob {
    pub name: LogName,
    pub start: Start,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
    pub follow: Option<Follow>,
    pub out: mpsc::Sender<Bytes>,
}

struct Request {
    job: LogJob,
    opened: oneshot::Sender<io::Result<()>>,
}

/// Hands jobs to the worker.
#[derive(Clone)]
pub struct LogDoor {
    requests: mpsc::Sender<Request>,
}

/// The local task that reads.
pub struct LogWorker {
    io: FileIo,
    pods_dir: Arc<Path>,
    requests: mpsc::Receiver<Request>,
}

impl LogDoor {
    /// Logs below `<state_dir>/pods`.
    pub fn new(state_dir: &Path, io: FileIo) -> (LogDoor, LogWorker) {
        let (sender, requests) = mpsc::channel(JOBS_WAITING_MAX);
        let pods_dir = state_dir.join("pods").into();
        (LogDoor { requests: sender }, LogWorker { io, pods_dir, requests })
    }

    /// Opens the log and starts to feed the job's channel.
    ///
    /// # Errors
    /// The log cannot be opened; the error names its path.
    pub async fn read(&self, job: LogJob) -> io::Result<()> {
        let ended = |_| io::Error::other("the agent is stopping");
        let (opened, answer) = oneshot::channel();
        self.requests.send(Request { job, opened }).await.map_err(|_| ended(()))?;
        answer.await.map_err(|_| ended(()))?
    }
}

impl LogWorker {
    /// Reads until every door is dropped. Must run where local tasks can be spawned (`files::block_on`).
    pub async fn run(mut self) {
        let mut readers = JoinSet::new();
        loop {
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => drop(readers.spawn_local(serve(self.io, Arc::clone(&self.pods_dir), request))),
                    None => return,
                },
                Some(_) = readers.join_next() => {}
            }
        }
    }
}

async fn serve(io: FileIo, pods_dir: Arc<Path>, request: Request) {
    let Request { job, opened } = request;
    match Reader::open(io, &pods_dir, job).await {
        Err(error) => drop(opened.send(Err(error))),
        Ok(reader) => {
            // A client that is gone meanwhile is noticed with the first chunk.
            let _ = opened.send(Ok(()));
            if let Err(error) = reader.run().await {
                tracing::warn!(%error, "a log could not be read to its end");
            }
        }
    }
}
