//! `defib doctor`: what this host lets defib use.

use serde_json::json;

use super::args::{DoctorArgs, DoctorForm};
use super::print::table::Table;
use super::{exit, output};
use crate::doctor;

/// Prints a line for each feature. Exit code 5 when `defib run` could not start.
///
/// # Errors
/// Standard output cannot be written to.
pub fn run(args: &DoctorArgs) -> anyhow::Result<u8> {
    let findings = doctor::examine();
    let text = match args.output {
        Some(DoctorForm::Json) => output::json(&json!({"features": findings}))?,
        None => {
            let mut rows = vec![["FEATURE", "USED", "WHY", "CURE"].map(str::to_owned).to_vec()];
            rows.extend(findings.iter().map(|finding| {
                let used = match (finding.used, finding.required) {
                    (true, _) => "yes",
                    (false, true) => "NO, and needed",
                    (false, false) => "no",
                };
                vec![finding.feature.to_owned(), used.to_owned(), finding.why.clone(), finding.cure.clone()]
            }));
            // What is used has no cure: nothing stands there.
            Table::new().lines(&rows).lines().map(|line| format!("{}\n", line.trim_end())).collect()
        }
    };
    output::write(text.as_bytes())?;
    Ok(if doctor::is_missing(&findings) { exit::MISSING_FEATURE } else { exit::OK })
}
