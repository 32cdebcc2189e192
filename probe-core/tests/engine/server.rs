//! Servers of the tests: one thread each, on a loopback port of their own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// A listener that is served until it is dropped.
pub struct Server {
    pub addr: SocketAddr,
    accepted: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Which threads serve the connections of a server.
#[derive(Copy, Clone, PartialEq, Eq)]
pub enum Threads {
    /// The one that accepts: for answers that come at once.
    One,
    /// One for each connection.
    Each,
}

/// The head of a request as it came.
pub struct Request {
    /// First line: method, target, version.
    pub line: String,
    /// Header lines, without their line ends.
    pub headers: Vec<String>,
}

impl Server {
    /// Serves `listen` (`127.0.0.1:0`) with `serve`.
    pub fn start(
        listen: &str,
        threads: Threads,
        serve: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind(listen).unwrap();
        let addr = listener.local_addr().unwrap();
        let (accepted, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stopped, serve) = (accepted.clone(), stop.clone(), Arc::new(serve));
        let accept = move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                let serve = serve.clone();
                match threads {
                    Threads::One => serve(stream),
                    // Ends when the prober ends the connection.
                    Threads::Each => drop(std::thread::spawn(move || serve(stream))),
                }
            }
        };
        let thread = Some(std::thread::spawn(accept));
        Server { addr, accepted, stop, thread }
    }

    /// An HTTP server: `answer` makes the whole response of a request, then the connection is closed.
    pub fn http(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Server {
        Server::http_on("127.0.0.1:0", answer)
    }

    pub fn http_on(listen: &str, answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Server {
        Server::start(listen, Threads::One, move |mut stream| {
            if let Some(request) = Request::read(&stream) {
                let _ = stream.write_all(&answer(&request));
            }
        })
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the accept; a server that is at its limit of connections sees one more.
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Request {
    /// Reads a head; None when the client is gone.
    pub fn read(stream: &TcpStream) -> Option<Request> {
        let mut lines = BufReader::new(stream).lines();
        let line = lines.next()?.ok()?;
        let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        Some(Request { line, headers })
    }

    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.headers.iter().find_map(|line| line.strip_prefix(&prefix))
    }
}

/// A complete answer with a body.
pub fn response(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A redirect without a body.
pub fn redirect(status: u16, location: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// Reads until the client has gone.
pub fn read_to_end(mut stream: &TcpStream) {
    let mut buffer = [0; 4096];
    while matches!(stream.read(&mut buffer), Ok(1..)) {}
}

/// Writes the same bytes until the client has gone.
pub fn write_forever(mut stream: &TcpStream, head: &[u8], rest: &[u8]) {
    let mut written = stream.write_all(head);
    while written.is_ok() {
        written = stream.write_all(rest);
    }
}

/// Closes with a reset.
pub fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
    drop(stream);
}

/// Ends the server's side only.
pub fn half_close(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
}
