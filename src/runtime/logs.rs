//! Rotation of container logs: copy, then truncate (design 9.6). The container holds the live file open for
//! appending, so it cannot be renamed away. What is written between the end of the copy and the truncation is
//! lost; the copy is brought up to date until that window is one read and one truncation.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use probe_core::model::limits::{LOG_FILE_MAX_BYTES, LOG_FILES_MAX, LOG_ROUND, LOG_ROUND_PARTS};
use tokio::time::MissedTickBehavior;

use super::instance::Instance;
use super::process::Shared;

/// Times that new bytes are copied after before the file is cut, so that a fast writer cannot hold it up.
const CATCH_UPS_MAX: u32 = 3;

/// What the rounds remember of a log.
#[derive(Debug, Default)]
pub struct LogState {
    size_before: u64,
}

/// Looks at every log once in [`LOG_ROUND`], a part of them at a time; one that grows fast is looked at in each
/// part of the round.
pub async fn rounds(shared: Rc<Shared>) {
    let mut tick = tokio::time::interval(LOG_ROUND / LOG_ROUND_PARTS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut part = 0;
    loop {
        tick.tick().await;
        part = (part + 1) % LOG_ROUND_PARTS;
        let instances: Vec<Rc<Instance>> = shared.instances.borrow().values().cloned().collect();
        for instance in instances {
            // One whose log is being copied now is in good hands.
            let Ok(mut state) = instance.log.try_lock() else { continue };
            let is_due = part_of(&instance) == part || state.size_before > LOG_FILE_MAX_BYTES / 2;
            if is_due {
                state.size_before = size(&instance.files.log);
                if state.size_before > LOG_FILE_MAX_BYTES {
                    drop(state);
                    tokio::task::spawn_local(rotate_now(instance));
                }
            }
        }
    }
}

/// The last rotation of an instance that has ended.
pub async fn finish(instance: &Rc<Instance>) {
    if size(&instance.files.log) > LOG_FILE_MAX_BYTES {
        rotate_now(Rc::clone(instance)).await;
    } else {
        // A copy may still be under way.
        let _done = instance.log.lock().await;
    }
}

/// `<n>.log.<number>`; 1 is the youngest.
pub fn rotated(log: &Path, number: u32) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

async fn rotate_now(instance: Rc<Instance>) {
    let mut state = instance.log.lock().await;
    let log = instance.files.log.clone();
    let rotation = tokio::task::spawn_blocking(move || rotate(&log, LOG_FILE_MAX_BYTES)).await;
    let result = rotation.unwrap_or_else(|panic| Err(io::Error::other(panic)));
    if let Err(error) = result {
        tracing::warn!(log = %instance.files.log.display(), %error, "cannot rotate a log");
    }
    state.size_before = size(&instance.files.log);
}

/// Spreads instances over the parts of a round.
fn part_of(instance: &Instance) -> u32 {
    let mixed = instance.id.pod.0 ^ u128::from(instance.id.container.0);
    (mixed % u128::from(LOG_ROUND_PARTS)) as u32
}

fn size(log: &Path) -> u64 {
    fs::metadata(log).map(|found| found.len()).unwrap_or(0)
}

/// Moves what is in the log to `.1`, older ones up, the oldest out. A log that has outgrown several files is cut
/// into pieces of `bytes_max`, of which the youngest are kept.
fn rotate(log: &Path, bytes_max: u64) -> io::Result<()> {
    let mut live = OpenOptions::new().read(true).write(true).open(log)?;
    let kept_max = u64::from(LOG_FILES_MAX - 1) * bytes_max;
    let mut from = live.metadata()?.len().saturating_sub(kept_max);
    let mut catch_ups = 0;
    loop {
        let end = live.metadata()?.len();
        while from < end {
            let piece = (end - from).min(bytes_max);
            shift(log)?;
            copy(&mut live, from, piece, &rotated(log, 1))?;
            from += piece;
        }
        catch_ups += 1;
        let grown = live.metadata()?.len() - from;
        if grown == 0 || catch_ups == CATCH_UPS_MAX {
            break;
        }
        append(&mut live, from, grown, &rotated(log, 1))?;
        from += grown;
    }
    live.set_len(0)
}

fn shift(log: &Path) -> io::Result<()> {
    for number in (1..LOG_FILES_MAX - 1).rev() {
        match fs::rename(rotated(log, number), rotated(log, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Under another name until it is whole.
fn copy(live: &mut File, from: u64, length: u64, to: &Path) -> io::Result<()> {
    let mut new = to.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, "")?;
    append(live, from, length, Path::new(&new))?;
    fs::rename(&new, to)
}

fn append(live: &mut File, from: u64, length: u64, to: &Path) -> io::Result<()> {
    live.seek(SeekFrom::Start(from))?;
    io::copy(&mut live.take(length), &mut OpenOptions::new().append(true).open(to)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const BYTES_MAX: u64 = 1_000;

    /// Sizes of the live file and the rotated ones.
    fn sizes(log: &Path) -> Vec<u64> {
        let all = (1..=LOG_FILES_MAX + 1).map(|number| rotated(log, number));
        std::iter::once(log.to_owned())
            .chain(all)
            .map_while(|path| fs::metadata(path).ok())
            .map(|found| found.len())
            .collect()
    }

    fn check(written: &[usize], expected: &[u64]) {
        let home = tempfile::tempdir().unwrap();
        let log = home.path().join("0.log");
        let mut writer = OpenOptions::new().append(true).create(true).open(&log).unwrap();
        for &bytes in written {
            writer.write_all(&vec![b'x'; bytes]).unwrap();
            rotate(&log, BYTES_MAX).unwrap();
        }
        assert_eq!(sizes(&log), expected, "{written:?}");
        writer.write_all(b"after").unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "after", "the writer goes on at the start");
    }

    #[test]
    fn files_are_few_and_small() {
        check(&[1_200], &[0, 200, 1_000]);
        check(&[900], &[0, 900]);
        check(&[900, 800, 700, 600, 500, 400], &[0, 400, 500, 600, 700]);
        check(&[12_345], &[0, 1_000, 1_000, 1_000, 1_000]);
        check(&[0], &[0]);
    }

    #[test]
    fn pieces_are_in_order() {
        let home = tempfile::tempdir().unwrap();
        let log = home.path().join("0.log");
        let text: String = (0..500).map(|number| format!("line {number}\n")).collect();
        fs::write(&log, &text).unwrap();
        rotate(&log, 2_000).unwrap();
        let pieces: String = (1..LOG_FILES_MAX)
            .rev()
            .map(|n| fs::read_to_string(rotated(&log, n)).unwrap_or_default())
            .collect();
        assert_eq!(pieces, text);
    }
}
