//! What the fuzzers have found worth keeping, replayed: `fuzz/corpus/<target>`, one input a file.

use std::fs;
use std::path::Path;

mod http_answer;
mod manifest;
mod recipe;

/// Inputs that a corpus has at least: a folder that is empty or elsewhere would test nothing.
const INPUTS_MIN: usize = 10;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut count = 0;
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("an entry of the folder").path();
        // The name of the input goes before what the panic of its check says.
        println!("{}", path.display());
        check(&fs::read(&path).expect("a file that can be read"));
        count += 1;
    }
    assert!(count >= INPUTS_MIN, "{count} inputs in {}", folder.display());
}

#[test]
fn answers() {
    replay("http_answer", http_answer::check);
}

#[test]
fn manifests() {
    replay("manifest", manifest::check);
}
