//! `defib doctor` on this host, with and without rights.

use serde_json::Value;
use test_support::World;

const NOBODY: u32 = 65_534;

fn findings(world: &World) -> Vec<Value> {
    let done = world.defib(&["doctor", "-o", "json"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let whole: Value = serde_json::from_str(&done.stdout).expect("doctor prints JSON");
    whole["features"].as_array().expect("a list").clone()
}

fn is_used(findings: &[Value], feature: &str) -> bool {
    let found = findings.iter().find(|finding| finding["feature"] == feature);
    found.unwrap_or_else(|| panic!("{feature} is not in {findings:?}"))["used"] == true
}

#[test]
fn root_uses_all() {
    let findings = findings(&World::new());
    for finding in &findings {
        assert_eq!(finding["used"], true, "{finding}");
        assert_eq!(finding["cure"], "", "{finding}");
    }
}

#[test]
fn an_ordinary_user_is_told_the_cures() {
    let world = World::of_user(NOBODY);
    let findings = findings(&world);
    for feature in ["engine", "io_uring", "pidfd", "descriptors"] {
        assert!(is_used(&findings, feature), "{feature}: {findings:?}");
    }
    for feature in ["ebpf", "exit-tracepoint", "oom-tracepoint", "ring-buffer", "capabilities"] {
        assert!(!is_used(&findings, feature), "{feature}: {findings:?}");
    }
    for feature in ["cgroups", "memory-limits", "oom-counters", "other-users", "mount-namespaces"] {
        assert!(!is_used(&findings, feature), "{feature}: {findings:?}");
    }
    for finding in findings.iter().filter(|finding| finding["used"] == false) {
        assert_ne!(finding["cure"], "", "{finding}");
    }
    let text = world.defib(&["doctor"]);
    assert_eq!((text.code, text.stdout.lines().count()), (0, findings.len() + 1), "{}", text.stdout);
}

#[test]
fn what_a_start_needs_and_does_not_get_is_exit_code_5() {
    let program = "ulimit -n 40; exec \"$0\" doctor";
    let binary = test_support::defib_binary();
    let done = std::process::Command::new("/bin/sh").args(["-c", program]).arg(binary).output();
    let done = done.expect("a shell");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.status.code(), Some(5), "{text}");
    assert!(text.contains("NO, and needed") && text.contains("RLIMIT_NOFILE is 40"), "{text}");
}
