//! The Unix socket and the connections on it.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Api, Served, router};

/// Connections served at a time; further ones wait to be accepted. Every watcher and follower holds one.
const CONNECTIONS_MAX: usize = 512;
/// How long a client may take to send a request's head, and how long a kept connection may be idle.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// Pause after an accept that failed: the cause (no descriptors left) does not pass at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long answers under way may take when the agent ends.
pub const DRAIN_MAX: Duration = Duration::from_secs(1);
/// Only the user that runs the agent may talk to it.
const SOCKET_MODE: u32 = 0o600;

/// Why the socket could not be made.
#[derive(Debug, Error)]
pub enum BindError {
    #[error("another agent answers on {}; stop it, or choose another socket with --socket", path.display())]
    InUse { path: PathBuf },
    #[error("{operation} {}: {problem}; choose another socket with --socket", path.display())]
    Io { operation: &'static str, path: PathBuf, problem: io::Error },
}

/// A bound socket; dropping it removes its file.
#[derive(Debug)]
pub struct Socket {
    listener: StdListener,
    path: PathBuf,
    /// Device and inode, so that only our own file is removed.
    identity: (u64, u64),
}

impl Socket {
    /// Binds `path` with mode 0600, in place of a socket on which nobody answers.
    ///
    /// # Errors
    /// Another agent answers there, or the file system refuses.
    pub fn bind(path: &Path) -> Result<Socket, BindError> {
        if StdStream::connect(path).is_ok() {
            return Err(BindError::InUse { path: path.to_owned() });
        }
        let io = |operation| move |problem| BindError::Io { operation, path: path.to_owned(), problem };
        if let Ok(found) = fs::symlink_metadata(path) {
            use std::os::unix::fs::FileTypeExt;
            if !found.file_type().is_socket() {
                let problem =
                    io::Error::new(io::ErrorKind::AlreadyExists, "a file that is not a socket is there");
                return Err(io("bind")(problem));
            }
        }
        // Bound under another name and then renamed: nobody can connect before the mode is set, and an
        // old socket is replaced in one step.
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}", std::process::id()));
        let temporary = PathBuf::from(temporary);
        let _ = fs::remove_file(&temporary);
        let listener = StdListener::bind(&temporary).map_err(io("bind"))?;
        let finish = || {
            fs::set_permissions(&temporary, fs::Permissions::from_mode(SOCKET_MODE))?;
            listener.set_nonblocking(true)?;
            let meta = fs::symlink_metadata(&temporary)?;
            fs::rename(&temporary, path)?;
            Ok((meta.dev(), meta.ino()))
        };
        let identity = finish().inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        });
        Ok(Socket { listener, path: path.to_owned(), identity: identity.map_err(io("bind"))? })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let own =
            fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.identity);
        if own {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Serves the API until `stop` is done. Then watches send what has happened and end, as answers under way
/// do, and after at most [`DRAIN_MAX`] every connection is dropped.
///
/// # Errors
/// The listener cannot be registered with the runtime.
pub async fn serve(socket: &Socket, api: Api, stop: impl Future<Output = ()>) -> io::Result<()> {
    let listener = UnixListener::from_std(socket.listener.try_clone()?)?;
    let (end, ending) = watch::channel(());
    let service = TowerToHyperService::new(router(Arc::new(Served { api, ending: ending.clone() })));
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let slot = Arc::clone(&slots).acquire_owned().await;
            (listener.accept().await, slot)
        };
        tokio::select! {
            () = &mut stop => break,
            (accepted, slot) = accepted => match accepted {
                Ok((stream, _)) => {
                    let (service, ending) = (service.clone(), ending.clone());
                    connections.spawn(async move {
                        connection(stream, service, ending).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, socket = %socket.path.display(), "accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(end);
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN_MAX, drained).await.is_err() {
        tracing::debug!(open = connections.len(), "connections are dropped");
    }
    Ok(())
}

async fn connection(
    stream: UnixStream,
    service: TowerToHyperService<axum::Router>,
    mut ending: watch::Receiver<()>,
) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let served = tokio::select! {
        served = served.as_mut() => served,
        _ = ending.changed() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = served {
        // Clients that go away in the middle of a watch or of a followed log are everyday life.
        tracing::debug!(%error, "a connection ended early");
    }
}
