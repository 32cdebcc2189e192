//! Signals to the agent.

use anyhow::Context;
use probe_core::sys::host;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Ctrl-C: to stop, and each time more firmly.
    Interrupt,
    /// To stop. Some tools send it twice, to the process and to its group, and mean it once.
    Terminate,
}

/// SIGINT, SIGTERM, and SIGHUP: the terminal was closed. All of them stop the pods.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// None where it is ignored since the start: nohup(1) asks for that.
    hangup: Option<Signal>,
}

impl Signals {
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Signals cannot be heard.
    pub fn listen() -> anyhow::Result<Signals> {
        let hangup = match host::ignores_hangup() {
            true => None,
            false => Some(signal(SignalKind::hangup()).context("listen for SIGHUP")?),
        };
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt()).context("listen for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("listen for SIGTERM")?,
            hangup,
        })
    }

    /// The next one. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Asked {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
            _ = hangup => Asked::Terminate,
        }
    }
}
