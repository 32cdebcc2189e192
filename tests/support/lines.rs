//! The lines of a stream, collected by a thread, to wait for and to count.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Most lines that are kept of one stream; a stream that says more is a failure of its own.
const LINES_MAX: usize = 200_000;

/// Shared by the reading thread and the test; ends with its stream.
#[derive(Clone)]
pub struct Lines {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    /// Starts to read `stream` on a thread of its own.
    pub fn collect(stream: impl Read + Send + 'static) -> Lines {
        let lines = Lines { shared: Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() }) };
        let writer = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let mut state = writer.lock();
                assert!(state.lines.len() < LINES_MAX, "more than {LINES_MAX} lines");
                state.lines.push(line);
                writer.shared.changed.notify_all();
            }
            writer.lock().ended = true;
            writer.shared.changed.notify_all();
        });
        lines
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// How many lines so far contain `text`.
    pub fn count(&self, text: &str) -> usize {
        self.lock().lines.iter().filter(|line| line.contains(text)).count()
    }

    /// Whether the stream has ended: its process has, as a rule, too.
    pub fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// Waits for a line at or after index `from` that `wanted` accepts: its index and text. `None` when the
    /// stream ends before, or when `max` is over.
    pub fn wait(&self, from: usize, max: Duration, wanted: impl Fn(&str) -> bool) -> Option<(usize, String)> {
        let find = |state: &State| state.lines.iter().skip(from).position(|line| wanted(line));
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(self.lock(), max, |state| find(state).is_none() && !state.ended)
            .expect("the reading thread does not panic");
        let index = from + find(&state)?;
        Some((index, state.lines[index].clone()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("the reading thread does not panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SOON;

    #[test]
    fn waiting_ends_with_the_line_or_with_the_stream() {
        let lines = Lines::collect(&b"one\ntwo\nthree two\n"[..]);
        let wait = |from, text: &str| lines.wait(from, SOON, |line| line.contains(text));
        assert_eq!(wait(0, "two"), Some((1, "two".to_owned())));
        assert_eq!(wait(2, "two"), Some((2, "three two".to_owned())));
        assert_eq!(wait(0, "four"), None);
        assert_eq!(lines.count("two"), 2);
        assert_eq!(lines.all().len(), 3);
        assert!(lines.has_ended());
    }

    #[test]
    fn a_watchdog_ends_the_wait() {
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        let lines = Lines::collect(reader);
        assert_eq!(lines.wait(0, Duration::from_millis(20), |_| true), None);
    }
}
