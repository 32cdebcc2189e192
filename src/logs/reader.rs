//! Reads one log: its rotated parts in order, then the live file, then what is added to it.
//!
//! Rotation copies the live file to new files `.log.1` (and `.log.2`, … when it has outgrown one) and
//! truncates it (design 9.6). The reader notices that the file became shorter, and reads what it has not yet
//! seen in the parts that it does not know. What is lost: parts that were rotated out before they were read,
//! and the start of a file that grew beyond the old place between two looks.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::Sender;
use tokio::time::sleep;

use super::{Follow, LogJob, Start};
use crate::files::{FileIo, LogFile};

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// How often a followed file is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

pub struct Reader {
    io: FileIo,
    /// Oldest first; the last is the live file. The newest rotated part stays open, so that its inode is
    /// not given to another file while it is what new parts are known by.
    parts: Vec<LogFile>,
    /// Where parts can be, the newest first; the first is the live file.
    paths: Vec<PathBuf>,
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
        let paths: Vec<PathBuf> = job.name.paths(pods_dir).collect();
        let live = LogFile::open(io, &paths[0]).await.map_err(|error| named("open", &paths[0], error))?;
        // The live file first: a rotation meanwhile can then show a part twice, but never hide one.
        let mut parts = rotated_parts(io, &paths[1..], None).await?;
        parts.push(live);
        let mut reader = Reader {
            io,
            parts,
            paths,
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
        loop {
            let is_live = self.part + 1 == self.parts.len();
            if is_live {
                self.notice_rotation().await?;
            }
            let was_live = is_live && self.part + 1 == self.parts.len();
            let Some(file) = self.parts.get_mut(self.part) else { return Ok(Flow::Stop) };
            let drained = drain(file, &mut self.offset, &mut self.left, &self.out).await;
            if drained.map_err(|error| named("read", &self.paths[0], error))? == Flow::Stop {
                return Ok(Flow::Stop);
            }
            if was_live {
                return Ok(Flow::GoOn);
            }
            if self.part + 1 < self.parts.len() {
                self.part += 1;
                self.offset = 0;
            }
        }
    }

    /// If the live file was truncated since it was last looked at: what it was is in new parts, and reading
    /// goes on in those.
    async fn notice_rotation(&mut self) -> io::Result<()> {
        let Some(live) = self.parts.get(self.part) else { return Ok(()) };
        let len = live.meta().await.map_err(|error| named("stat", &self.paths[0], error))?.len;
        if len >= self.offset && self.offset > 0 {
            return Ok(());
        }
        let newest = match self.part.checked_sub(1).and_then(|part| self.parts.get(part)) {
            Some(part) => Some(part.meta().await?.inode),
            None => None,
        };
        let new = rotated_parts(self.io, &self.paths[1..], newest).await?;
        if new.is_empty() {
            // Truncated by somebody else: what is there now is all that there is.
            self.offset = 0;
            return Ok(());
        }
        let live = self.parts.pop();
        for file in std::mem::replace(&mut self.parts, new) {
            file.close().await;
        }
        self.parts.extend(live);
        self.part = 0;
        // The place in what was one file, as a place in its parts.
        while self.part + 1 < self.parts.len() {
            let len = self.parts[self.part].meta().await?.len;
            if self.offset < len {
                return Ok(());
            }
            self.offset -= len;
            self.part += 1;
        }
        self.offset = 0;
        Ok(())
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

/// Opens the rotated parts that are newer than the one with inode `known`, oldest first. `paths` has the
/// newest first.
async fn rotated_parts(io: FileIo, paths: &[PathBuf], known: Option<u64>) -> io::Result<Vec<LogFile>> {
    let mut parts = Vec::new();
    let mut inodes = Vec::new();
    for path in paths {
        let file = match LogFile::open(io, path).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(named("open", path, error)),
        };
        let inode = file.meta().await.map_err(|error| named("stat", path, error))?.inode;
        if known == Some(inode) {
            file.close().await;
            break;
        }
        // A rotation in between shows the same part under its next name.
        if inodes.contains(&inode) {
            file.close().await;
        } else {
            inodes.push(inode);
            parts.push(file);
        }
    }
    parts.reverse();
    Ok(parts)
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
