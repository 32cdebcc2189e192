//! `defib bench` against its own server: every due run is counted, and the files are what they say.

use std::fs;

use serde_json::Value;
use test_support::World;

#[test]
fn every_run_that_was_due_is_counted() {
    let world = World::new();
    let (hgrm, svg) = (world.dir().join("times.hgrm"), world.dir().join("times.svg"));
    let (hgrm_text, svg_text) = (hgrm.display().to_string(), svg.display().to_string());
    let done = world.defib(&[
        "bench",
        "--built-in",
        "--targets",
        "50",
        "--rate",
        "500/s",
        "--duration",
        "2s",
        "--timeout",
        "10s",
        "-o",
        "json",
        "--hgrm",
        &hgrm_text,
        "--svg",
        &svg_text,
    ]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{}", done.stdout);
    let report: Value = serde_json::from_str(&done.stdout).expect("JSON");
    let runs = &report["runs"];
    assert_eq!(runs["due"], 1_000, "{report:#}");
    assert_eq!(runs["failed"], 0, "{report:#}");
    // A run that takes longer than its period skips the next one.
    let (done_runs, skipped) = (runs["done"].as_u64().unwrap(), runs["skipped"].as_u64().unwrap());
    assert_eq!(done_runs + skipped, 1_000, "{report:#}");
    assert!(done_runs > 0);
    // On a machine that is busy the prober may miss a run itself, and says so.
    let successes = report["verdicts"]["success"].as_u64().unwrap();
    assert_eq!(successes + runs["inconclusive"].as_u64().unwrap(), done_runs, "{report:#}");
    assert_eq!(report["responseNs"]["count"], successes);
    assert_eq!(report["latenessNs"]["count"], done_runs);
    assert_eq!((&report["targets"], &report["builtIn"]), (&50.into(), &true.into()));

    let hgrm = fs::read_to_string(hgrm).expect("the log was written");
    assert!(hgrm.trim_start().starts_with("Value"), "{hgrm}");
    assert!(hgrm.contains(&format!("Total count    = {successes:12}]")), "{hgrm}");
    let svg = fs::read_to_string(svg).expect("the picture was written");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    world.assert_nothing_left();
}

#[test]
fn a_target_that_refuses_is_a_result_and_failure_is_exit_code_1() {
    let world = World::new();
    let done = world.defib(&[
        "bench",
        "tcp://127.0.0.1:1",
        "--targets",
        "4",
        "--period",
        "100ms",
        "--duration",
        "300ms",
    ]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.stdout.contains("Runs        12 of 12 due (0 skipped), 12 failed, 0 inconclusive"),
        "{}",
        done.stdout
    );
    assert!(
        done.stdout.contains("12       dial tcp 127.0.0.1:1: connect: connection refused"),
        "{}",
        done.stdout
    );
}

#[test]
fn what_was_measured_is_printed_when_ctrl_c_ends_it() {
    let world = World::new();
    let listener = world.net().inside(|| std::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let mut bench =
        world.start(&["bench", &address, "--targets", "1", "--period", "100ms", "--duration", "1h"]);
    // A connection tells of the run before it that it has ended, and the one after that that it was counted: a turn of
    // the engine hands out what it found before the next one begins.
    for _ in 0..3 {
        listener.accept().expect("the runs come");
    }
    bench.interrupt();
    assert_eq!(bench.wait(), 130, "{}", bench.printed());
    let table = bench.events().all().join("\n");
    assert!(table.contains("(interrupted); timeout"), "{table}");
    assert!(table.contains(" skipped or unfinished), 0 failed") && table.contains("RESPONSE"), "{table}");
    assert!(!table.contains("Runs        0 of"), "{table}");
    world.assert_nothing_left();
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_runs() {
    let world = World::new();
    for (args, code, text) in [
        (&["--targets", "0"][..], 2, "--targets"),
        (&["--targets", "1000000"], 2, "1..=200000"),
        (&["--rate", "0/s"], 2, "outside 1/s"),
        (&["--rate", "fast"], 2, "is not a rate such as 1000/s"),
        (&["--rate", "1", "--period", "1s"], 2, "cannot be used with"),
        (&["--targets", "1", "--rate", "5000"], 2, "--targets and --rate have to give 1ms"),
        (&["--period", "0s"], 2, "outside 1ms"),
        (&["--duration", "1.5s"], 2, "whole numbers, each with a unit of ms, s, m or h: 1500ms, 10s, 1m30s"),
        (&["--duration", "10"], 2, "whole numbers, each with a unit of ms, s, m or h"),
        (&["--duration", "25h"], 2, "outside 1ms to 86400s"),
        (&["--built-in", "tcp://127.0.0.1:1"], 2, "cannot be used with"),
        (&["a-pod"], 2, "an address starts with http://, https:// or tcp://"),
        (&["tcp://127.0.0.1"], 2, "tcp needs a port"),
        (&["http://no.such.host.invalid/"], 3, "lookup no.such.host.invalid"),
        (&["--svg", "no/such/folder/x.svg"], 3, "cannot write no/such/folder/x.svg"),
    ] {
        let mut words = vec!["bench"];
        words.extend(args);
        let done = world.defib(&words);
        assert_eq!(done.code, code, "{args:?}: {done:?}");
        assert!(done.stderr.contains(text), "{args:?}: {done:?}");
        assert_eq!(done.stdout, "", "{args:?}");
    }
}
