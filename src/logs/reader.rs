//! Reads one log: its rotated parts in order, then the live file, then what is added to it.
//!
//! Rotation copies the live file to a new `.log.1` and truncates it (design 9.6). The reader notices that
//! the file became shorter, reads in `.log.1` what it has not yet seen, and goes on at the start of the live
//! file. What is lost: anything between two rotations between two looks, and the start of a file that grew
//! beyond the old place between two looks.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::Sender;
use tokio::time::sleep;

use super::{Follow, LogJob, Start};
use crate::files::{self, FileIo, LogFile};

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// How often a followed file is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

pub struct Reader {
    io: FileIo,
    /// Oldest first; the last is the live file.
    parts: Vec<LogFile>,
    live_path: PathBuf,
    rotated_path: PathBuf,
    /// Inode of `.log.1` when the live file was last known to be in place.
    rotated_inode: Option<u64>,
    /// Where in `parts` and in that part reading goes on.
    part: usize,
    offset: u64,
    /// Bytes that may still be sent.
    left: u64,
    follow: Option<Follow>,
    out: Sender<Bytes>,
}

/// Whether reading goes on.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Flow {
    GoOn,
    /// The client is gone, or has all the bytes it asked for.
    Stop,
}

impl Reader {
    /// # Errors
    /// The live file cannot be opened.
    pub async fn open(io: FileIo, pods_dir: &Path, job: LogJob) -> io::Result<Reader> {
        let mut paths = job.name.paths(pods_dir);
        let live_path = job.name.path(pods_dir, 0);
        let rotated_path = job.name.path(pods_dir, 1);
        let rotated_inode = files::inode(io, &rotated_path).await;
        let mut parts = Vec::new();
        let mut inodes = Vec::new();
        // Newest first: a rotation meanwhile can then show a part twice, but never hide one.
        for path in paths.by_ref() {
            let file = match LogFile::open(io, &path).await {
                Ok(file) => file,
                Err(error) if parts.is_empty() => return Err(named("open", &path, error)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(named("open", &path, error)),
            };
            let inode = file.meta().await.map_err(|error| named("stat", &path, error))?.inode;
            if inodes.contains(&inode) {
                file.close().await;
            } else {
                inodes.push(inode);
                parts.push(file);
            }
        }
        parts.reverse();
        let mut reader = Reader {
            io,
            parts,
            live_path,
            rotated_path,
            rotated_inode,
            part: 0,
            offset: 0,
            left: job.limit_bytes.unwrap_or(u64::MAX),
            follow: job.follow,
            out: job.out,
        };
        match job.start {
            Start::Beginning => {}
            Start::LastLines(lines) => reader.seek_to_last(lines).await?,
        }
        Ok(reader)
    }

    /// Feeds the channel to the end.
    ///
    /// # Errors
    /// A read failed.
    pub async fn run(mut self) -> io::Result<()> {
        let result = self.feed().await;
        for file in self.parts {
            file.close().await;
        }
        result
    }

    async fn feed(&mut self) -> io::Result<()> {
        loop {
            // Asked before the read: what was written while it still went on is then read for sure.
            let goes_on = self.follow.as_ref().is_some_and(|follow| (follow.goes_on)());
            if self.drain_parts().await? == Flow::Stop || !goes_on {
                return Ok(());
            }
            let Some(follow) = &self.follow else { return Ok(()) };
            let mut changed = follow.store.subscribe();
            tokio::select! {
                () = sleep(FOLLOW_EVERY) => {}
                _ = changed.changed() => {}
                () = self.out.closed() => return Ok(()),
            }
        }
    }

    /// From the current place to the end of the live file as it is now.
    async fn drain_parts(&mut self) -> io::Result<Flow> {
        while self.part + 1 < self.parts.len() {
            if self.drain_part().await? == Flow::Stop {
                return Ok(Flow::Stop);
            }
            self.part += 1;
            self.offset = 0;
        }
        if self.drain_rotated().await? == Flow::Stop {
            return Ok(Flow::Stop);
        }
        self.drain_part().await
    }

    async fn drain_part(&mut self) -> io::Result<Flow> {
        let Some(file) = self.parts.get_mut(self.part) else { return Ok(Flow::Stop) };
        let drained = drain(file, &mut self.offset, &mut self.left, &self.out).await;
        drained.map_err(|error| named("read", &self.live_path, error))
    }

    /// If the live file was rotated since it was last looked at: the unread rest of what it was.
    async fn drain_rotated(&mut self) -> io::Result<Flow> {
        let Some(live) = self.parts.get(self.part) else { return Ok(Flow::Stop) };
        let len = live.meta().await.map_err(|error| named("stat", &self.live_path, error))?.len;
        let is_shorter = len < self.offset;
        if !is_shorter && self.offset > 0 {
            return Ok(Flow::GoOn);
        }
        let inode = files::inode(self.io, &self.rotated_path).await;
        let mut flow = Flow::GoOn;
        if inode != self.rotated_inode
            && let Ok(mut rotated) = LogFile::open(self.io, &self.rotated_path).await
        {
            let drained = drain(&mut rotated, &mut self.offset, &mut self.left, &self.out).await;
            rotated.close().await;
            flow = drained.map_err(|error| named("read", &self.rotated_path, error))?;
        }
        self.rotated_inode = inode;
        self.offset = 0;
        Ok(flow)
    }

    /// Moves to the start of the last `lines` lines of all parts together.
    async fn seek_to_last(&mut self, lines: u64) -> io::Result<()> {
        let mut found = 0;
        // A line break at the very end ends the last line; it does not start another one.
        let mut is_last_byte = true;
        for part in (0..self.parts.len()).rev() {
            let mut end = self.parts[part].meta().await?.len;
            if lines == 0 {
                (self.part, self.offset) = (part, end);
                return Ok(());
            }
            while end > 0 {
                let start = end.saturating_sub(CHUNK_BYTES as u64);
                let size = (end - start) as usize;
                let mut chunk = self.parts[part].read_at(Vec::with_capacity(size), start).await?;
                chunk.truncate(size);
                for (place, byte) in chunk.iter().enumerate().rev() {
                    if *byte == b'\n' && !is_last_byte {
                        found += 1;
                    }
                    if found == lines {
                        (self.part, self.offset) = (part, start + place as u64 + 1);
                        return Ok(());
                    }
                    is_last_byte = false;
                }
                end = start;
            }
        }
        Ok(())
    }
}

/// Sends what is in `file` from `offset` on.
async fn drain(
    file: &mut LogFile,
    offset: &mut u64,
    left: &mut u64,
    out: &Sender<Bytes>,
) -> io::Result<Flow> {
    loop {
        if *left == 0 {
            return Ok(Flow::Stop);
        }
        let mut chunk = file.read_at(Vec::with_capacity(CHUNK_BYTES), *offset).await?;
        if chunk.is_empty() {
            return Ok(Flow::GoOn);
        }
        chunk.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
        *offset += chunk.len() as u64;
        *left -= chunk.len() as u64;
        if out.send(chunk.into()).await.is_err() {
            return Ok(Flow::Stop);
        }
    }
}

fn named(operation: &str, path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{operation} {}: {error}", path.display()))
}
