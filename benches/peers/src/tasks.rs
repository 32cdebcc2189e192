//! One task and one ticker per target on a single thread: how the contestants on tokio are scheduled.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use probe_core::sys::clock;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, timeout};

use crate::{Control, Load, Phase, Report, Response, Tally};

const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What one probe came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Success,
    /// Status 503, or a refused connection.
    Scripted,
    Failure(String),
}

/// A verdict, and the response time where the contestant itself tells one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub verdict: Verdict,
    pub took: Option<Duration>,
}

impl From<Verdict> for Answer {
    fn from(verdict: Verdict) -> Answer {
        Answer { verdict, took: None }
    }
}

impl Verdict {
    /// Of an HTTP status.
    pub fn of_status(status: u16) -> Verdict {
        match status {
            200..400 => Verdict::Success,
            503 => Verdict::Scripted,
            other => Verdict::Failure(format!("status {other}")),
        }
    }

    /// Of a connection that could not be made.
    pub fn of_connect(error: &std::io::Error) -> Verdict {
        match error.kind() {
            std::io::ErrorKind::ConnectionRefused => Verdict::Scripted,
            _ => Verdict::Failure(format!("connect: {error}")),
        }
    }
}

/// Probes every target at its pace, spread evenly over the period, until the run is over. To be called on a
/// runtime that takes local tasks.
///
/// # Errors
/// Standard output is closed.
pub async fn run_all<F>(load: Load, probe: impl Fn(u32) -> F + Clone + 'static) -> Result<Report>
where
    F: Future<Output = Answer> + 'static,
{
    let tally = Rc::new(RefCell::new(Tally::new()?));
    let control = Control::ready()?;
    let start = Instant::now() + LOOK_EVERY;
    for target in 0..load.targets {
        let first = start + load.period() * target / load.targets;
        let (tally, control, probe) = (Rc::clone(&tally), control.clone(), probe.clone());
        tokio::task::spawn_local(async move { worker(load, target, first, &tally, &control, probe).await });
    }
    let mut looks = interval(LOOK_EVERY);
    while control.phase() < Phase::Over {
        looks.tick().await;
    }
    let report = tally.borrow_mut().report();
    Ok(report)
}

async fn worker<F>(
    load: Load,
    target: u32,
    first: Instant,
    tally: &RefCell<Tally>,
    control: &Control,
    probe: impl Fn(u32) -> F,
) where
    F: Future<Output = Answer>,
{
    let mut ticker = interval_at(first, load.period());
    ticker.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let due = ticker.tick().await;
        let began = Instant::now();
        let is_measured = control.is_measuring();
        let began_wall = clock::wall();
        if is_measured {
            tally.borrow_mut().late(began - due);
        }
        let answer = timeout(load.timeout(), probe(target)).await;
        let took = began.elapsed();
        if !is_measured {
            continue;
        }
        let mut tally = tally.borrow_mut();
        match answer {
            Err(_) => tally.failed_itself(target, || "timeout".to_owned()),
            Ok(Answer { verdict: Verdict::Failure(why), .. }) => tally.failed_itself(target, || why),
            Ok(Answer { verdict: Verdict::Scripted, .. }) => tally.failed_by_script(target),
            Ok(Answer { verdict: Verdict::Success, took: told }) if load.is_watched(target) => {
                let ns = |length: Duration| u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
                tally.responded(Response {
                    target,
                    began_ns: began_wall.as_ns(),
                    took_ns: ns(told.unwrap_or(took)),
                    late_ns: ns(began - due),
                });
            }
            Ok(Answer { verdict: Verdict::Success, .. }) => {}
        }
    }
}
