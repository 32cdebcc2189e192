//! A pod of known fields with odd values, made from bytes: most are valid in most places, so that a mistake stands
//! beside what is right and every rule of validation is reached.

use arbitrary::Unstructured;
use serde_json::{Map, Value, json};

/// Most fields of one object and items of one list.
const ITEMS_MAX: usize = 6;

/// What a field holds.
#[derive(Copy, Clone)]
enum Kind {
    Int,
    Text,
    Name,
    Port,
    Quantity,
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    Object(&'static [(&'static str, Kind)]),
    List(&'static Kind),
    /// Keys and values of annotations.
    Annotations,
    Labels,
}

const POD: &[(&str, Kind)] = &[("metadata", Kind::Object(METADATA)), ("spec", Kind::Object(SPEC))];

const METADATA: &[(&str, Kind)] = &[
    ("name", Kind::Name),
    ("generateName", Kind::Name),
    ("namespace", Kind::Name),
    ("annotations", Kind::Annotations),
    ("labels", Kind::Labels),
    ("uid", Kind::Text),
    ("resourceVersion", Kind::Text),
    ("creationTimestamp", Kind::Text),
];

const SPEC: &[(&str, Kind)] = &[
    ("containers", Kind::List(&Kind::Object(CONTAINER))),
    ("initContainers", Kind::List(&Kind::Object(CONTAINER))),
    ("ephemeralContainers", Kind::List(&Kind::Object(CONTAINER))),
    ("restartPolicy", Kind::Word(&["Always", "OnFailure", "Never", "", "always"])),
    ("terminationGracePeriodSeconds", Kind::Int),
    ("activeDeadlineSeconds", Kind::Int),
    ("hostname", Kind::Name),
    ("subdomain", Kind::Name),
    ("hostNetwork", Kind::Flag),
    ("shareProcessNamespace", Kind::Flag),
    ("readinessGates", Kind::List(&Kind::Object(&[("conditionType", Kind::Name)]))),
    ("volumes", Kind::List(&Kind::Object(&[("name", Kind::Name), ("emptyDir", Kind::Object(&[]))]))),
    ("nodeSelector", Kind::Labels),
    ("securityContext", Kind::Object(SECURITY)),
    ("dnsPolicy", Kind::Word(&["ClusterFirst", "Default", "None", "x"])),
    ("os", Kind::Object(&[("name", Kind::Word(&["linux", "windows", "", "x"]))])),
];

const CONTAINER: &[(&str, Kind)] = &[
    ("name", Kind::Name),
    ("image", Kind::Text),
    ("command", Kind::List(&Kind::Text)),
    ("args", Kind::List(&Kind::Text)),
    ("workingDir", Kind::Text),
    ("env", Kind::List(&Kind::Object(&[("name", Kind::Name), ("value", Kind::Text)]))),
    ("ports", Kind::List(&Kind::Object(CONTAINER_PORT))),
    ("livenessProbe", Kind::Object(PROBE)),
    ("readinessProbe", Kind::Object(PROBE)),
    ("startupProbe", Kind::Object(PROBE)),
    ("lifecycle", Kind::Object(LIFECYCLE)),
    ("resources", Kind::Object(&[("limits", Kind::Object(AMOUNTS)), ("requests", Kind::Object(AMOUNTS))])),
    ("restartPolicy", Kind::Word(&["Always", "OnFailure", "Never", ""])),
    ("securityContext", Kind::Object(SECURITY)),
    ("terminationMessagePath", Kind::Text),
    ("terminationMessagePolicy", Kind::Word(&["File", "FallbackToLogsOnError", "", "x"])),
    ("imagePullPolicy", Kind::Word(&["Always", "IfNotPresent", "Never", "x"])),
    ("stdin", Kind::Flag),
    ("tty", Kind::Flag),
    ("volumeMounts", Kind::List(&Kind::Object(&[("name", Kind::Name), ("mountPath", Kind::Text)]))),
];

const CONTAINER_PORT: &[(&str, Kind)] = &[
    ("name", Kind::Name),
    ("containerPort", Kind::Int),
    ("hostPort", Kind::Int),
    ("hostIP", Kind::Word(&["", "0.0.0.0", "127.0.0.1", "::", "::1", "1.2.3", "x"])),
    ("protocol", Kind::Word(&["TCP", "UDP", "SCTP", "tcp", ""])),
];

const PROBE: &[(&str, Kind)] = &[
    ("exec", Kind::Object(&[("command", Kind::List(&Kind::Text))])),
    ("httpGet", Kind::Object(HTTP_GET)),
    ("tcpSocket", Kind::Object(&[("host", Kind::Text), ("port", Kind::Port)])),
    ("grpc", Kind::Object(&[("port", Kind::Int), ("service", Kind::Text)])),
    ("initialDelaySeconds", Kind::Int),
    ("timeoutSeconds", Kind::Int),
    ("periodSeconds", Kind::Int),
    ("successThreshold", Kind::Int),
    ("failureThreshold", Kind::Int),
    ("terminationGracePeriodSeconds", Kind::Int),
];

const HTTP_GET: &[(&str, Kind)] = &[
    ("host", Kind::Text),
    ("port", Kind::Port),
    ("path", Kind::Text),
    ("scheme", Kind::Word(&["HTTP", "HTTPS", "http", ""])),
    ("httpHeaders", Kind::List(&Kind::Object(&[("name", Kind::Name), ("value", Kind::Text)]))),
];

const LIFECYCLE: &[(&str, Kind)] = &[
    ("postStart", Kind::Object(HOOK)),
    ("preStop", Kind::Object(HOOK)),
    ("stopSignal", Kind::Word(&["SIGTERM", "SIGKILL", "SIGRTMIN", "SIGRTMAX", "SIGRTMIN+1", "TERM", ""])),
];

const HOOK: &[(&str, Kind)] = &[
    ("exec", Kind::Object(&[("command", Kind::List(&Kind::Text))])),
    ("httpGet", Kind::Object(HTTP_GET)),
    ("tcpSocket", Kind::Object(&[("host", Kind::Text), ("port", Kind::Port)])),
    ("sleep", Kind::Object(&[("seconds", Kind::Int)])),
];

const AMOUNTS: &[(&str, Kind)] =
    &[("memory", Kind::Quantity), ("cpu", Kind::Quantity), ("ephemeral-storage", Kind::Quantity)];

const SECURITY: &[(&str, Kind)] = &[
    ("runAsUser", Kind::Int),
    ("runAsGroup", Kind::Int),
    ("runAsNonRoot", Kind::Flag),
    ("privileged", Kind::Flag),
];

const INTS: &[i64] = &[
    0,
    1,
    2,
    30,
    80,
    -1,
    8080,
    65_535,
    65_536,
    i32::MAX as i64,
    i32::MIN as i64,
    1 << 32,
    i64::MAX,
    i64::MIN,
    u32::MAX as i64,
];
const TEXTS: &[&str] = &[
    "",
    "x",
    "/",
    "/healthz?a=b#c",
    "a:b",
    "%zz",
    "../..",
    "$(HOSTNAME)",
    "$$(X)",
    "127.0.0.1",
    "::1",
    "[::1]",
    "host.example",
    " ",
    "a\r\nX: y",
    "\0",
    "é\u{202e}",
    "---",
    "null",
    "~",
    "yes",
    "1e400",
    "0x1F",
];
const NAMES: &[&str] =
    &["c", "web", "http", "a-b", "A_B", "-a", "a.b", "", "X-Header", "c.defib.dev", "0123456789012345"];
const QUANTITIES: &[&str] = &[
    "1",
    "64Mi",
    "0.5",
    "500m",
    "1e3",
    "1E3",
    "-1",
    "+1",
    "1Ei",
    "9999999999999999999",
    "1n",
    "1.5Gi",
    "0",
    "Mi",
    ".5",
    "5.",
    "1e-9",
    "12e999",
    "",
];
const ANNOTATION_KEYS: &[&str] = &[
    "defib.dev/on-child-oom",
    "c.defib.dev/on-child-oom",
    "nobody.defib.dev/on-child-oom",
    "defib.dev/base-dir",
    "defib.dev/liveness.period-ms",
    "c.defib.dev/liveness.timeout-ms",
    "defib.dev/readiness.keep-alive",
    "defib.dev/unknown",
    "defib.dev/",
    "/",
    ".defib.dev/x",
    "example.com/anything",
];
const ANNOTATION_VALUES: &[&str] =
    &["Event", "Ignore", "RestartPod", "event", "", "/tmp", "relative", "10", "0", "-1", "true", "1e9"];

/// A pod as JSON. Bytes that run out read as zeros.
pub fn pod(bytes: &[u8]) -> Value {
    let mut source = Unstructured::new(bytes);
    let mut pod = object(&mut source, POD).unwrap_or_default();
    pod.insert("apiVersion".to_owned(), json!("v1"));
    pod.insert("kind".to_owned(), json!("Pod"));
    let metadata = pod.entry("metadata").or_insert_with(|| json!({}));
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.entry("name").or_insert_with(|| json!("p"));
    }
    Value::Object(pod)
}

fn value(source: &mut Unstructured<'_>, kind: Kind) -> arbitrary::Result<Value> {
    // One in 32 is of another kind than its field.
    if source.ratio(1, 32)? {
        return Ok(source
            .choose(&[json!(null), json!(1.5), json!({}), json!([]), json!("1"), json!(7)])?
            .clone());
    }
    Ok(match kind {
        Kind::Int => json!(source.choose(INTS)?),
        Kind::Text => json!(source.choose(TEXTS)?),
        Kind::Name => json!(source.choose(NAMES)?),
        Kind::Port if source.ratio(1, 3)? => json!(source.choose(NAMES)?),
        Kind::Port => json!(source.choose(INTS)?),
        Kind::Quantity if source.ratio(1, 3)? => json!(source.choose(INTS)?),
        Kind::Quantity => json!(source.choose(QUANTITIES)?),
        Kind::Flag => json!(source.ratio(1, 2)?),
        Kind::Word(words) => json!(source.choose(words)?),
        Kind::Object(fields) => Value::Object(object(source, fields)?),
        Kind::List(kind) => {
            let len = source.int_in_range(0..=ITEMS_MAX)?;
            let items: arbitrary::Result<Vec<Value>> = (0..len).map(|_| value(source, *kind)).collect();
            Value::Array(items?)
        }
        Kind::Annotations => pairs(source, ANNOTATION_KEYS, ANNOTATION_VALUES)?,
        Kind::Labels => pairs(source, NAMES, TEXTS)?,
    })
}

/// Some of the fields; the first ones, which say most, more often. One in 64 objects has a field nobody knows.
fn object(source: &mut Unstructured<'_>, fields: &[(&str, Kind)]) -> arbitrary::Result<Map<String, Value>> {
    let mut object = Map::new();
    for (at, (name, kind)) in fields.iter().enumerate() {
        let is_there = if at < 3 { source.ratio(3, 4)? } else { source.ratio(1, 4)? };
        if is_there {
            object.insert((*name).to_owned(), value(source, *kind)?);
        }
    }
    if source.ratio(1, 64)? {
        object.insert("unknownField".to_owned(), json!(1));
    }
    Ok(object)
}

fn pairs(source: &mut Unstructured<'_>, keys: &[&str], values: &[&str]) -> arbitrary::Result<Value> {
    let mut object = Map::new();
    for _ in 0..source.int_in_range(0..=ITEMS_MAX)? {
        object.insert((*source.choose(keys)?).to_owned(), json!(source.choose(values)?));
    }
    Ok(Value::Object(object))
}
