//! Text to documents, documents to pods. Fields that Kubernetes does not know, fields given twice and values
//! of the wrong type are errors, as in kubectl's strict decoding.

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::Value;

use super::error::{Place, Problem};
use super::source::Source;

/// Documents of one file.
const DOCUMENTS_MAX: usize = 1_024;
/// Nodes of one document, aliases followed: a YAML bomb ends here.
const NODES_MAX: usize = 200_000;
const DEPTH_MAX: usize = 64;
const ALIASES_MAX: usize = 1_000;
/// Parts of one document that aliases repeat: a bomb of anchors ends here, long before the nodes do.
const REPEATED_MAX: usize = 20_000;
/// Nodes and bytes of text of all documents of one file, aliases followed. Plain text of 4 MiB stays below both.
const FILE_NODES_MAX: usize = 1_000_000;
const FILE_TEXT_MAX_BYTES: usize = 32 * 1024 * 1024;

/// A pod as it was written, and where.
pub struct Decoded {
    pub place: Place,
    pub pod: Pod,
    /// Field paths that Kubernetes does not know.
    pub unknown: Vec<String>,
    /// Errors of values that were left out, so that all others are found as well.
    pub left_out: Vec<String>,
}

/// All pods of one source.
pub fn decode(source: &Source, problems: &mut Vec<Problem>) -> Vec<Decoded> {
    let mut pods = Vec::new();
    let mut document = 0;
    let mut size = Size::default();
    for part in documents(&source.text) {
        document += 1;
        let place = Place { file: source.file.clone(), document: Some(document), item: None };
        if document > DOCUMENTS_MAX {
            let text = format!("more than {DOCUMENTS_MAX} documents: split the file");
            problems.push(Problem { place, text });
            break;
        }
        match parse(&part) {
            Ok(Value::Null) => document -= 1,
            Ok(value) => {
                size.add(&value);
                if size.nodes > FILE_NODES_MAX || size.text_bytes > FILE_TEXT_MAX_BYTES {
                    let text = format!(
                        "more than {FILE_NODES_MAX} values or {FILE_TEXT_MAX_BYTES} bytes of text up to here, \
                         aliases followed: split the file"
                    );
                    problems.push(Problem { place, text });
                    break;
                }
                expand_lists(&place, value, 0, &mut pods, problems);
            }
            Err(NotParsed::Wrong(text)) => problems.push(Problem { place, text }),
            // The next document may be as costly: a thousand of them would take minutes.
            Err(NotParsed::TooMuch(text)) => {
                problems.push(Problem { place, text });
                break;
            }
        }
    }
    if document == 0 {
        let place = Place { file: source.file.clone(), document: None, item: None };
        problems.push(Problem { place, text: "no document in it: a v1 Pod is expected".into() });
    }
    pods
}

/// Why a document could not be read.
enum NotParsed {
    Wrong(String),
    /// It is larger than a document may be.
    TooMuch(String),
}

/// What values take.
#[derive(Default)]
struct Size {
    nodes: usize,
    text_bytes: usize,
}

impl Size {
    /// The depth of a value is bounded by the parsers.
    fn add(&mut self, value: &Value) {
        self.nodes += 1;
        match value {
            Value::String(text) => self.text_bytes += text.len(),
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::Object(object) => object.iter().for_each(|(key, value)| {
                self.text_bytes += key.len();
                self.add(value);
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// A part of the file between two document markers.
struct Document<'a> {
    text: &'a str,
    /// Lines of the file before it.
    lines_before: usize,
}

/// Splits at lines that begin with `---`: nothing inside a document can begin a line so (YAML 1.2, 9.1.2).
fn documents(text: &str) -> Vec<Document<'_>> {
    let mut parts = Vec::new();
    let (mut start, mut offset, mut lines, mut lines_before) = (0, 0, 0, 0);
    for line in text.split_inclusive('\n') {
        let is_marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if is_marker && offset > start {
            parts.push(Document { text: &text[start..offset], lines_before });
            (start, lines_before) = (offset, lines);
        }
        offset += line.len();
        lines += 1;
    }
    parts.push(Document { text: &text[start..], lines_before });
    parts
}

fn parse(document: &Document<'_>) -> Result<Value, NotParsed> {
    if document.text.trim_start().starts_with('{') {
        let parsed: Result<UniqueKeys, _> = serde_json::from_str(document.text);
        return match parsed {
            Ok(UniqueKeys(value)) => Ok(value),
            // YAML has a flow form that begins in the same way.
            Err(_) if serde_saphyr_value(document).is_ok() => serde_saphyr_value(document),
            Err(error) => Err(NotParsed::Wrong(format!("not valid JSON: {error}"))),
        };
    }
    serde_saphyr_value(document)
}

fn serde_saphyr_value(document: &Document<'_>) -> Result<Value, NotParsed> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: NODES_MAX,
            max_events: 4 * NODES_MAX,
            max_depth: DEPTH_MAX,
            max_aliases: ALIASES_MAX,
            max_total_scalar_bytes: FILE_TEXT_MAX_BYTES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: REPEATED_MAX,
        },
    };
    let parsed: Result<Option<Value>, _> = serde_saphyr::from_str_with_options(document.text, options);
    match parsed {
        Ok(value) => Ok(value.unwrap_or(Value::Null)),
        Err(error) => {
            let line = error.location().map_or(0, |at| at.line() as usize) + document.lines_before;
            let text = first_line(&error.without_snippet().to_string());
            let text = format!("not valid YAML: line {line}: {text}");
            let is_too_much = matches!(
                cause(&error),
                serde_saphyr::Error::Budget { .. } | serde_saphyr::Error::AliasReplayLimitExceeded { .. }
            );
            Err(if is_too_much { NotParsed::TooMuch(text) } else { NotParsed::Wrong(text) })
        }
    }
}

/// The error itself, without where aliases led to it.
fn cause(mut error: &serde_saphyr::Error) -> &serde_saphyr::Error {
    while let serde_saphyr::Error::AliasError { error: inner, .. }
    | serde_saphyr::Error::WithSnippet { error: inner, .. } = error
    {
        error = inner;
    }
    error
}

/// The parser adds its own line, counted from the document's start; ours counts from the file's.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    // Advice to the parser's caller.
    let line = line.split(", set DuplicateKeyPolicy").next().unwrap_or_default();
    match line.find(" at line ").or_else(|| line.find("line ").filter(|at| *at == 0)) {
        Some(at) if at > 0 => line[..at].trim_end_matches([' ', ',', ':']).to_owned(),
        Some(_) | None => line.trim_start_matches("error: ").to_owned(),
    }
}

/// A JSON value whose objects have no key twice (serde_json itself keeps the last).
struct UniqueKeys(Value);

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<UniqueKeys, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(UniqueKeys)
    }
}

struct UniqueVisitor;

impl<'de> serde::de::Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(UniqueKeys(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = serde_json::Map::new();
        while let Some((key, UniqueKeys(value))) = map.next_entry::<String, UniqueKeys>()? {
            if object.contains_key(&key) {
                return Err(serde::de::Error::custom(format!("duplicate field `{key}`")));
            }
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

/// A document is a pod, or a list of such.
fn expand_lists(
    place: &Place,
    value: Value,
    depth: usize,
    pods: &mut Vec<Decoded>,
    problems: &mut Vec<Problem>,
) {
    let mut problem = |text: String| problems.push(Problem { place: place.clone(), text });
    let text_of = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    if !value.is_object() {
        return problem("not an object: a v1 Pod is expected".into());
    }
    let (version, kind) = (text_of("apiVersion"), text_of("kind"));
    match (version.as_str(), kind.as_str()) {
        ("v1", "Pod") => match pod(place, value) {
            Ok(decoded) => pods.push(decoded),
            Err(texts) => texts.into_iter().for_each(problem),
        },
        ("v1", "List" | "PodList") if depth == 0 => {
            let Some(Value::Array(items)) = value.get("items").cloned() else {
                return problem("items: Required value: a list of v1 Pods is expected".into());
            };
            if items.is_empty() {
                return problem("items: Required value: the list is empty".into());
            }
            for (at, mut item) in items.into_iter().enumerate() {
                // Items of a PodList carry no type of their own.
                if kind == "PodList"
                    && let Some(object) = item.as_object_mut()
                {
                    object.entry("apiVersion").or_insert_with(|| "v1".into());
                    object.entry("kind").or_insert_with(|| "Pod".into());
                }
                let place = Place { item: Some(at), ..place.clone() };
                expand_lists(&place, item, depth + 1, pods, problems);
            }
        }
        ("", _) => problem("apiVersion: Required value: v1 is expected".into()),
        (_, "") => problem("kind: Required value: Pod is expected".into()),
        (version, kind) => {
            problem(format!("no kind \"{kind}\" in version \"{version}\" can be run: v1 Pod is expected"));
        }
    }
}

/// A typed pod, or everything that keeps it from being one.
pub fn pod(place: &Place, mut value: Value) -> Result<Decoded, Vec<String>> {
    let mut left_out = Vec::new();
    for field in ["labels", "annotations"] {
        if let Some(map) = value.pointer_mut(&format!("/metadata/{field}")).and_then(Value::as_object_mut) {
            keep_texts(&format!("metadata.{field}"), map, &mut left_out);
        }
    }
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let parsed: Result<Pod, serde_json::Error> =
        serde_ignored::deserialize(tracked, |path| unknown.push(ignored_path(&path)));
    match parsed {
        Ok(pod) => Ok(Decoded { place: place.clone(), pod, unknown, left_out }),
        Err(error) => {
            left_out.push(format!("{}: Invalid value: {error}", track.path()));
            Err(left_out)
        }
    }
}

/// Takes what is no text out of a map of texts: the likeliest slip in a manifest, `key: 3` for `key: "3"`.
fn keep_texts(path: &str, map: &mut serde_json::Map<String, Value>, errors: &mut Vec<String>) {
    map.retain(|key, value| match String::deserialize(&*value) {
        Ok(_) => true,
        Err(error) => {
            errors.push(format!("{path}[{key}]: Invalid value: {error}"));
            false
        }
    });
}

/// `spec.containers[0].foo`
fn ignored_path(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", ignored_path(parent)),
        Path::Map { parent, key } => {
            let parent = ignored_path(parent);
            if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") }
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            ignored_path(parent)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with a file of this text.
    fn told(text: String) -> Vec<String> {
        let source = Source { file: "f".to_owned(), text, folder: "/".into() };
        let mut problems = Vec::new();
        decode(&source, &mut problems);
        problems.into_iter().map(|problem| problem.to_string()).collect()
    }

    /// A document of 200 bytes whose value has ten to the power of `levels` nodes.
    fn bomb(levels: u8) -> String {
        let mut text = "l0: &l0 x\n".to_owned();
        for level in 1..=levels {
            let aliases = vec![format!("*l{}", level - 1); 10];
            text.push_str(&format!("l{level}: &l{level} [{}]\n", aliases.join(",")));
        }
        text
    }

    #[test]
    fn a_bomb_ends_the_file() {
        let problems = told(vec![bomb(7); 500].join("---\n"));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("f: document 1: not valid YAML: line 6: "), "{problems:?}");
    }

    #[test]
    fn aliases_of_all_documents_together_have_a_bound() {
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(40_000), vec!["*a"; 90].join(","));
        let problems = told(vec![text; 40].join("---\n"));
        let (last, before) = problems.split_last().unwrap();
        assert!(before.iter().all(|problem| problem.ends_with("v1 is expected")), "{before:?}");
        assert_eq!(before.len(), FILE_TEXT_MAX_BYTES / (91 * 40_000));
        assert!(last.contains("33554432 bytes of text up to here"), "{last}");
        let mut size = Size::default();
        size.add(&serde_json::json!({"ab": ["c", 1, null], "d": {}}));
        assert_eq!((size.nodes, size.text_bytes), (6, 4));
    }
}
