//! Servers that answer every GET with 200.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// Threads that accept, each serving one connection after the other.
const ACCEPTORS: usize = 4;
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const HEAD_MAX_BYTES: usize = 4_096;

/// Serves until the process ends.
pub struct Server {
    addr: SocketAddr,
}

impl Server {
    /// Closes after each answer.
    pub fn answering() -> Server {
        Server::with(|mut stream| {
            answer(&mut stream);
        })
    }

    /// Answers on each connection until the client ends it.
    pub fn keeping() -> Server {
        Server::with(|mut stream| {
            std::thread::spawn(move || while answer(&mut stream) {});
        })
    }

    fn with(serve: fn(TcpStream)) -> Server {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").expect("a port"));
        let addr = listener.local_addr().expect("the port");
        for _ in 0..ACCEPTORS {
            let listener = Arc::clone(&listener);
            std::thread::spawn(move || listener.incoming().flatten().for_each(serve));
        }
        Server { addr }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// Answers one request; false when there was none.
fn answer(stream: &mut TcpStream) -> bool {
    let (mut head, mut filled) = ([0; HEAD_MAX_BYTES], 0);
    while !head[..filled].ends_with(b"\r\n\r\n") {
        match stream.read(&mut head[filled..]) {
            Ok(count @ 1..) => filled += count,
            Ok(0) | Err(_) => return false,
        }
    }
    stream.write_all(ANSWER).is_ok()
}
