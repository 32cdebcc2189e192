//! The eBPF sensor's part: loads the programs as a start does, and lets them go.

use probe_ebpf::{Lack, LoadError, LoadOptions, abi};

use super::Finding;
use crate::sensor::{self, Programs};

const EBPF: &str = "ebpf";
const BTF: &str = "btf";
const EXITS: &str = "exit-tracepoint";
const VICTIMS: &str = "oom-tracepoint";
const RECORDS: &str = "ring-buffer";

pub fn examine() -> Vec<Finding> {
    match sensor::load(LoadOptions::default()) {
        Ok(programs) => present(&programs),
        Err(error) => absent(&error),
    }
}

fn present(programs: &Programs) -> Vec<Finding> {
    let exits = if programs.exit_program == abi::PROCESS_EXIT {
        "sched_process_exit, which tells the last thread (kernel 6.16)"
    } else {
        "sched_process_exit, with living threads counted"
    };
    let lack = |wanted: fn(&Lack) -> bool| programs.lacks.iter().find(|lack| wanted(lack));
    let or = |feature, why: &str, lack: Option<&Lack>| match lack {
        None => Finding::used(feature, why),
        Some(lack) => Finding::unused(feature, why_lacking(lack), lack.cure()),
    };
    let records = abi::RECORDS_BYTES as usize / (size_of::<abi::Death>() + abi::RECORD_HEADER_BYTES);
    vec![
        Finding::used(EBPF, what_is_told(&programs.lacks)),
        or(BTF, "offsets of this kernel's structures", lack(|lack| matches!(lack, Lack::Member { .. }))),
        Finding::used(EXITS, exits),
        or(VICTIMS, "oom/mark_victim", lack(|lack| matches!(lack, Lack::MarkVictim { .. } | Lack::Memory))),
        Finding::used(RECORDS, format!("{records} deaths until one is lost, if nobody reads")),
    ]
}

/// The effect of a tracepoint that cannot be used stands beside the programs as a whole.
fn why_lacking(lack: &Lack) -> String {
    match lack {
        Lack::MarkVictim { reason, .. } => reason.clone(),
        Lack::Member { .. } | Lack::Memory => lack.to_string(),
    }
}

fn what_is_told(lacks: &[Lack]) -> &'static str {
    if lacks.iter().any(|lack| matches!(lack, Lack::MarkVictim { .. })) {
        "ends of processes are told as they happen; victims of the OOM killer are counted, not named"
    } else if lacks.iter().any(|lack| matches!(lack, Lack::Memory)) {
        "ends of processes are told as they happen, victims of the OOM killer by name, without their memory"
    } else {
        "ends of processes are told as they happen, victims of the OOM killer by name"
    }
}

fn absent(error: &LoadError) -> Vec<Finding> {
    let why = format!("{}: ends are seen by pidfd, victims of the OOM killer are counted", error.reason());
    let mut findings = vec![Finding::unused(EBPF, why, error.cure())];
    findings.push(match error {
        LoadError::Btf(_) | LoadError::NoTracepoint | LoadError::NoLastThread => {
            Finding::unused(BTF, error.reason(), error.cure())
        }
        _ => Finding::unused(BTF, "nothing is loaded", "see ebpf"),
    });
    findings.extend(
        [EXITS, VICTIMS, RECORDS].map(|feature| Finding::unused(feature, "nothing is loaded", "see ebpf")),
    );
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lack_has_a_cure_of_its_own() {
        let forbidden = Lack::MarkVictim { reason: "x may not be read".to_owned(), cure: "run as root" };
        assert!(what_is_told(&[]).ends_with("by name"));
        assert!(what_is_told(&[Lack::Memory]).ends_with("without their memory"));
        assert!(Lack::Memory.cure().contains("6.9"));
        assert_eq!(forbidden.cure(), "run as root");
        assert!(what_is_told(&[forbidden, Lack::Memory]).ends_with("not named"));
    }

    #[test]
    fn what_is_missing_has_a_cure() {
        for error in [LoadError::NotPermitted, LoadError::NoLastThread, LoadError::PidNamespace] {
            for finding in absent(&error) {
                assert!(!finding.used && !finding.required && !finding.cure.is_empty(), "{finding:?}");
            }
        }
    }
}
