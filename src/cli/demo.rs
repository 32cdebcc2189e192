//! `defib demo wedge`: an HTTP server that is well for a while, then serves nobody and lives on.
//!
//! It stands for the failure that no exit code shows: the process is there, and nobody is served. SIGTERM keeps its default action, so a stopped instance ends with 143.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::args::{Demo, Wedged};

/// Longest request head that is read; a client that sends more gets its answer early.
const REQUEST_MAX_BYTES: usize = 8 * 1024;
/// A client may be silent for so long before the next one is served.
const CLIENT_SILENCE_MAX: Duration = Duration::from_secs(1);
/// Connections held open without an answer; the oldest is closed for the next, so descriptors never run out.
const HELD_CONNECTIONS_MAX: usize = 128;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";

/// Runs the demo until it is killed. An error names the address.
pub fn run(demo: &Demo) -> Result<()> {
    match demo {
        Demo::Wedge { port, healthy_for, then } => wedge(*port, *healthy_for, *then),
    }
}

fn wedge(port: u16, healthy_for: Duration, then: Wedged) -> Result<()> {
    let address = (Ipv4Addr::LOCALHOST, port);
    let listener =
        TcpListener::bind(address).with_context(|| format!("cannot listen on 127.0.0.1:{port}"))?;
    println!("demo: listening on 127.0.0.1:{port}, well for {healthy_for:?}");
    serve(&listener, healthy_for).with_context(|| format!("serving 127.0.0.1:{port}"))?;
    match then {
        Wedged::Hang => {
            println!("demo: wedged: connections are accepted, and none is answered");
            hold(&listener).with_context(|| format!("accepting on 127.0.0.1:{port}"))
        }
        Wedged::Refuse => {
            drop(listener);
            println!("demo: wedged: the port is closed");
            wait_for_a_signal()
        }
    }
}

/// Answers every request until `healthy_for` is over.
fn serve(listener: &TcpListener, healthy_for: Duration) -> io::Result<()> {
    let over = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    // A timer of zero would be disarmed, not over at once.
    let it_value = Timespec::try_from(healthy_for.max(Duration::from_nanos(1))).map_err(io::Error::other)?;
    timerfd_settime(&over, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: zero, it_value })?;
    loop {
        let mut ready = [PollFd::new(&over, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        match poll(&mut ready, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        if !ready[0].revents().is_empty() {
            return Ok(());
        }
        let (client, _) = listener.accept()?;
        // A client that went away or stays silent concerns only itself.
        let _ = answer(client);
    }
}

fn answer(mut client: TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(CLIENT_SILENCE_MAX))?;
    client.set_write_timeout(Some(CLIENT_SILENCE_MAX))?;
    let mut request = [0; REQUEST_MAX_BYTES];
    let mut filled = 0;
    while filled < request.len() && !request[..filled].windows(4).any(|four| four == b"\r\n\r\n") {
        match client.read(&mut request[filled..])? {
            0 => return Ok(()),
            more => filled += more,
        }
    }
    client.write_all(ANSWER)
}

/// Accepts for ever and answers nothing.
fn hold(listener: &TcpListener) -> Result<()> {
    let mut held = VecDeque::with_capacity(HELD_CONNECTIONS_MAX);
    loop {
        let (client, _) = listener.accept()?;
        if held.len() == HELD_CONNECTIONS_MAX {
            held.pop_front();
        }
        held.push_back(client);
    }
}

/// Returns only when the kernel refuses to wait.
fn wait_for_a_signal() -> Result<()> {
    loop {
        match poll(&mut [], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for a signal"),
        }
    }
}
