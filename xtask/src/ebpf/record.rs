//! What the committed object was built from and with: `probe-ebpf/prebuilt/build.toml`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Identity;
use crate::repo::Repo;

pub const OBJECT: &str = "probe-ebpf/prebuilt/defib.bpf.o";
pub const RECORD: &str = "probe-ebpf/prebuilt/build.toml";
/// Files and folders that the object is built from. The build fails when the compiler reads another one.
const INPUTS: &[&str] = &["probe-ebpf/kernel/", "probe-ebpf/src/abi.rs"];
const HEADER: &str = "# Made by `cargo xtask build-ebpf`, checked by `cargo xtask verify-ebpf`.\n";
const CURE: &str = "run cargo xtask build-ebpf and commit probe-ebpf/prebuilt";

#[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub object: ObjectFile,
    pub toolchain: Identity,
    pub inputs: Inputs,
}

#[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct ObjectFile {
    pub sha256: String,
    pub size: usize,
}

/// The sources and their hashes.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// Of the lines that sha256sum(1) prints for the files, in the order of their names.
    pub sha256: String,
    /// Path from the root of the repository → SHA-256.
    pub files: BTreeMap<String, String>,
}

impl Inputs {
    pub fn of(repo: &Repo) -> Result<Inputs> {
        let mut files = BTreeMap::new();
        for path in repo.files()?.into_iter().filter(|path| is_input(path)) {
            let bytes = fs::read(repo.path(&path)).with_context(|| format!("cannot read {path}"))?;
            files.insert(path, sha256(&bytes));
        }
        ensure!(!files.is_empty(), "no source of the eBPF object is in this checkout: {}", INPUTS.join(", "));
        Ok(Inputs::new(files))
    }

    fn new(files: BTreeMap<String, String>) -> Inputs {
        let mut listing = String::new();
        for (path, hash) in &files {
            listing.push_str(&format!("{hash}  {path}\n"));
        }
        Inputs { sha256: sha256(listing.as_bytes()), files }
    }

    /// Which files are others than in `now`, and how.
    fn differences(&self, now: &Inputs) -> Vec<String> {
        let mut found = Vec::new();
        for (path, hash) in &self.files {
            match now.files.get(path) {
                None => found.push(format!("{path}: gone")),
                Some(present) if present != hash => found.push(format!("{path}: changed")),
                Some(_) => {}
            }
        }
        let new = now.files.keys().filter(|path| !self.files.contains_key(*path));
        found.extend(new.map(|path| format!("{path}: new")));
        found
    }
}

/// Whether a file of the repository belongs to the source of the object.
pub fn is_input(path: &str) -> bool {
    INPUTS.iter().any(|input| if input.ends_with('/') { path.starts_with(input) } else { path == *input })
}

impl Record {
    pub fn new(inputs: Inputs, toolchain: Identity, object: &[u8]) -> Record {
        let object = ObjectFile { sha256: sha256(object), size: object.len() };
        Record { object, toolchain, inputs }
    }

    pub fn read(repo: &Repo) -> Result<Record> {
        let text =
            fs::read_to_string(repo.path(RECORD)).with_context(|| format!("cannot read {RECORD}: {CURE}"))?;
        toml::from_str(&text).with_context(|| format!("{RECORD} is no record of a build: {CURE}"))
    }

    /// Writes the object and this record of it.
    pub fn write(&self, repo: &Repo, object: &[u8]) -> Result<()> {
        let text = toml::to_string(self).with_context(|| format!("cannot word {RECORD}"))?;
        let files: [(&str, &[u8]); 2] =
            [(OBJECT, object), (RECORD, &[HEADER.as_bytes(), text.as_bytes()].concat())];
        for (name, bytes) in files {
            let path = repo.path(name);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            }
            fs::write(&path, bytes).with_context(|| format!("cannot write {name}"))?;
        }
        Ok(())
    }

    /// The sources are those that the object was built from.
    pub fn check_inputs(&self, now: &Inputs) -> Result<()> {
        let differences = self.inputs.differences(now);
        if !differences.is_empty() || self.inputs.sha256 != now.sha256 {
            bail!("{OBJECT} was built from another source: {CURE}\n  {}", differences.join("\n  "));
        }
        Ok(())
    }

    /// The committed object, after a look whether it is the recorded one.
    pub fn read_object(&self, repo: &Repo) -> Result<Vec<u8>> {
        let object = fs::read(repo.path(OBJECT)).with_context(|| format!("cannot read {OBJECT}: {CURE}"))?;
        let hash = sha256(&object);
        ensure!(
            hash == self.object.sha256 && object.len() == self.object.size,
            "{OBJECT} is not the one that {RECORD} tells of ({} bytes, sha256 {hash}): {CURE}",
            object.len()
        );
        Ok(object)
    }
}

fn sha256(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing into a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(files: &[(&str, &str)]) -> Inputs {
        Inputs::new(files.iter().map(|(path, text)| ((*path).to_owned(), sha256(text.as_bytes()))).collect())
    }

    #[test]
    fn the_listing_is_that_of_sha256sum() {
        let found = inputs(&[("b", ""), ("a", "abc")]);
        // printf abc >a; : >b; sha256sum a b | sha256sum
        assert_eq!(found.files["a"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(found.files["b"], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(found.sha256, "09c7e0b8a02d027d95ec0375a600ed4ad4d6b26a1c93f16d9150cab5fec761a6");
    }

    #[test]
    fn other_sources_are_named() {
        let old = inputs(&[("a", "1"), ("b", "1"), ("c", "1")]);
        assert!(old.differences(&old.clone()).is_empty());
        let new = inputs(&[("a", "1"), ("b", "2"), ("d", "1")]);
        assert_eq!(old.differences(&new), ["b: changed", "c: gone", "d: new"]);
    }

    #[test]
    fn only_the_source_of_the_object_counts() {
        let check = |path: &str, expected: bool| assert_eq!(is_input(path), expected, "{path}");
        check("probe-ebpf/kernel/Cargo.lock", true);
        check("probe-ebpf/kernel/src/main.rs", true);
        check("probe-ebpf/src/abi.rs", true);
        check("probe-ebpf/src/abi.rs.orig", false);
        check("probe-ebpf/src/lib.rs", false);
        check("probe-ebpf/prebuilt/build.toml", false);
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        let record = Record::new(inputs(&[("a b/c.rs", "1")]), Identity::for_test("1.97.0"), b"object");
        let text = toml::to_string(&record).unwrap();
        let read: Record = toml::from_str(&format!("{HEADER}{text}")).unwrap();
        assert_eq!(read, record);
        assert!(read.check_inputs(&inputs(&[("a b/c.rs", "1")])).is_ok());
        let error = read.check_inputs(&inputs(&[("a b/c.rs", "2")])).unwrap_err().to_string();
        assert!(error.contains("a b/c.rs: changed") && error.contains("cargo xtask build-ebpf"), "{error}");
    }
}
