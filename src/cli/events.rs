//! How `defib run` prints events as they happen: kubectl's columns, but with the moment in place of an age, which would
//! always be none; colour only on a terminal.

use std::io::{self, IsTerminal, Write};
use std::thread::{self, JoinHandle};

use crossbeam::channel::{self, Receiver, Sender, TrySendError};
use jiff::Timestamp;
use probe_core::model::event::{PodEvent, Severity};
use probe_core::model::text::visible_line;

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
    let mut alive = true;
    for (at, event) in queue.iter().enumerate() {
        // With the first event: a start that is refused prints nothing here.
        if at == 0 {
            alive = writeln!(out, "{}", head()).is_ok();
        }
        // A closed pipe ends the printing, not the agent.
        alive = alive && writeln!(out, "{}", line(&event, colour)).is_ok();
        if queue.is_empty() {
            alive = alive && out.flush().is_ok();
        }
    }
}

fn head() -> String {
    columns("TIME", "TYPE", "REASON", "OBJECT", "MESSAGE")
}

fn columns(time: &str, kind: &str, reason: &str, object: &str, message: &str) -> String {
    format!("{time:<22} {kind:<9} {reason:<21} {object:<26} {message}")
}

/// One event as one line, its moment in UTC; line breaks inside a message become `\n`, and nothing in it reaches the
/// terminal as a command.
fn line(event: &PodEvent, colour: Colour) -> String {
    let severity = event.reason.severity();
    let object = format!("pod/{}", event.pod_name);
    let message = visible_line(event.message.trim_end());
    let time = Timestamp::from_nanosecond(i128::from(event.at.wall.as_ns())).unwrap_or_default();
    let time = time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let (on, off) = match (colour, severity) {
        (Colour::Ansi, Severity::Warning) => ("\x1b[33m", "\x1b[0m"),
        (Colour::Ansi, Severity::Normal) | (Colour::Never, _) => ("", ""),
    };
    let columns = columns(&time, severity.as_str(), event.reason.as_str(), &object, &message);
    format!("{on}{}{off}", columns.trim_end())
}

#[cfg(test)]
mod tests {
    use probe_core::model::event::Reason;
    use probe_core::model::id::PodUid;
    use probe_core::model::time::{Mono, Now, Wall};

    use super::*;

    #[test]
    fn columns_stand_under_their_heads() {
        let event = PodEvent {
            pod: PodUid(1),
            namespace: "default".into(),
            pod_name: "wedge".into(),
            container: None,
            reason: Reason::Unhealthy,
            message: "Liveness probe failed: a\nb\x1b[2J".into(),
            at: Now { mono: Mono::ZERO, wall: Wall::from_ns(1_767_225_605_999_999_999) },
        };
        let (head, text) = (head(), line(&event, Colour::Never));
        assert!(head.starts_with("TIME ") && text.starts_with("2026-01-01T00:00:05Z "), "{text}");
        assert_eq!(text.find("Warning"), head.find("TYPE"));
        assert_eq!(text.find("Unhealthy"), head.find("REASON"));
        assert_eq!(text.find("pod/wedge"), head.find("OBJECT"));
        assert_eq!(text.find("Liveness"), head.find("MESSAGE"));
        assert!(text.ends_with("a\\nb^[[2J"), "{text}");
        assert_eq!(line(&event, Colour::Ansi), format!("\x1b[33m{text}\x1b[0m"));
    }
}
