//! Waits for a call, and knows whether this thread was there meanwhile. An answer that has come is never a timeout.

use std::pin::pin;
use std::time::Duration;

use probe_core::model::limits::{GRPC_LAST_PASSES, UNWATCHED_MIN, UNWATCHED_PARTS};
use probe_core::sys::clock;
use tokio::time::sleep;

/// How the wait ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waited<T> {
    /// None: the deadline came.
    pub done: Option<T>,
    /// The longest time at a stretch in which this thread did not run; zero if it is too short to excuse the target.
    pub away: Duration,
}

/// Runs `work` until it is done or `timeout` is over. While it waits it looks at the clock twice in each part of the
/// timeout that would excuse the target.
pub async fn wait<T>(work: impl Future<Output = T>, timeout: Duration) -> Waited<T> {
    let mut work = pin!(work);
    let mut now = clock::now().mono;
    let deadline = now.after(timeout);
    let look_every = (timeout / (2 * UNWATCHED_PARTS)).max(Duration::from_millis(1));
    let mut away = Duration::ZERO;
    let mut done = None;
    while done.is_none() && now < deadline {
        let look = now.after(look_every).min(deadline);
        tokio::select! {
            biased;
            end = &mut work => done = Some(end),
            () = sleep(look.since(now)) => {}
        }
        now = clock::now().mono;
        away = away.max(now.since(look));
    }
    // The kernel may have the answer, and tasks between it and the call have not run yet.
    for _ in 0..GRPC_LAST_PASSES {
        if done.is_some() {
            break;
        }
        tokio::select! {
            biased;
            end = &mut work => done = Some(end),
            () = tokio::task::yield_now() => {}
        }
    }
    let excuses = away >= UNWATCHED_MIN && away * UNWATCHED_PARTS >= timeout;
    Waited { done, away: if excuses { away } else { Duration::ZERO } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let mut tokio = tokio::runtime::Builder::new_current_thread();
        tokio.enable_time().build().unwrap().block_on(work)
    }

    /// Keeps its thread from everything else.
    fn be_busy(time: Duration) {
        let from = clock::now().mono;
        while clock::now().mono.since(from) < time {}
    }

    #[test]
    fn what_is_done_is_done() {
        block_on(async {
            let done = Waited { done: Some(1), away: Duration::ZERO };
            assert_eq!(wait(async { 1 }, Duration::ZERO).await, done);
            assert_eq!(wait(async { 1 }, Duration::from_secs(9)).await, done);
            let silent = wait(std::future::pending::<()>(), Duration::ZERO).await;
            assert_eq!(silent, Waited { done: None, away: Duration::ZERO });
        });
    }

    #[test]
    fn a_thread_that_was_away_excuses_the_target() {
        let blocking = async {
            tokio::task::yield_now().await;
            be_busy(Duration::from_millis(60));
            std::future::pending::<()>().await;
        };
        let waited = block_on(wait(blocking, Duration::from_millis(100)));
        assert!(waited.done.is_none() && waited.away >= Duration::from_millis(40), "{waited:?}");
    }

    #[test]
    fn an_answer_that_is_there_when_the_thread_comes_back_counts() {
        let (answer, answered) = tokio::sync::oneshot::channel();
        block_on(async {
            tokio::spawn(async {
                be_busy(Duration::from_millis(30));
                answer.send(7).unwrap();
            });
            assert_eq!(wait(answered, Duration::from_millis(10)).await.done, Some(Ok(7)));
        });
    }
}
