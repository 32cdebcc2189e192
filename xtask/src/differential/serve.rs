//! The server of the differential run: does as each case says, and remembers what it was asked.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::behaviour::{Act, Behaviour, Door, Script, id_of};
use crate::clock::pause;

/// A client that goes on asking is cut off here.
const REQUEST_MAX_BYTES: usize = 64 * 1024;
/// Between the pieces of a trickle: enough for the client to see each alone.
const MOMENT: Duration = Duration::from_millis(2);
/// No connection outlives the longest probe by more than this.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Serving {
    shared: Arc<Shared>,
    listening: Vec<(JoinHandle<()>, SocketAddr)>,
}

struct Shared {
    behaviours: HashMap<u16, Behaviour>,
    tls: Arc<ServerConfig>,
    is_over: AtomicBool,
    /// Requests of the current round as they came, by case and in their order.
    heard: Mutex<HashMap<u16, Vec<Vec<u8>>>>,
}

impl Serving {
    pub fn start(behaviours: &[Behaviour]) -> Result<Serving> {
        let shared = Arc::new(Shared {
            behaviours: behaviours.iter().map(|behaviour| (behaviour.id, behaviour.clone())).collect(),
            tls: Arc::new(tls_config()?),
            is_over: AtomicBool::new(false),
            heard: Mutex::default(),
        });
        let mut listening = Vec::new();
        for door in [Door::Plain, Door::Tls, Door::Raw] {
            let listener = TcpListener::bind(("0.0.0.0", door.port()))
                .with_context(|| format!("port {}: is another run under way?", door.port()))?;
            let addr = SocketAddr::from(([127, 0, 0, 1], door.port()));
            let shared = Arc::clone(&shared);
            listening.push((std::thread::spawn(move || accept(&listener, door, &shared)), addr));
        }
        Ok(Serving { shared, listening })
    }

    /// What was asked since the last call.
    pub fn take_heard(&self) -> HashMap<u16, Vec<Vec<u8>>> {
        std::mem::take(&mut *self.shared.heard())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for (thread, addr) in self.listening.drain(..) {
            // It sees the flag when a connection comes.
            let _ = TcpStream::connect(addr);
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn heard(&self) -> MutexGuard<'_, HashMap<u16, Vec<Vec<u8>>>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a request and says what to do about it.
    fn script(&self, id: u16, request: Vec<u8>) -> Option<&Script> {
        let mut heard = self.heard();
        let requests = heard.entry(id).or_default();
        requests.push(request);
        let scripts = &self.behaviours.get(&id)?.scripts;
        scripts.get(requests.len() - 1).or(scripts.last())
    }
}

fn tls_config() -> Result<ServerConfig> {
    let key = rcgen::KeyPair::generate().context("a key")?;
    let params = rcgen::CertificateParams::new(vec!["elsewhere.example".to_owned()]).context("a name")?;
    let certificate = params.self_signed(&key).context("a certificate")?;
    let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], der)
        .context("a TLS server")
}

fn accept(listener: &TcpListener, door: Door, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        if shared.is_over.load(Ordering::Relaxed) {
            return;
        }
        // Nothing to serve, or no descriptor at the moment: the next one tells.
        let Ok((stream, _)) = accepted else { continue };
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            // A client that goes early is a part of many cases.
            let _ = serve(stream, door, &shared);
        });
    }
}

fn serve(stream: TcpStream, door: Door, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let IpAddr::V4(host) = stream.local_addr()?.ip() else { return Ok(()) };
    let Some(id) = id_of(host) else { return Ok(()) };
    match door {
        Door::Tls => {
            let connection = ServerConnection::new(Arc::clone(&shared.tls)).map_err(io::Error::other)?;
            let mut secure = StreamOwned::new(connection, stream);
            let request = read_head(&mut secure)?;
            let Some(script) = shared.script(id, request) else { return Ok(()) };
            if act(&mut secure, script)? {
                // Without a close_notify: many servers end so.
                end(&mut secure.sock)?;
            }
            Ok(())
        }
        Door::Plain | Door::Raw | Door::Closed => {
            let mut stream = stream;
            let request = if door == Door::Raw { read_some(&mut stream)? } else { read_head(&mut stream)? };
            let Some(script) = shared.script(id, request) else { return Ok(()) };
            if act(&mut stream, script)? { end(&mut stream) } else { Ok(()) }
        }
    }
}

trait Wire: Read + Write {
    fn socket(&mut self) -> &mut TcpStream;
}

impl Wire for TcpStream {
    fn socket(&mut self) -> &mut TcpStream {
        self
    }
}

impl Wire for StreamOwned<ServerConnection, TcpStream> {
    fn socket(&mut self) -> &mut TcpStream {
        &mut self.sock
    }
}

/// True when the connection is still to be ended in order.
fn act(wire: &mut impl Wire, script: &Script) -> io::Result<bool> {
    for act in script {
        match act {
            Act::Send(bytes) => wire.write_all(bytes).and_then(|()| wire.flush())?,
            Act::Trickle(bytes, at_once) => {
                for piece in bytes.chunks(*at_once) {
                    wire.write_all(piece)?;
                    wire.flush()?;
                    pause(MOMENT);
                }
            }
            Act::Hang => {
                drain(wire.socket());
                return Ok(false);
            }
            Act::Reset => {
                // What was sent is to be read first: a reset throws away what waits.
                pause(MOMENT);
                rustix::net::sockopt::set_socket_linger(wire.socket(), Some(Duration::ZERO))?;
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Our FIN, then theirs: closing with unread bytes would be a reset.
fn end(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown(std::net::Shutdown::Write)?;
    drain(stream);
    Ok(())
}

fn drain(stream: &mut TcpStream) {
    let mut bytes = [0; 4_096];
    while stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
}

/// Until an empty line.
fn read_head(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < REQUEST_MAX_BYTES {
        let mut byte = [0; 512];
        match from.read(&mut byte)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => head.extend_from_slice(&byte[..count]),
        }
    }
    Ok(head)
}

/// What comes first. A greeting of TLS holds random numbers, so it is not remembered.
fn read_some(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = [0; 4_096];
    match from.read(&mut bytes)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(Vec::new()),
    }
}
