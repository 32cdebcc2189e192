//! Files of the control thread: through io_uring where the kernel allows it, else through tokio's thread
//! pool, behind one door. A slow disk then delays only who waits for it.

use std::future::Future;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};

/// Which way files are read.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum FileIo {
    /// tokio-uring; needs its runtime around it.
    Ring,
    /// `tokio::fs`.
    Pool,
}

/// Runs the control thread's main future on a runtime with a place for local tasks: tokio-uring's if the
/// kernel gives it a ring, else tokio's own.
///
/// # Errors
/// Neither runtime can be made.
pub fn block_on<F: Future>(main: impl FnOnce(FileIo) -> F) -> io::Result<F::Output> {
    match tokio_uring::Runtime::new(&tokio_uring::builder()) {
        Ok(runtime) => Ok(runtime.block_on(main(FileIo::Ring))),
        Err(error) => {
            tracing::warn!(%error, "no io_uring for files; a thread pool reads them (is io_uring disabled by seccomp or by the sysctl kernel.io_uring_disabled?)");
            block_on_pool(main)
        }
    }
}

/// As [`block_on`], without trying io_uring.
///
/// # Errors
/// The runtime cannot be made.
pub fn block_on_pool<F: Future>(main: impl FnOnce(FileIo) -> F) -> io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    Ok(local.block_on(&runtime, main(FileIo::Pool)))
}

/// A file that is open for reading. Belongs to a local task.
pub enum LogFile {
    Ring(tokio_uring::fs::File),
    Pool(tokio::fs::File),
}

/// What is needed of a file's metadata.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Meta {
    pub inode: u64,
    pub len: u64,
}

impl LogFile {
    pub async fn open(io: FileIo, path: &Path) -> io::Result<LogFile> {
        match io {
            FileIo::Ring => tokio_uring::fs::File::open(path).await.map(LogFile::Ring),
            FileIo::Pool => tokio::fs::File::open(path).await.map(LogFile::Pool),
        }
    }

    pub async fn meta(&self) -> io::Result<Meta> {
        match self {
            LogFile::Ring(file) => {
                file.statx().await.map(|stat| Meta { inode: stat.stx_ino, len: stat.stx_size })
            }
            LogFile::Pool(file) => {
                file.metadata().await.map(|meta| Meta { inode: meta.ino(), len: meta.len() })
            }
        }
    }

    /// Up to `buffer.capacity()` bytes at `offset`; empty at the end of the file.
    pub async fn read_at(&mut self, mut buffer: Vec<u8>, offset: u64) -> io::Result<Vec<u8>> {
        buffer.clear();
        match self {
            LogFile::Ring(file) => {
                let (read, mut buffer) = file.read_at(buffer, offset).await;
                buffer.truncate(read?);
                Ok(buffer)
            }
            LogFile::Pool(file) => {
                file.seek(SeekFrom::Start(offset)).await?;
                file.read_buf(&mut buffer).await?;
                Ok(buffer)
            }
        }
    }

    /// Closing through the ring must be awaited; a dropped file is closed, too, but on this thread.
    pub async fn close(self) {
        match self {
            // Nothing was written, so there is nothing to lose.
            LogFile::Ring(file) => drop(file.close().await),
            LogFile::Pool(file) => drop(file),
        }
    }
}
