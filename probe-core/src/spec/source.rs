//! Files, folders and standard input, read with a bound.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::{Place, Problem};
use crate::model::limits::MANIFEST_MAX_BYTES;

/// The text of one file.
pub struct Source {
    pub file: String,
    pub text: String,
    /// What relative paths in it count from: its folder, absolute.
    pub folder: PathBuf,
}

/// Reads all inputs; a folder stands for its `*.yaml`, `*.yml` and `*.json` in name order, `-` for `stdin`.
pub fn read_all(paths: &[PathBuf], stdin: &mut dyn Read, problems: &mut Vec<Problem>) -> Vec<Source> {
    let mut sources = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let folder = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
            take(
                read("-", stdin).map(|text| Source { file: "-".into(), text, folder }),
                &mut sources,
                problems,
            );
        } else if path.is_dir() {
            read_folder(path, &mut sources, problems);
        } else {
            take(read_file(path), &mut sources, problems);
        }
    }
    sources
}

fn read_folder(path: &Path, sources: &mut Vec<Source>, problems: &mut Vec<Problem>) {
    let file = path.display().to_string();
    let listed = fs::read_dir(path).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
    });
    match listed {
        Err(error) => problems.push(about(&file, format!("cannot list the folder: {error}"))),
        Ok(mut paths) => {
            paths.retain(|path| is_manifest(path));
            paths.sort();
            if paths.is_empty() {
                problems.push(about(&file, "no *.yaml, *.yml or *.json in this folder".into()));
            }
            for path in paths {
                take(read_file(&path), sources, problems);
            }
        }
    }
}

fn is_manifest(path: &Path) -> bool {
    let known = path.extension().and_then(|end| end.to_str());
    path.is_file() && matches!(known, Some("yaml" | "yml" | "json"))
}

fn read_file(path: &Path) -> Result<Source, Problem> {
    let file = path.display().to_string();
    let mut opened = File::open(path).map_err(|error| about(&file, format!("cannot open: {error}")))?;
    let text = read(&file, &mut opened)?;
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    Ok(Source { file, text, folder })
}

/// At most [`MANIFEST_MAX_BYTES`], whatever the reader has.
fn read(file: &str, reader: &mut dyn Read) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    reader
        .take(MANIFEST_MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| about(file, format!("cannot read: {error}")))?;
    if bytes.len() as u64 > MANIFEST_MAX_BYTES {
        let text = format!("larger than {MANIFEST_MAX_BYTES} bytes: split it into several files");
        return Err(about(file, text));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        about(file, format!("not UTF-8 text (byte {at}): a manifest is YAML or JSON"))
    })
}

fn about(file: &str, text: String) -> Problem {
    Problem { place: Place { file: file.to_owned(), document: None, item: None }, text }
}

fn take(source: Result<Source, Problem>, sources: &mut Vec<Source>, problems: &mut Vec<Problem>) {
    match source {
        Ok(source) => sources.push(source),
        Err(problem) => problems.push(problem),
    }
}
