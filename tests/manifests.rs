//! Bad manifests: each ends with exit code 3 and exactly these lines, and costs bounded memory.

use std::io::Write;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Address space given to the binary for inputs that try to take more.
const MEMORY_MAX_BYTES: u64 = 512 * 1024 * 1024;

struct Output {
    code: i32,
    stdout: String,
    stderr: String,
}

/// `defib validate -f FILE`, under a memory bound, with what `feed` writes on standard input.
fn validate(file: &str, extra: &[&str], feed: impl FnOnce(&mut dyn Write) + Send + 'static) -> Output {
    let mut child = Command::new("prlimit")
        .arg(format!("--as={MEMORY_MAX_BYTES}"))
        .arg(env!("CARGO_BIN_EXE_defib"))
        .args(["validate", "-f", file])
        .args(extra)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("prlimit of util-linux is needed");
    let mut stdin = child.stdin.take().expect("its input is piped");
    let feeder = std::thread::spawn(move || feed(&mut stdin));
    let done = child.wait_with_output().expect("it ends");
    feeder.join().expect("the feeder does not panic");
    Output {
        code: done.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}

fn validate_text(dir: &TempDir, text: &[u8], extra: &[&str]) -> Output {
    let file = dir.path().join("pod.yaml");
    std::fs::write(&file, text).expect("a temporary file");
    let mut output = validate(file.to_str().expect("a plain path"), extra, |_| {});
    let folder = format!("{}/", dir.path().display());
    output.stderr = output.stderr.replace(&folder, "");
    output
}

/// A pod whose container has `fields` beside name and command.
fn pod(fields: &str) -> String {
    pod_spec(&format!("containers: [{{name: c, command: [x], {fields}}}]"))
}

fn pod_spec(spec: &str) -> String {
    format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{{spec}}}}}")
}

fn liveness(fields: &str) -> String {
    pod(&format!("livenessProbe: {{{fields}}}"))
}

const C: &str = "spec.containers[0]";
const L: &str = "spec.containers[0].livenessProbe";

/// Manifest, and every line of the answer after `pod.yaml: document 1: ` (or the whole line after `pod.yaml: `
/// when it begins with a colon).
// Reason for length: a table.
fn cases() -> Vec<(&'static str, String, Vec<String>)> {
    let label = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    let subdomain = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    let range = "must be between 1 and 65535, inclusive";
    let negative = "must be greater than or equal to 0";
    let one = |line: String| vec![line];
    vec![
        ("empty", String::new(), one(": no document in it: a v1 Pod is expected".into())),
        ("only comments", "# nothing\n---\n# here\n".into(), one(": no document in it: a v1 Pod is expected".into())),
        ("a scalar", "hello".into(), one("not an object: a v1 Pod is expected".into())),
        ("a list", "[1, 2]".into(), one("not an object: a v1 Pod is expected".into())),
        ("no apiVersion", "{kind: Pod}".into(), one("apiVersion: Required value: v1 is expected".into())),
        ("no kind", "{apiVersion: v1}".into(), one("kind: Required value: Pod is expected".into())),
        (
            "another kind",
            "{apiVersion: apps/v1, kind: Deployment}".into(),
            one("no kind \"Deployment\" in version \"apps/v1\" can be run: v1 Pod is expected".into()),
        ),
        (
            "another version",
            "{apiVersion: v2, kind: Pod}".into(),
            one("no kind \"Pod\" in version \"v2\" can be run: v1 Pod is expected".into()),
        ),
        ("an empty list", "{apiVersion: v1, kind: List, items: []}".into(), one("items: Required value: the list is empty".into())),
        ("no items", "{apiVersion: v1, kind: List}".into(), one("items: Required value: a list of v1 Pods is expected".into())),
        ("no spec", "{apiVersion: v1, kind: Pod, metadata: {name: p}}".into(), one("spec: Required value".into())),
        ("no containers", pod_spec("containers: []"), one("spec.containers: Required value".into())),
        (
            "no name",
            "{apiVersion: v1, kind: Pod, spec: {containers: [{name: c, command: [x]}]}}".into(),
            one("metadata.name: Required value: name or generateName is required".into()),
        ),
        (
            "a bad name",
            "{apiVersion: v1, kind: Pod, metadata: {name: A_b}, spec: {containers: [{name: c, command: [x]}]}}".into(),
            one(format!("metadata.name: Invalid value: \"A_b\": {subdomain}")),
        ),
        (
            "a bad namespace",
            "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: a.b}, spec: {containers: [{name: c, command: [x]}]}}".into(),
            one(format!("metadata.namespace: Invalid value: \"a.b\": {label}")),
        ),
        (
            "an unknown annotation of ours",
            "{apiVersion: v1, kind: Pod, metadata: {name: p, annotations: {defib.dev/nope: x}}, spec: {containers: [{name: c, command: [x]}]}}".into(),
            one("metadata.annotations: Invalid value: \"defib.dev/nope\": defib knows no such annotation; there are on-child-oom, base-dir and <probe>.<setting>: docs/annotations.md".into()),
        ),
        (
            "a policy that does not exist",
            "{apiVersion: v1, kind: Pod, metadata: {name: p, annotations: {defib.dev/on-child-oom: Restart}}, spec: {containers: [{name: c, command: [x]}]}}".into(),
            one("metadata.annotations[defib.dev/on-child-oom]: Unsupported value: \"Restart\": supported values: \"Ignore\", \"Event\", \"RestartContainer\", \"RestartPod\"".into()),
        ),
        (
            "a policy for a container that is not there",
            "{apiVersion: v1, kind: Pod, metadata: {name: p, annotations: {d.defib.dev/on-child-oom: Event}}, spec: {containers: [{name: c, command: [x]}]}}".into(),
            one("metadata.annotations: Invalid value: \"d.defib.dev/on-child-oom\": the pod has no container of this name; it has c".into()),
        ),
        (
            "an unknown annotation of a container",
            "{apiVersion: v1, kind: Pod, metadata: {name: p, annotations: {c.defib.dev/nope: x}}, spec: {containers: [{name: c, command: [x]}]}}".into(),
            one("metadata.annotations: Invalid value: \"c.defib.dev/nope\": defib knows no such annotation; there are on-child-oom, base-dir and <probe>.<setting>: docs/annotations.md".into()),
        ),
        (
            "values that are no text, beside another error",
            "{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {a.io/b: true}, annotations: {c.defib.dev/on-child-oom: 3, defib.dev/nope: x}}, spec: {containers: [{name: c, command: [x]}]}}".into(),
            vec![
                "metadata.labels[a.io/b]: Invalid value: invalid type: boolean `true`, expected a string".into(),
                "metadata.annotations[c.defib.dev/on-child-oom]: Invalid value: invalid type: integer `3`, expected a string".into(),
                "metadata.annotations: Invalid value: \"defib.dev/nope\": defib knows no such annotation; there are on-child-oom, base-dir and <probe>.<setting>: docs/annotations.md".into(),
            ],
        ),
        (
            "no container name",
            pod_spec("containers: [{name: '', command: [x]}]"),
            one(format!("{C}.name: Required value")),
        ),
        (
            "a bad container name",
            pod_spec("containers: [{name: C, command: [x]}]"),
            one(format!("{C}.name: Invalid value: \"C\": {label}")),
        ),
        (
            "a container name twice",
            pod_spec("containers: [{name: c, command: [x]}, {name: c, command: [x]}]"),
            one("spec.containers[1].name: Duplicate value: \"c\"".into()),
        ),
        (
            "no command",
            pod_spec("containers: [{name: c, image: nginx}]"),
            one(format!("{C}.command: Required value: the process runtime has no image to take an entrypoint from; give the command to run")),
        ),
        (
            "a bad restart policy",
            pod_spec("restartPolicy: Sometimes, containers: [{name: c, command: [x]}]"),
            one("spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"".into()),
        ),
        (
            "a restart policy of a container",
            pod("restartPolicy: Always"),
            one(format!("{C}.restartPolicy: Forbidden: may not be set for non-init containers")),
        ),
        (
            "a negative grace period",
            pod_spec("terminationGracePeriodSeconds: -1, containers: [{name: c, command: [x]}]"),
            one(format!("spec.terminationGracePeriodSeconds: Invalid value: -1: {negative}")),
        ),
        ("no handler", liveness("periodSeconds: 5"), one(format!("{L}: Required value: must specify a handler type"))),
        (
            "two handlers",
            liveness("exec: {command: [x]}, httpGet: {port: 80}"),
            one(format!("{L}.httpGet: Forbidden: may not specify more than 1 handler type")),
        ),
        ("an empty exec", liveness("exec: {command: []}"), one(format!("{L}.exec.command: Required value"))),
        ("port 0", liveness("httpGet: {port: 0}"), one(format!("{L}.httpGet.port: Invalid value: 0: {range}"))),
        ("port 65536", liveness("tcpSocket: {port: 65536}"), one(format!("{L}.tcpSocket.port: Invalid value: 65536: {range}"))),
        (
            "a long port name",
            liveness("httpGet: {port: this-is-a-too-long-name}"),
            one(format!("{L}.httpGet.port: Invalid value: \"this-is-a-too-long-name\": must be no more than 15 characters")),
        ),
        (
            "a port number in text",
            liveness("httpGet: {port: '118'}"),
            one(format!("{L}.httpGet.port: Invalid value: \"118\": must contain at least one letter (a-z)")),
        ),
        (
            "a scheme in lower case",
            liveness("httpGet: {port: 80, scheme: http}"),
            one(format!("{L}.httpGet.scheme: Unsupported value: \"http\": supported values: \"HTTP\", \"HTTPS\"")),
        ),
        (
            "a bad header",
            liveness("httpGet: {port: 80, httpHeaders: [{name: 'X:Foo', value: z}]}"),
            one(format!("{L}.httpGet.httpHeaders: Invalid value: \"X:Foo\": a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')")),
        ),
        (
            "all numbers negative",
            liveness("tcpSocket: {port: 80}, initialDelaySeconds: -1, timeoutSeconds: -2, periodSeconds: -3, failureThreshold: -4"),
            ["initialDelaySeconds: Invalid value: -1", "timeoutSeconds: Invalid value: -2", "periodSeconds: Invalid value: -3", "failureThreshold: Invalid value: -4"]
                .iter()
                .map(|text| format!("{L}.{text}: {negative}"))
                .collect(),
        ),
        (
            "a success threshold of a liveness probe",
            liveness("tcpSocket: {port: 80}, successThreshold: 2"),
            one(format!("{L}.successThreshold: Invalid value: 2: must be 1")),
        ),
        (
            "a grace period of zero",
            liveness("tcpSocket: {port: 80}, terminationGracePeriodSeconds: 0"),
            one(format!("{L}.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0")),
        ),
        (
            "a grace period of a readiness probe",
            pod("readinessProbe: {tcpSocket: {port: 80}, terminationGracePeriodSeconds: 5}"),
            one(format!("{C}.readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes")),
        ),
        (
            "a probe of an init container",
            pod_spec("initContainers: [{name: i, command: [x], livenessProbe: {tcpSocket: {port: 80}}}], containers: [{name: c, command: [x]}]"),
            one("spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always".into()),
        ),
        (
            "a probe of an ephemeral container",
            pod_spec("ephemeralContainers: [{name: e, livenessProbe: {tcpSocket: {port: 80}}}], containers: [{name: c, command: [x]}]"),
            one("spec.ephemeralContainers[0].livenessProbe: Forbidden: cannot be set for an Ephemeral Container".into()),
        ),
        (
            "a hook that sleeps too long",
            pod("lifecycle: {preStop: {sleep: {seconds: 31}}}"),
            one(format!("{C}.lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)")),
        ),
        ("a hook without a handler", pod("lifecycle: {preStop: {}}"), one(format!("{C}.lifecycle.preStop: Required value: must specify a handler type"))),
        ("a negative user", pod("securityContext: {runAsUser: -1}"), one(format!("{C}.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"))),
        ("a negative limit", pod("resources: {limits: {memory: '-5'}}"), one(format!("{C}.resources.limits[memory]: Invalid value: \"-5\": {negative}"))),
        (
            "a limit that is none",
            pod("resources: {limits: {memory: lots}}"),
            one(format!("{C}.resources.limits[memory]: Invalid value: \"lots\": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")),
        ),
        ("no container port", pod("ports: [{name: a}]"), one(format!("{C}.ports[0].containerPort: Required value"))),
        ("a bad protocol", pod("ports: [{containerPort: 80, protocol: ICMP}]"), one(format!("{C}.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\""))),
        ("a port name twice", pod("ports: [{name: a, containerPort: 80}, {name: a, containerPort: 81}]"), one(format!("{C}.ports[1].name: Duplicate value: \"a\""))),
        ("an unnamed variable", pod("env: [{name: '', value: x}]"), one(format!("{C}.env[0].name: Required value"))),
        ("a bad message policy", pod("terminationMessagePolicy: Both"), one(format!("{C}.terminationMessagePolicy: Unsupported value: \"Both\": supported values: \"FallbackToLogsOnError\", \"File\""))),
        ("an unknown field", pod("comand: [y]"), one(format!("strict decoding error: unknown field \"{C}.comand\""))),
        ("an unknown field of the pod", pod_spec("containers: [{name: c, command: [x]}], restartpolicy: Never"), one("strict decoding error: unknown field \"spec.restartpolicy\"".into())),
    ]
}

#[test]
fn every_bad_manifest_says_exactly_what_is_wrong() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let cases = cases();
    assert!(cases.len() >= 45, "{}", cases.len());
    for (name, text, expected) in cases {
        let output = validate_text(&dir, text.as_bytes(), &[]);
        let expected: Vec<String> = expected
            .iter()
            .map(|line| match line.strip_prefix(':') {
                Some(rest) => format!("pod.yaml:{rest}"),
                None => format!("pod.yaml: document 1: {line}"),
            })
            .collect();
        assert_eq!(output.stderr.trim_end(), expected.join("\n"), "{name}\n{text}");
        assert_eq!((output.code, output.stdout.as_str()), (3, ""), "{name}");
    }
}

/// Inputs whose exact words are a parser's: what must be in the answer.
#[test]
fn what_cannot_be_read_is_named_and_bounded() {
    let bomb: String = {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let before = n - 1;
            text.push_str(&format!("a{n}: &a{n} [{}]\n", vec![format!("*a{before}"); 9].join(", ")));
        }
        text
    };
    let deep = "[".repeat(100_000);
    let huge = {
        let mut text = pod("").into_bytes();
        text.resize(50 * 1024 * 1024, b' ');
        text
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("bad YAML", b"a: [1, 2\nb: }".to_vec(), "document 1: not valid YAML: line "),
        (
            "bad YAML in the second document",
            format!("{}\n---\na: [\n", pod("")).into_bytes(),
            "document 2: not valid YAML: line ",
        ),
        ("bad JSON", b"{\"apiVersion\": \"v1\" \"kind\": \"Pod\"}".to_vec(), "document 1: not valid"),
        (
            "a key twice",
            b"apiVersion: v1\nkind: Pod\nkind: Pod\n".to_vec(),
            "document 1: not valid YAML: line 3",
        ),
        (
            "a key twice in JSON",
            br#"{"apiVersion": "v1", "apiVersion": "v1"}"#.to_vec(),
            "document 1: not valid",
        ),
        (
            "a number for a text",
            pod("workingDir: 5").into_bytes(),
            "spec.containers[0].workingDir: Invalid value: ",
        ),
        (
            "a text for a number",
            liveness("tcpSocket: {port: 80}, periodSeconds: soon").into_bytes(),
            "spec.containers[0].livenessProbe.periodSeconds: Invalid value: ",
        ),
        ("a map for a list", pod_spec("containers: {}").into_bytes(), "spec.containers: Invalid value: "),
        ("a YAML bomb", bomb.into_bytes(), "document 1: not valid YAML: "),
        ("a deep one", deep.into_bytes(), "document 1: not valid YAML: "),
        ("50 MB", huge, "pod.yaml: larger than 4194304 bytes: split it into several files"),
        ("binary", (0..=255u8).cycle().take(10_000).collect(), "not UTF-8 text"),
    ];
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (name, text, expected) in cases {
        let output = validate_text(&dir, &text, &[]);
        assert_eq!(output.code, 3, "{name}: {}", output.stderr);
        assert!(output.stderr.contains(expected), "{name}: {expected:?} is not in {}", output.stderr);
        assert!(output.stderr.len() < 2_000, "{name}: {}", output.stderr.len());
    }
}

#[test]
fn endless_input_ends() {
    let output = validate("-", &[], |stdin| {
        let block = vec![b'#'; 1 << 20];
        // Until the reader has had enough and closes the pipe.
        while stdin.write_all(&block).is_ok() {}
    });
    assert_eq!(output.code, 3, "{}", output.stderr);
    assert_eq!(output.stderr.trim_end(), "-: larger than 4194304 bytes: split it into several files");
}

#[test]
fn files_that_cannot_be_had() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let missing = path("missing.yaml");
    let output = validate(&missing, &[], |_| {});
    assert_eq!(output.code, 3);
    assert_eq!(
        output.stderr.trim_end(),
        format!("{missing}: cannot open: No such file or directory (os error 2)")
    );
    std::fs::create_dir(path("empty")).expect("a new folder");
    let output = validate(&path("empty"), &[], |_| {});
    assert_eq!(output.code, 3);
    assert_eq!(
        output.stderr.trim_end(),
        format!("{}: no *.yaml, *.yml or *.json in this folder", path("empty"))
    );
}

#[test]
fn all_errors_of_all_files_come_at_once() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).expect("a file");
    write("a.yaml", format!("{}\n---\n{}", pod("comand: [y]"), liveness("httpGet: {port: 0}")));
    write(
        "b.json",
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": []}}"#
            .into(),
    );
    let folder = dir.path().display().to_string();
    let output = validate(&folder, &[], |_| {});
    assert_eq!(output.code, 3);
    let lines: Vec<String> =
        output.stderr.trim_end().lines().map(|line| line.replace(&format!("{folder}/"), "")).collect();
    assert_eq!(
        lines,
        [
            "a.yaml: document 1: strict decoding error: unknown field \"spec.containers[0].comand\""
                .to_owned(),
            format!(
                "a.yaml: document 2: {L}.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive"
            ),
            "b.json: document 1: spec.containers: Required value".to_owned(),
        ]
    );
}

#[test]
fn names_and_ports_are_unique_over_the_load() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let same = format!("{}\n---\n{}", pod(""), pod(""));
    let output = validate_text(&dir, same.as_bytes(), &[]);
    assert_eq!(output.code, 3);
    let expected = "pod.yaml: document 2: metadata.name: Duplicate value: \"default/p\": the pod is defined twice, first in pod.yaml: document 1";
    assert_eq!(output.stderr.trim_end(), expected);

    // The same file again, its ports included: one line that says so.
    let file = dir.path().join("pod.yaml");
    std::fs::write(&file, pod("ports: [{containerPort: 80}]")).expect("a temporary file");
    let file = file.to_str().expect("a plain path");
    let output = validate(file, &["-f", file], |_| {});
    assert_eq!(output.code, 3);
    let expected = format!(
        "{file}: document 1: metadata.name: Duplicate value: \"default/p\": the pod is defined twice: {file} is given more than once\n"
    );
    assert_eq!(output.stderr, expected);

    let ports = pod_spec(
        "containers: [{name: a, command: [x], ports: [{containerPort: 80}]}, {name: b, command: [x], ports: [{containerPort: 8080, hostPort: 80}]}]",
    );
    let output = validate_text(&dir, ports.as_bytes(), &[]);
    assert_eq!(output.code, 3);
    let expected = "pod.yaml: document 1: port 80 is wanted by container b of pod default/p and by container a of pod default/p: containers share the host's network, so they would answer for each other";
    assert_eq!(output.stderr.trim_end(), expected);
}

#[test]
fn what_is_not_honoured_is_named_once_and_refused_when_strict() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let text = pod_spec(
        "volumes: [{name: v, emptyDir: {}}], containers: [{name: c, command: [x], tty: true, livenessProbe: {grpc: {port: 5000}}}]",
    );
    let output = validate_text(&dir, text.as_bytes(), &[]);
    assert_eq!((output.code, output.stdout.as_str()), (0, "pod/p valid\n"));
    let lines: Vec<&str> = output.stderr.trim_end().lines().collect();
    assert_eq!(
        lines,
        [
            "warning: pod.yaml: document 1: spec.containers[0].tty: standard input is /dev/null and there is no terminal",
            "warning: pod.yaml: document 1: spec.volumes: no volumes: the process sees the host's files",
        ]
    );
    let output = validate_text(&dir, text.as_bytes(), &["--strict"]);
    assert_eq!(output.code, 3);
    assert_eq!(output.stderr.matches("(--strict)").count(), 2, "{}", output.stderr);
}

#[test]
fn good_ones_are_valid() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let list =
        format!("{{apiVersion: v1, kind: List, items: [{}]}}", pod("image: x, imagePullPolicy: Always"));
    for text in
        [pod(""), format!("---\n{}\n---\n", pod("")), list, liveness("httpGet: {port: 80}, periodSeconds: 0")]
    {
        let output = validate_text(&dir, text.as_bytes(), &[]);
        assert_eq!(
            (output.code, output.stdout.as_str(), output.stderr.as_str()),
            (0, "pod/p valid\n", ""),
            "{text}"
        );
    }
    for example in ["wedge", "kiada-liveness", "liveness-exec", "liveness-tcp"] {
        let output = validate(&format!("examples/{example}.yaml"), &["--strict"], |_| {});
        assert_eq!(output.code, 0, "{example}: {}", output.stderr);
    }
}
