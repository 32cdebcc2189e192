//! A container's last words (kubelet-semantics 15).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use probe_core::model::limits::{
    FALLBACK_LOG_MAX_BYTES, FALLBACK_LOG_MAX_LINES, TERMINATION_MESSAGE_MAX_BYTES,
};
use probe_core::model::pod::TerminationMessagePolicy;
use probe_core::model::runtime::ExitStatus;

use super::instance::Instance;
use super::logs::rotated;

/// The end of the termination file; or, with `FallbackToLogsOnError`, a failed exit and an empty file, the end
/// of the log. None when there is nothing to say.
pub fn message(instance: &Instance) -> Option<String> {
    let files = &instance.files;
    let written = tail(&files.termination, TERMINATION_MESSAGE_MAX_BYTES).unwrap_or_default();
    if !written.is_empty() {
        return Some(String::from_utf8_lossy(&written).into_owned());
    }
    let failed = instance.exit.get().and_then(|exit| exit.get()) != Some(&ExitStatus::Code(0));
    match instance.spec().termination_message_policy {
        TerminationMessagePolicy::FallbackToLogsOnError if failed => {
            Some(log_tail(&files.log)).filter(|text| !text.is_empty())
        }
        TerminationMessagePolicy::FallbackToLogsOnError | TerminationMessagePolicy::File => None,
    }
}

/// The last lines of the log, also when it was rotated a moment ago.
fn log_tail(log: &Path) -> String {
    let mut bytes = tail(log, FALLBACK_LOG_MAX_BYTES).unwrap_or_default();
    if bytes.len() < FALLBACK_LOG_MAX_BYTES {
        let missing = FALLBACK_LOG_MAX_BYTES - bytes.len();
        let before = tail(&rotated(log, 1), missing).unwrap_or_default();
        bytes = [before, bytes].concat();
    }
    String::from_utf8_lossy(last_lines(&bytes, FALLBACK_LOG_MAX_LINES)).into_owned()
}

/// At most so many bytes from the end of a file.
fn tail(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max as u64)))?;
    let mut bytes = Vec::with_capacity(bytes_max.min(length as usize));
    file.take(bytes_max as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A newline at the very end ends the last line and begins none.
fn last_lines(bytes: &[u8], lines_max: usize) -> &[u8] {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let newlines = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    match newlines.map(|(at, _)| at).nth(lines_max - 1) {
        Some(at) => &bytes[at + 1..],
        None => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_from_the_end() {
        let cases = [
            ("", 2, ""),
            ("a", 2, "a"),
            ("a\nb\n", 2, "a\nb\n"),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\n\n\n", 2, "\n\n"),
        ];
        for (text, lines, expected) in cases {
            assert_eq!(last_lines(text.as_bytes(), lines), expected.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn the_log_is_read_across_a_rotation() {
        let home = tempfile::tempdir().unwrap();
        let log = home.path().join("0.log");
        std::fs::write(&log, "last\n").unwrap();
        std::fs::write(home.path().join("0.log.1"), "first\nsecond\n").unwrap();
        assert_eq!(log_tail(&log), "first\nsecond\nlast\n");
        std::fs::write(&log, "x".repeat(5_000)).unwrap();
        assert_eq!(log_tail(&log).len(), FALLBACK_LOG_MAX_BYTES);
    }
}
