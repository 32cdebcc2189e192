//! The floor: the cheapest known sequence of kernel calls for a fresh connection, a request and its reply, and
//! nothing else. No schedule but a round robin at an even rate, no parsing, no timeouts, no thresholds.
//!
//! One linked chain per probe, on a socket that is kept: connect, send, receive, receive the server's FIN,
//! disconnect. Only the last one tells of its end when all went well, so that a probe is five ring entries, one
//! completion and no system call of its own; one call a tick hands everything over. The tick is that of defib.
//!
//! The wire shows what it shows of defib: the request in the packet that ends the handshake
//! (TCP_DEFER_ACCEPT on the client's side), and a reset only after the server's FIN.

#![expect(unsafe_code, reason = "ring entries carry pointers that the kernel follows")]

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};
use peers::{Control, Kind, Load, Phase, Tally};
use probe_core::model::limits::FAST_PERIOD;
use probe_core::model::time::Mono;
use probe_core::sys::clock;
use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType, socket_with, sockopt};

/// Probes in flight.
const SLOTS: u32 = 512;
/// Room for a whole chain of every slot.
const ENTRIES: u32 = 4_096;
/// So many completions end a wait before its tick: more than there ever are.
const NEVER_MANY: usize = 2_048;
const ANSWER_BYTES: usize = 256;
/// Where a status line has its status.
const STATUS: std::ops::Range<usize> = 9..12;
/// Digits of a target's number in the request, so that all requests have one length.
const DIGITS: usize = 6;
const DIGITS_AT: usize = "GET /t/".len();

/// Connecting to family AF_UNSPEC disconnects (connect(2)).
static UNSPEC_ADDRESS: libc::sockaddr =
    libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    load: Load,
}

/// What entries in flight point to; never moved.
struct Slot {
    target: u32,
    address: SocketAddrAny,
    request: Vec<u8>,
    answer: [u8; ANSWER_BYTES],
    socket: OwnedFd,
}

struct Floor {
    /// First, so that it is dropped before what the kernel may write to.
    ring: IoUring,
    slots: Box<[Slot]>,
    free: Vec<u32>,
    load: Load,
    /// As long as that of a shard of defib under the same load.
    tick: Duration,
}

/// What a completion is of.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Step {
    Connect,
    Send,
    Receive,
    Disconnect,
}

fn main() -> Result<()> {
    let load = Cli::parse().load;
    let mut floor = Floor::new(load)?;
    let mut tally = Tally::new()?;
    let control = Control::ready()?;
    let per_tick = load.rate_per_s() * floor.tick.as_secs_f64();
    let start = clock::mono();
    let mut begun = 0_u64;
    let mut ticks = 0_u32;
    while control.phase() != Phase::Over {
        ticks += 1;
        let due = (f64::from(ticks) * per_tick) as u64;
        while begun < due && floor.begin((begun % u64::from(load.targets)) as u32) {
            begun += 1;
        }
        floor.wait_until(start.after(floor.tick * ticks))?;
        floor.reap(&mut tally, &control);
    }
    floor.finish(&mut tally, &control)?;
    tally.report().print()
}

impl Floor {
    fn new(load: Load) -> Result<Floor> {
        let ring = IoUring::builder()
            .dontfork()
            .setup_cqsize(2 * ENTRIES)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_no_sqarray()
            .build(ENTRIES)
            .context("io_uring_setup (the floor needs Linux 6.6)")?;
        ring.submitter().register_files_sparse(SLOTS).context("the file table")?;
        let slots: Box<[Slot]> = (0..SLOTS).map(|_| Slot::new(load)).collect::<Result<_>>()?;
        for (at, slot) in (0..SLOTS).zip(&slots) {
            ring.submitter().register_files_update(at, &[slot.socket.as_raw_fd()]).context("a socket")?;
        }
        let tick = probe_core::engine::coalesce(load.rate_per_s() as u64, load.period() < FAST_PERIOD);
        Ok(Floor { ring, slots, free: (0..SLOTS).collect(), load, tick })
    }

    /// Pushes the chain of one probe; false when every slot is taken, and nothing happened.
    fn begin(&mut self, target: u32) -> bool {
        let Some(at) = self.free.pop() else { return false };
        let socket = Fixed(at);
        let slot = &mut self.slots[at as usize];
        slot.prepare(self.load, target);
        let quiet = Flags::SKIP_SUCCESS;
        let connect = opcode::Connect::new(socket, slot.address.as_ptr().cast(), slot.address.addr_len())
            .build()
            .user_data(user_data(at, Step::Connect))
            .flags(quiet | Flags::IO_LINK);
        if self.load.kind == Kind::Tcp {
            self.push(&[connect, disconnect(at)]);
            return true;
        }
        let send = opcode::Send::new(socket, slot.request.as_ptr(), slot.request.len() as u32)
            .build()
            .user_data(user_data(at, Step::Send))
            .flags(quiet | Flags::IO_HARDLINK);
        let receive = opcode::Recv::new(socket, slot.answer.as_mut_ptr(), ANSWER_BYTES as u32)
            .build()
            .user_data(user_data(at, Step::Receive))
            .flags(quiet | Flags::IO_HARDLINK);
        // Nothing comes but the end of the stream; what would come lies behind the status.
        let rest = &mut slot.answer[STATUS.end..];
        let fin = opcode::Recv::new(socket, rest.as_mut_ptr(), rest.len() as u32)
            .build()
            .user_data(user_data(at, Step::Receive))
            .flags(quiet | Flags::IO_HARDLINK);
        self.push(&[connect, send, receive, fin, disconnect(at)]);
        true
    }

    fn push(&mut self, entries: &[Entry]) {
        // SAFETY: needed to hand the kernel pointers. They lead into `slots`, which is never moved and outlives
        // the ring; a slot's fields are touched again only after its disconnect, the last of its chain, has
        // completed. The entry for AF_UNSPEC points to a constant.
        let pushed = unsafe { self.ring.submission().push_multiple(entries) };
        assert!(pushed.is_ok(), "a whole chain of every slot has room");
    }

    /// Hands over what was pushed and sleeps until `tick`, running what ends meanwhile.
    fn wait_until(&mut self, tick: Mono) -> Result<()> {
        let timespec = Timespec::from(tick.since(clock::mono()));
        let args = SubmitArgs::new().timespec(&timespec);
        match self.ring.submitter().submit_with_args(NEVER_MANY, &args) {
            Ok(_) => Ok(()),
            // The ordinary end of a wait, and a signal.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR)) => Ok(()),
            Err(error) => Err(error).context("io_uring_enter"),
        }
    }

    fn reap(&mut self, tally: &mut Tally, control: &Control) {
        let mut broken = Vec::new();
        for completion in self.ring.completion() {
            let (at, step) = parse(completion.user_data());
            match step {
                Step::Disconnect => {
                    let slot = &self.slots[at as usize];
                    self.free.push(at);
                    if self.load.kind == Kind::Http
                        && slot.answer[STATUS] != *b"200"
                        && control.is_measuring()
                    {
                        match &slot.answer[STATUS] {
                            b"503" => tally.failed_by_script(slot.target),
                            status => tally.failed(|| format!("target {}: {status:?}", slot.target)),
                        }
                    }
                }
                // Nothing was begun after it. The status is still empty, so an HTTP probe is counted above.
                Step::Connect => {
                    broken.push(at);
                    let slot = &self.slots[at as usize];
                    let is_refused = completion.result() == -libc::ECONNREFUSED;
                    if self.load.kind == Kind::Tcp && control.is_measuring() {
                        match is_refused {
                            true => tally.failed_by_script(slot.target),
                            false => tally.failed(|| format!("target {}: {completion:?}", slot.target)),
                        }
                    }
                }
                // The rest of the chain goes on.
                Step::Send | Step::Receive => {}
            }
        }
        for at in broken {
            self.push(&[disconnect(at)]);
        }
    }

    /// Waits until nothing is in flight, since the kernel may write to the slots until then.
    fn finish(mut self, tally: &mut Tally, control: &Control) -> Result<()> {
        const ROUNDS_MAX: u32 = 5_000;
        for _ in 0..ROUNDS_MAX {
            if self.free.len() == SLOTS as usize {
                return Ok(());
            }
            self.wait_until(clock::mono().after(self.tick))?;
            self.reap(tally, control);
        }
        let left = SLOTS as usize - self.free.len();
        // Leaked, not dropped: the kernel may still write there.
        std::mem::forget(self.slots);
        ensure!(left == 0, "{left} probes would not end");
        Ok(())
    }
}

impl Slot {
    /// Blocking, since a ring does not wait on non-blocking descriptors.
    fn new(load: Load) -> Result<Slot> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .context("a socket; the floor needs as many descriptors as it has slots")?;
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).context("SO_LINGER")?;
        if load.kind == Kind::Http {
            set_defer_accept(&socket)?;
        }
        let address = load.address(0);
        let head = format!(
            "GET /t/{:0DIGITS$} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: kube-probe/1.34\r\nAccept: */*\r\n\
             Connection: close\r\n\r\n",
            0
        );
        Ok(Slot {
            target: 0,
            address: SocketAddrAny::from(address),
            request: head.into_bytes(),
            answer: [0; ANSWER_BYTES],
            socket,
        })
    }

    fn prepare(&mut self, load: Load, target: u32) {
        self.target = target;
        self.address = SocketAddrAny::from(load.address(target));
        self.answer[STATUS].fill(0);
        let mut rest = target;
        for digit in self.request[DIGITS_AT..DIGITS_AT + DIGITS].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
}

fn disconnect(at: u32) -> Entry {
    let len = size_of::<libc::sockaddr>() as libc::socklen_t;
    let entry = opcode::Connect::new(Fixed(at), &raw const UNSPEC_ADDRESS, len).build();
    entry.user_data(user_data(at, Step::Disconnect))
}

fn user_data(at: u32, step: Step) -> u64 {
    u64::from(at) << 2 | step as u64
}

fn parse(user_data: u64) -> (u32, Step) {
    let step = match user_data & 3 {
        0 => Step::Connect,
        1 => Step::Send,
        2 => Step::Receive,
        _ => Step::Disconnect,
    };
    ((user_data >> 2) as u32, step)
}

/// On a client socket the last packet of the handshake waits for the first data.
fn set_defer_accept(socket: &OwnedFd) -> Result<()> {
    let seconds: libc::c_int = 1;
    // SAFETY: needed because rustix has no wrapper for this option; the descriptor is open, and the pointer and
    // length describe a local integer that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    ensure!(result == 0, "TCP_DEFER_ACCEPT: {}", std::io::Error::last_os_error());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_names_its_slot_and_step() {
        for step in [Step::Connect, Step::Send, Step::Receive, Step::Disconnect] {
            assert_eq!(parse(user_data(511, step)), (511, step));
        }
    }
}
