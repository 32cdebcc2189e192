//! The thread of gRPC calls: due calls in, one task for each, outcomes to the engine that asked.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use probe_core::engine::Inbox;
use probe_core::model::limits::{PROBE_ATTEMPTS, SHARD_QUEUE_MAX};
use probe_core::model::probe::{CallId, Phases, ProbeCmd, RunResult, Target, Verdict};
use probe_core::model::time::Mono;
use probe_core::sys::clock;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, Id, JoinSet};

use super::call;

/// How soon an engine whose queue is full is told again.
const TELL_AGAIN: Duration = Duration::from_millis(1);

/// What an engine wants.
pub enum Order {
    Call(Call),
    /// Nobody waits for this call any more.
    Cut(CallId),
}

/// One due call, and the engine that gets its outcome.
pub struct Call {
    pub id: CallId,
    pub target: Arc<Target>,
    pub timeout: Duration,
    pub due: Mono,
    pub inbox: Arc<OnceLock<Inbox>>,
}

/// The way to the thread.
#[derive(Clone, Debug)]
pub struct CallDoor {
    orders: mpsc::Sender<Order>,
}

impl CallDoor {
    /// Hands over an order. Waits while the queue is full; the thread itself waits for nobody.
    pub fn give(&self, order: Order) {
        // An error at the end of the agent only: nobody is left to call.
        let _ = self.orders.blocking_send(order);
    }
}

/// The running thread. Dropping it cuts all calls and waits for its end.
#[derive(Debug)]
pub struct Calls {
    door: CallDoor,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Calls {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread or its epoll cannot be made.
    pub fn start() -> io::Result<Calls> {
        Calls::start_with(check)
    }

    fn start_with<M, F>(make: M) -> io::Result<Calls>
    where
        M: Fn(Job) -> F + Copy + Send + 'static,
        F: Future<Output = RunResult> + Send + 'static,
    {
        let (orders, inbox) = mpsc::channel(SHARD_QUEUE_MAX);
        let (stop, stopped) = oneshot::channel();
        let tokio = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let body = move || tokio.block_on(serve(inbox, stopped, make));
        let thread = std::thread::Builder::new().name("grpc".to_owned()).spawn(body)?;
        Ok(Calls { door: CallDoor { orders }, stop: Some(stop), thread: Some(thread) })
    }

    pub fn door(&self) -> CallDoor {
        self.door.clone()
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread of gRPC probes panicked; see its message above");
        }
    }
}

/// Until it is stopped; what is in flight then ends with the thread's runtime. Engines bound how many calls there are
/// (`engine::Shard`).
async fn serve<M, F>(mut orders: mpsc::Receiver<Order>, mut stopped: oneshot::Receiver<()>, make: M)
where
    M: Fn(Job) -> F,
    F: Future<Output = RunResult> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut running = Running::default();
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            order = orders.recv() => match order {
                None => return,
                Some(Order::Call(Call { id, target, timeout, due, inbox })) => {
                    // As on the ring: what somebody asks for by hand shows how it ended at once.
                    let attempts_max = match id {
                        CallId::Probe { .. } => PROBE_ATTEMPTS,
                        CallId::Once { .. } => 1,
                    };
                    let run = make(Job { target, timeout, due, attempts_max });
                    let asker = Asker { id, due, inbox: Arc::clone(&inbox) };
                    running.begin(asker, tasks.spawn(async move { tell(&inbox, id, run.await).await }));
                }
                Some(Order::Cut(id)) => running.cut(id),
            },
            Some(ended) = tasks.join_next_with_id() => {
                let (task, has_panicked) = match ended {
                    Ok((task, ())) => (task, false),
                    Err(error) => (error.id(), error.is_panic()),
                };
                if let Some(Asker { id, due, inbox }) = running.ended(task).filter(|_| has_panicked) {
                    tasks.spawn(async move { tell(&inbox, id, not_judged(due)).await });
                }
            }
        }
    }
}

/// What the task of a call does.
struct Job {
    target: Arc<Target>,
    timeout: Duration,
    due: Mono,
    attempts_max: u32,
}

async fn check(job: Job) -> RunResult {
    let Job { target, timeout, due, attempts_max } = job;
    match &*target {
        Target::Grpc(target) => call::run(target, timeout, due, attempts_max).await,
        Target::Http(_) | Target::Tcp(_) | Target::Exec | Target::Broken { .. } => {
            let phases = Phases { due, done: clock::now().mono, ..Phases::default() };
            RunResult { verdict: Verdict::Errored, detail: Some("not a gRPC probe".into()), phases }
        }
    }
}

/// The outcome of a call whose task panicked: without one its probe would never run again. (Where a panic ends the whole
/// agent, as in release builds, nobody gets this far.)
fn not_judged(due: Mono) -> RunResult {
    let text = "not judged: an error inside the prober; its message is on the agent's standard error";
    let phases = Phases { due, done: clock::now().mono, ..Phases::default() };
    RunResult { verdict: Verdict::Inconclusive, detail: Some(text.into()), phases }
}

/// Tells the engine that asked, as soon as its queue has room.
async fn tell(inbox: &OnceLock<Inbox>, call: CallId, result: RunResult) {
    let mut answer = vec![ProbeCmd::CallDone { call, result }];
    let Some(inbox) = inbox.get() else { return };
    inbox.send(&mut answer);
    while !answer.is_empty() {
        tokio::time::sleep(TELL_AGAIN).await;
        inbox.send(&mut answer);
    }
}

/// Who waits for a call.
struct Asker {
    id: CallId,
    due: Mono,
    inbox: Arc<OnceLock<Inbox>>,
}

/// The task of each call. An engine asks for a probe's next call once it has its outcome, which may be before the end of
/// the task is seen here.
#[derive(Default)]
struct Running {
    tasks: HashMap<CallId, AbortHandle>,
    askers: HashMap<Id, Asker>,
}

impl Running {
    fn begin(&mut self, asker: Asker, task: AbortHandle) {
        let (id, of_task) = (asker.id, task.id());
        self.askers.insert(of_task, asker);
        self.tasks.insert(id, task);
    }

    fn cut(&mut self, id: CallId) {
        if let Some(task) = self.tasks.remove(&id) {
            task.abort();
        }
    }

    /// Who waited for it; None when it was cut.
    fn ended(&mut self, task: Id) -> Option<Asker> {
        let asker = self.askers.remove(&task)?;
        self.tasks.get(&asker.id).filter(|running| running.id() == task)?;
        self.tasks.remove(&asker.id);
        Some(asker)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::{TcpListener, TcpStream};

    use probe_core::engine::{Clocks, Engine};
    use probe_core::model::id::Ticket;
    use probe_core::model::limits::GRPC_CONNECT_MIN;
    use probe_core::model::probe::{GrpcTarget, ProbeEvent};
    use probe_core::ring::RingOptions;

    use super::*;

    /// Longer than anything takes, and shorter than a mute server's connection is kept without a cut
    /// ([`GRPC_CONNECT_MIN`]); a test that waits for it has failed.
    const WATCHDOG: Duration = Duration::from_secs(10);

    /// Accepts, and says nothing.
    fn mute() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    fn target(server: &TcpListener) -> Target {
        Target::Grpc(GrpcTarget { addr: server.local_addr().unwrap(), service: "".into() })
    }

    fn call(number: u64, server: &TcpListener) -> Order {
        Order::Call(Call {
            id: id(number),
            target: Arc::new(target(server)),
            timeout: Duration::from_secs(100_000),
            due: clock::now().mono,
            inbox: Arc::default(),
        })
    }

    fn id(number: u64) -> CallId {
        CallId::Once { ticket: Ticket(number) }
    }

    /// Until the peer has ended the connection.
    fn read_to_its_end(mut stream: TcpStream) {
        const { assert!(WATCHDOG.as_secs() < GRPC_CONNECT_MIN.as_secs()) };
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        loop {
            match stream.read(&mut [0; 256]) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the connection goes on");
                    return;
                }
            }
        }
    }

    #[test]
    fn a_cut_and_the_end_of_the_thread_end_connections() {
        let (calls, server) = (Calls::start().unwrap(), mute());
        calls.door().give(call(1, &server));
        let (first, _) = server.accept().unwrap();
        calls.door().give(call(2, &server));
        let (second, _) = server.accept().unwrap();
        // One that nobody knows changes nothing.
        calls.door().give(Order::Cut(id(3)));
        calls.door().give(Order::Cut(id(1)));
        read_to_its_end(first);
        // The thread is there still, and so is the other call.
        second.set_nonblocking(true).unwrap();
        while (&second).read(&mut [0; 256]).is_ok_and(|read| read > 0) {}
        let silent = (&second).read(&mut [0; 256]).map_err(|error| error.kind());
        assert_eq!(silent, Err(ErrorKind::WouldBlock), "it was not the one that was cut");
        second.set_nonblocking(false).unwrap();
        drop(calls);
        read_to_its_end(second);
    }

    #[test]
    fn calls_that_are_cut_as_they_connect_leave_no_connection() {
        let (calls, server, other) = (Calls::start().unwrap(), mute(), mute());
        let door = calls.door();
        let mut accepted = Vec::new();
        for number in 1..100 {
            door.give(call(number, &server));
            if number % 10 == 0 {
                // A connection that its call may not have seen yet; most calls are cut before they begin one.
                accepted.push(server.accept().unwrap().0);
            }
            door.give(Order::Cut(id(number)));
        }
        door.give(call(1_000, &other));
        // The last call has connected: whatever the thread makes of those before it, it has begun.
        let (last, _) = other.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        accepted.extend(std::iter::from_fn(|| server.accept().ok()).map(|(stream, _)| stream));
        for stream in accepted {
            stream.set_nonblocking(false).unwrap();
            read_to_its_end(stream);
        }
        drop(calls);
        read_to_its_end(last);
    }

    #[test]
    fn a_call_that_panics_has_an_outcome_too() {
        async fn panics(_: Job) -> RunResult {
            tokio::task::yield_now().await;
            panic!("as this test wants it")
        }
        let calls = Calls::start_with(panics).unwrap();
        let (door, inbox) = (calls.door(), Arc::new(OnceLock::<Inbox>::new()));
        let (answers, answered) = std::sync::mpsc::channel();
        let of_engine = Arc::clone(&inbox);
        let deliver = move |events: &mut Vec<ProbeEvent>| {
            for event in events.drain(..) {
                if let ProbeEvent::CallDue { call, target, timeout, due } = event {
                    let inbox = Arc::clone(&of_engine);
                    door.give(Order::Call(Call { id: call, target, timeout, due, inbox }));
                } else {
                    let _ = answers.send(event);
                }
            }
        };
        let clocks = Clocks { now: clock::now, boot_ns: clock::boot_ns };
        let engine = Engine::start("panics", RingOptions::Epoll { slots: 2 }, clocks, deliver).unwrap();
        inbox.set(engine.inbox()).unwrap();
        let (ticket, timeout) = (Ticket(1), Duration::from_secs(100_000));
        engine.inbox().send(&mut vec![ProbeCmd::Once { ticket, target: Arc::new(target(&mute())), timeout }]);
        let Ok(ProbeEvent::OnceDone { outcome, .. }) = answered.recv_timeout(WATCHDOG) else {
            panic!("no answer")
        };
        assert_eq!(outcome.verdict, Verdict::Inconclusive);
        assert!(outcome.detail.unwrap().starts_with("not judged: "));
        engine.stop().unwrap();
    }
}
