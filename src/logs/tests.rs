use std::cell::Cell;
use std::fs;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::*;
use crate::files;
use crate::store::StoreUpdate;
use crate::store::samples::{at, event};

struct Place {
    dir: TempDir,
    name: LogName,
}

impl Place {
    /// `parts`: the live file first, then `.log.1` and so on.
    fn with(parts: &[&str]) -> Place {
        let name = LogName { pod_dir: "default_a_1".into(), container: "main".into(), restart_count: 2 };
        let place = Place { dir: tempfile::tempdir().unwrap(), name };
        fs::create_dir_all(place.path(0).parent().unwrap()).unwrap();
        for (rotation, text) in (0..).zip(parts) {
            fs::write(place.path(rotation), text).unwrap();
        }
        place
    }

    fn path(&self, rotation: u32) -> PathBuf {
        self.name.path(&self.dir.path().join("pods"), rotation)
    }

    /// As the runtime rotates, with pieces of so many bytes.
    fn rotate(&self, piece: usize) {
        let text = fs::read(self.path(0)).unwrap();
        for bytes in text.chunks(piece) {
            for rotation in (1..LOG_FILES_MAX - 1).rev().filter(|rotation| self.path(*rotation).exists()) {
                fs::rename(self.path(rotation), self.path(rotation + 1)).unwrap();
            }
            fs::write(self.path(0).with_extension("new"), bytes).unwrap();
            fs::rename(self.path(0).with_extension("new"), self.path(1)).unwrap();
        }
        fs::OpenOptions::new().write(true).truncate(true).open(self.path(0)).unwrap();
    }

    fn append(&self, text: &str) {
        use std::io::Write;
        fs::OpenOptions::new().append(true).open(self.path(0)).unwrap().write_all(text.as_bytes()).unwrap();
    }
}

/// Runs `test` once with files through the ring and once through the thread pool.
fn both_ways<F: Future<Output = ()>>(place: impl Fn() -> Place, test: impl Fn(Place, LogDoor) -> F) {
    let run = |io| {
        let place = place();
        let (door, worker) = LogDoor::new(place.dir.path(), io);
        let tested = test(place, door);
        async move {
            let worker = tokio::task::spawn_local(worker.run());
            tested.await;
            worker.await.unwrap();
        }
    };
    files::block_on(run).unwrap();
    files::block_on_pool(run).unwrap();
}

async fn read(place: &Place, door: &LogDoor, start: Start, limit_bytes: Option<u64>) -> io::Result<String> {
    let (out, mut chunks) = mpsc::channel(1);
    door.read(LogJob { name: place.name.clone(), start, limit_bytes, follow: None, out }).await?;
    let mut text = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        text.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8(text).unwrap())
}

#[test]
fn parts_lines_and_limits() {
    let cases: [(Start, Option<u64>, &str); 9] = [
        (Start::Beginning, None, "1\n2\n3\n4\n5\n6"),
        (Start::Beginning, Some(3), "1\n2"),
        (Start::LastLines(0), None, ""),
        (Start::LastLines(1), None, "6"),
        (Start::LastLines(2), None, "5\n6"),
        (Start::LastLines(3), None, "4\n5\n6"),
        (Start::LastLines(5), None, "2\n3\n4\n5\n6"),
        (Start::LastLines(9), None, "1\n2\n3\n4\n5\n6"),
        (Start::LastLines(2), Some(2), "5\n"),
    ];
    both_ways(
        || Place::with(&["5\n6", "3\n4\n", "1\n2\n"]),
        |place, door| async move {
            for (start, limit, expected) in cases {
                assert_eq!(read(&place, &door, start, limit).await.unwrap(), expected, "{start:?} {limit:?}");
            }
        },
    );
    both_ways(
        || Place::with(&["a\nb\n"]),
        |place, door| async move {
            assert_eq!(read(&place, &door, Start::LastLines(1), None).await.unwrap(), "b\n");
            fs::remove_file(place.path(0)).unwrap();
            let error = read(&place, &door, Start::Beginning, None).await.unwrap_err();
            assert!(error.to_string().contains("2.log"), "{error}");
        },
    );
}

#[test]
fn a_long_log_is_read_whole_and_from_its_end() {
    let lines = || (0..60_000).map(|n| format!("{n}\n")).collect::<String>();
    both_ways(
        || Place::with(&[&lines()]),
        |place, door| async move {
            assert!(read(&place, &door, Start::Beginning, None).await.unwrap() == lines());
            let tail = read(&place, &door, Start::LastLines(50_000), None).await.unwrap();
            assert!(tail.starts_with("10000\n") && tail.ends_with("59999\n"), "{}", tail.len());
        },
    );
}

#[test]
fn a_follower_survives_rotation_and_ends_with_the_instance() {
    both_ways(
        || Place::with(&["one\n"]),
        |place, door| async move {
            let store = Store::new(1);
            let running = Arc::new(AtomicBool::new(true));
            let goes_on = Arc::clone(&running);
            let follow =
                Follow { store: store.clone(), goes_on: Box::new(move || goes_on.load(Ordering::SeqCst)) };
            let (out, mut chunks) = mpsc::channel(1);
            let name = place.name.clone();
            let job = LogJob { name, start: Start::Beginning, limit_bytes: None, follow: Some(follow), out };
            door.read(job).await.unwrap();
            let seen = Rc::new(Cell::new(0));
            let mut next = async |expected: &str| {
                let mut text = Vec::new();
                while text.len() < expected.len() {
                    text.extend_from_slice(&chunks.recv().await.expect("more of the log"));
                }
                assert_eq!(String::from_utf8(text).unwrap(), expected);
                seen.set(seen.get() + 1);
            };
            next("one\n").await;
            place.append("two\n");
            next("two\n").await;
            place.append("three\n");
            place.rotate(1_000);
            next("three\n").await;
            place.append("four\n");
            next("four\n").await;
            place.append("five, in pieces\n");
            place.rotate(9);
            next("five, in pieces\n").await;
            place.append("six\n");
            next("six\n").await;
            place.append("last words\n");
            running.store(false, Ordering::SeqCst);
            store.apply(StoreUpdate::Event(event(1, "a", "wakes the reader", at(1))));
            next("last words\n").await;
            assert_eq!(seen.get(), 7);
            assert!(chunks.recv().await.is_none(), "the log ends");
        },
    );
}
