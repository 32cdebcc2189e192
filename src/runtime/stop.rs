//! `Stop`: the stop signal to the main process, the grace period, then the kill of everything.

use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use probe_core::model::limits::KILL_AGAIN;
use probe_core::sys::{clock, pidfd};

use super::cleanup::kill_once;
use super::instance::{Instance, Phase};
use super::process::Shared;

/// The first request starts a task; a later one can only make it kill sooner.
pub fn request(shared: &Rc<Shared>, instance: &Rc<Instance>, grace: Duration) {
    let is_first = instance.kill_at.borrow().is_none();
    instance.kill_by(clock::mono().after(grace));
    if is_first {
        tokio::task::spawn_local(run(Rc::clone(shared), Rc::clone(instance)));
    }
}

async fn run(shared: Rc<Shared>, instance: Rc<Instance>) {
    tokio::select! {
        () = async {
            if instance.started().await == Phase::Running {
                instance.note_strays();
                signal(&instance);
                instance.ending().await;
            }
        } => return,
        () = grace_over(&instance) => {}
    }
    // Again while it is only being made, and when the kill failed (no descriptor was left for it).
    loop {
        let phase = *instance.phase.borrow();
        let is_killed = match phase {
            Phase::Ending | Phase::NeverRan => return,
            Phase::Starting | Phase::Running => kill_once(&shared, &instance),
        };
        if is_killed && phase == Phase::Running {
            return;
        }
        tokio::select! {
            () = instance.ending() => {}
            () = tokio::time::sleep(KILL_AGAIN) => {}
        }
    }
}

fn signal(instance: &Instance) {
    let Some(main) = instance.main.get() else { return };
    let number = instance.spec().stop_signal;
    if let Err(error) = pidfd::signal(main.pidfd.as_fd(), number) {
        tracing::error!(instance = ?instance.id, pid = main.pid, signal = number, %error, "cannot signal");
    }
}

/// Resolves when the moment of killing has come, which may be moved while we wait.
async fn grace_over(instance: &Instance) {
    let mut moved = instance.kill_at.subscribe();
    loop {
        let Some(kill_at) = *moved.borrow_and_update() else { return };
        let left = kill_at.since(clock::mono());
        if left.is_zero() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            _ = moved.changed() => {}
        }
    }
}
