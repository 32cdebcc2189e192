//! Certificate authorities that annotations name: each file is read once for a load, and pods that name the same one
//! share what was made of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::model::limits::CA_FILE_MAX_BYTES;
use crate::model::tls::TlsConfig;
use crate::wire::tls;

/// The files of one load. A change of one of them is seen by the next load.
#[derive(Default)]
pub struct Authorities {
    by_path: BTreeMap<PathBuf, Result<TlsConfig, String>>,
}

impl Authorities {
    /// A configuration that trusts the certificates of this PEM file and no others; else what is wrong with it.
    pub fn of(&mut self, path: &Path) -> Result<TlsConfig, String> {
        self.by_path.entry(path.to_owned()).or_insert_with(|| read(path)).clone()
    }
}

fn read(path: &Path) -> Result<TlsConfig, String> {
    let failed = |what: &str| format!("{}: {what}", path.display());
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(CA_FILE_MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(
        |error| match error.kind() {
            ErrorKind::NotFound => {
                failed("no such file: a PEM file with the authority's certificates is expected")
            }
            _ => failed(&error.to_string()),
        },
    )?;
    if bytes.len() as u64 > CA_FILE_MAX_BYTES {
        return Err(failed(&format!(
            "larger than {CA_FILE_MAX_BYTES} bytes: give only the authorities of this server"
        )));
    }
    tls::verified_by(&bytes).map_err(|error| failed(&error.to_string()))
}
