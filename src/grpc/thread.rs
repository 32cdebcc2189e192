//! The thread of gRPC calls: due calls in, one task for each, outcomes to the engine that asked.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use probe_core::engine::Inbox;
use probe_core::model::limits::{GRPC_CALLS_MAX, SHARD_QUEUE_MAX};
use probe_core::model::probe::{CallId, ProbeCmd, Target};
use probe_core::model::time::Mono;
use tokio::sync::{Semaphore, mpsc, oneshot};
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
        let (orders, inbox) = mpsc::channel(SHARD_QUEUE_MAX);
        let (stop, stopped) = oneshot::channel();
        let tokio = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let body = move || tokio.block_on(serve(inbox, stopped));
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

/// Until it is stopped; what is in flight then ends with the thread's runtime.
async fn serve(mut orders: mpsc::Receiver<Order>, mut stopped: oneshot::Receiver<()>) {
    let places = Arc::new(Semaphore::new(GRPC_CALLS_MAX));
    let mut tasks = JoinSet::new();
    let mut running = Running::default();
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            order = orders.recv() => match order {
                None => return,
                Some(Order::Call(call)) => {
                    let id = call.id;
                    running.begin(id, tasks.spawn(make(call, Arc::clone(&places))));
                }
                Some(Order::Cut(id)) => running.cut(id),
            },
            Some(ended) = tasks.join_next_with_id() => {
                // One that was cut is forgotten already.
                if let Ok((task, id)) = ended {
                    running.ended(id, task);
                }
            }
        }
    }
}

/// Makes the call once there is a place for it, and tells the engine.
async fn make(call: Call, places: Arc<Semaphore>) -> CallId {
    // The semaphore is never closed.
    let place = places.acquire().await.ok();
    if let Target::Grpc(target) = &*call.target {
        let result = call::run(target, call.timeout, call.due).await;
        drop(place);
        let mut answer = vec![ProbeCmd::CallDone { call: call.id, result }];
        if let Some(inbox) = call.inbox.get() {
            inbox.send(&mut answer);
            while !answer.is_empty() {
                tokio::time::sleep(TELL_AGAIN).await;
                inbox.send(&mut answer);
            }
        }
    }
    call.id
}

/// The task of each call. An engine asks for a probe's next call once it has its outcome, which may be before the end of
/// the task is seen here.
#[derive(Default)]
struct Running {
    tasks: HashMap<CallId, AbortHandle>,
}

impl Running {
    fn begin(&mut self, id: CallId, task: AbortHandle) {
        self.tasks.insert(id, task);
    }

    fn cut(&mut self, id: CallId) {
        if let Some(task) = self.tasks.remove(&id) {
            task.abort();
        }
    }

    fn ended(&mut self, id: CallId, task: Id) {
        if self.tasks.get(&id).is_some_and(|running| running.id() == task) {
            self.tasks.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use probe_core::model::id::Ticket;
    use probe_core::model::probe::GrpcTarget;
    use probe_core::sys::clock;

    use super::*;

    /// Accepts, and says nothing.
    fn mute() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    fn call(number: u64, server: &TcpListener) -> Order {
        let target = GrpcTarget { addr: server.local_addr().unwrap(), service: "".into() };
        Order::Call(Call {
            id: id(number),
            target: Arc::new(Target::Grpc(target)),
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
        while stream.read(&mut [0; 256]).is_ok_and(|read| read > 0) {}
    }

    #[test]
    fn a_cut_and_the_end_of_the_thread_end_connections() {
        let (calls, server) = (Calls::start().unwrap(), mute());
        calls.door().give(call(1, &server));
        let (first, _) = server.accept().unwrap();
        calls.door().give(call(2, &server));
        let (second, _) = server.accept().unwrap();
        calls.door().give(Order::Cut(id(1)));
        read_to_its_end(first);
        drop(calls);
        read_to_its_end(second);
    }

    #[test]
    fn calls_beyond_the_limit_wait_for_a_place() {
        let (calls, server) = (Calls::start().unwrap(), mute());
        let numbers = 0..=GRPC_CALLS_MAX as u64;
        numbers.for_each(|number| calls.door().give(call(number, &server)));
        let mut accepted: Vec<_> = (0..GRPC_CALLS_MAX).map(|_| server.accept().unwrap()).collect();
        server.set_nonblocking(true).unwrap();
        assert!(server.accept().is_err(), "one more than may be in flight");
        server.set_nonblocking(false).unwrap();
        calls.door().give(Order::Cut(id(0)));
        accepted.push(server.accept().unwrap());
        // Cut while it waits, a call never begins.
        calls.door().give(call(1_000, &server));
        calls.door().give(Order::Cut(id(1_000)));
        drop(calls);
        accepted.into_iter().for_each(|(stream, _)| read_to_its_end(stream));
        server.set_nonblocking(true).unwrap();
        assert!(server.accept().is_err(), "a call that was cut has begun");
    }
}
