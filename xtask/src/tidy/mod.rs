//! `cargo xtask tidy`: house rules that neither the compiler nor clippy checks.
//!
//! Each rule is a function from a file to findings, so that its tests are plain tables. What a rule wants,
//! and the cure, stand in the text of its finding.

mod arrows;
mod conformance;
mod docs;
mod rust;
mod scope;
mod sizes;
mod source;
mod text;

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context, Result, bail};

use crate::repo::Repo;
use source::Source;

/// One broken rule, at one place.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    pub path: String,
    /// Counted from 1; 0 means the file as a whole.
    pub line: usize,
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// Checks the whole repository and prints every finding; one is enough to fail.
pub fn run(repo: &Repo) -> Result<()> {
    let files = repo.files()?;
    let mut findings = Vec::new();
    let mut sources = Vec::new();
    let mut cases = String::new();
    for path in &files {
        let bytes = std::fs::read(repo.path(path)).with_context(|| format!("cannot read {path}"))?;
        findings.extend(text::large_binary(path, &bytes));
        let Ok(content) = String::from_utf8(bytes) else { continue };
        findings.extend(text::machine_paths(path, &content));
        if docs::is_checked(path) {
            findings.extend(docs::named_paths(path, &content, &files));
        }
        if path == conformance::PATH {
            cases.clone_from(&content);
        }
        if path.ends_with(".rs") {
            sources.push(Source::parse(path, content).with_context(|| format!("cannot parse {path}"))?);
        }
    }
    let test_files: BTreeSet<String> = sources.iter().flat_map(Source::test_modules).collect();
    for source in &mut sources {
        source.note_test_files(&test_files);
    }
    for source in &sources {
        findings.extend(rust::check(source));
        findings.extend(arrows::check(source));
        findings.extend(sizes::check(source));
    }
    findings.extend(conformance::check(&cases, &sources));
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} findings", findings.len());
    }
    println!("tidy: {} files, {} of them Rust, nothing to say", files.len(), sources.len());
    Ok(())
}
