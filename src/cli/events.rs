//! How `defib run` prints events as they happen: kubectl's columns, colour only on a terminal.

use std::io::{self, IsTerminal, Write};
use std::thread::{self, JoinHandle};

use crossbeam::channel::{self, Receiver, Sender, TrySendError};
use probe_core::model::event::{PodEvent, Severity};

/// Events that wait for a slow terminal or pipe. Beyond it they are dropped from the printout (never
/// from the store) and the loss is printed.
const PRINT_QUEUE_MAX: usize = 8_192;

/// Whether escape sequences are written.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Colour {
    Never,
    Ansi,
}

/// Hands events to the printing thread, so that a reader who stops reading stops nothing else.
pub struct Printer {
    events: Sender<PodEvent>,
    dropped: u64,
}

impl Printer {
    /// Starts the thread; it ends when the printer is dropped and everything taken is printed.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start() -> io::Result<(Printer, JoinHandle<()>)> {
        let (events, queue) = channel::bounded(PRINT_QUEUE_MAX);
        let wanted = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let colour = if wanted { Colour::Ansi } else { Colour::Never };
        let thread =
            thread::Builder::new().name("printer".into()).spawn(move || print_all(&queue, colour))?;
        Ok((Printer { events, dropped: 0 }, thread))
    }

    /// Prints the event soon, or counts it as lost when the reader is too slow.
    pub fn print(&mut self, event: PodEvent) {
        if let Err(TrySendError::Full(_)) = self.events.try_send(event) {
            self.dropped += 1;
            if self.dropped.is_power_of_two() {
                tracing::warn!(
                    dropped = self.dropped,
                    "standard output is read too slowly: events are missing from it, `defib get events` has them"
                );
            }
        }
    }
}

fn print_all(queue: &Receiver<PodEvent>, colour: Colour) {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut alive = writeln!(out, "{HEAD}").is_ok();
    let _ = out.flush();
    for event in queue {
        // A closed pipe ends the printing, not the agent.
        alive = alive && writeln!(out, "{}", line(&event, colour)).is_ok();
        if queue.is_empty() {
            alive = alive && out.flush().is_ok();
        }
    }
}

const HEAD: &str = "LAST SEEN   TYPE      REASON                OBJECT                     MESSAGE";

/// One event as one line; line breaks inside a message become `\n`.
fn line(event: &PodEvent, colour: Colour) -> String {
    let severity = event.reason.severity();
    let object = format!("pod/{}", event.pod_name);
    let message = event.message.trim_end().replace('\n', "\\n");
    let (on, off) = match (colour, severity) {
        (Colour::Ansi, Severity::Warning) => ("\x1b[33m", "\x1b[0m"),
        (Colour::Ansi, Severity::Normal) | (Colour::Never, _) => ("", ""),
    };
    let columns = format!(
        "{:<11} {:<9} {:<21} {:<26} {}",
        "0s",
        severity.as_str(),
        event.reason.as_str(),
        object,
        message
    );
    format!("{on}{}{off}", columns.trim_end())
}

#[cfg(test)]
mod tests {
    use probe_core::model::event::Reason;
    use probe_core::model::id::PodUid;
    use probe_core::model::time::Now;

    use super::*;

    #[test]
    fn columns_stand_under_their_heads() {
        let event = PodEvent {
            pod: PodUid(1),
            namespace: "default".into(),
            pod_name: "wedge".into(),
            container: None,
            reason: Reason::Unhealthy,
            message: "Liveness probe failed: a\nb".into(),
            at: Now::default(),
        };
        let text = line(&event, Colour::Never);
        assert_eq!(text.find("Warning"), HEAD.find("TYPE"));
        assert_eq!(text.find("Unhealthy"), HEAD.find("REASON"));
        assert_eq!(text.find("pod/wedge"), HEAD.find("OBJECT"));
        assert_eq!(text.find("Liveness"), HEAD.find("MESSAGE"));
        assert!(text.ends_with("a\\nb"));
        assert_eq!(line(&event, Colour::Ansi), format!("\x1b[33m{text}\x1b[0m"));
    }
}
