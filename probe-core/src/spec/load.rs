//! The whole way from files to pods, and the rules that only show across pods.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::annotations::{Authorities, Context};
use super::decode::{self, Decoded};
use super::error::{LoadErrors, NotHonoured, Place, Problem};
use super::{convert, default, honour, source, validate};
use crate::model::id::PodUid;
use crate::model::limits::{POD_CONTAINERS_MAX, PODS_MAX};
use crate::model::pod::{PodSpec, Protocol};

/// `defib.dev/<key>` that names the folder which relative commands count from.
pub const BASE_DIR_KEY: &str = "base-dir";
const BASE_DIR: &str = "defib.dev/base-dir";

/// How manifests are read.
pub struct LoadOptions<'a> {
    /// A field that is not honoured is an error.
    pub strict: bool,
    /// For probes that give no `initialDelaySeconds`; Kubernetes has zero. Whole seconds.
    pub default_initial_delay: Duration,
    /// Smallest period of a probe that this node allows. Whole milliseconds.
    pub min_probe_period: Duration,
    /// A new uid for every pod.
    pub new_uid: &'a mut dyn FnMut() -> PodUid,
}

/// Pods and what of them has no effect.
#[derive(Debug)]
pub struct Loaded {
    pub pods: Vec<PodSpec>,
    pub not_honoured: Vec<NotHonoured>,
}

/// One pod, the same way.
#[derive(Debug)]
pub struct LoadedPod {
    pub spec: PodSpec,
    pub not_honoured: Vec<NotHonoured>,
}

/// Loads files, folders and `-`.
///
/// # Errors
/// Everything that is wrong in any of them, at once; then nothing is loaded.
pub fn load_files(
    paths: &[PathBuf],
    stdin: &mut dyn Read,
    options: &mut LoadOptions<'_>,
) -> Result<Loaded, LoadErrors> {
    let mut problems = Vec::new();
    let mut loaded = Loaded { pods: Vec::new(), not_honoured: Vec::new() };
    let mut places = Vec::new();
    let mut authorities = Authorities::default();
    for source in source::read_all(paths, stdin, &mut problems) {
        for decoded in decode::decode(&source, &mut problems) {
            let place = decoded.place.clone();
            let folder = source.folder.clone();
            let found = &mut loaded.not_honoured;
            if let Some(pod) = take(decoded, folder, options, &mut authorities, &mut problems, found) {
                loaded.pods.push(pod);
                places.push(place);
            }
        }
    }
    across(&loaded.pods, &places, &mut problems);
    if problems.is_empty() { Ok(loaded) } else { Err(LoadErrors { problems }) }
}

/// What a request says of a pod besides its body.
#[derive(Copy, Clone, Debug)]
pub struct JsonContext<'a> {
    /// Of the request's path; a body that names another one is wrong.
    pub namespace: &'a str,
    /// What relative commands count from; None: the root.
    pub base_dir: Option<&'a Path>,
}

/// Loads one pod that came over the API.
///
/// # Errors
/// Everything that is wrong with it.
pub fn pod_from_json(
    bytes: &[u8],
    context: &JsonContext<'_>,
    options: &mut LoadOptions<'_>,
) -> Result<LoadedPod, LoadErrors> {
    let place = Place { file: "request".to_owned(), document: None, item: None };
    let mut problems = Vec::new();
    let mut not_honoured = Vec::new();
    let folder = context.base_dir.unwrap_or(Path::new("/")).to_owned();
    let decoded = serde_json::from_slice::<Value>(bytes)
        .map_err(|error| vec![format!("not valid JSON: {error}")])
        .and_then(|value| decode::pod(&place, value));
    let spec = match decoded {
        Ok(mut decoded) => {
            let namespace =
                decoded.pod.metadata.namespace.get_or_insert_with(|| context.namespace.to_owned());
            if namespace != context.namespace {
                let text = format!(
                    "metadata.namespace: Invalid value: {namespace:?}: does not match the namespace of the request"
                );
                problems.push(Problem { place, text });
            }
            take(decoded, folder, options, &mut Authorities::default(), &mut problems, &mut not_honoured)
        }
        Err(texts) => {
            problems.extend(texts.into_iter().map(|text| Problem { place: place.clone(), text }));
            None
        }
    };
    match spec {
        Some(spec) if problems.is_empty() => Ok(LoadedPod { spec, not_honoured }),
        Some(_) | None => Err(LoadErrors { problems }),
    }
}

/// Defaults, validates and converts one pod. None: something is wrong, and noted.
fn take(
    decoded: Decoded,
    folder: PathBuf,
    options: &mut LoadOptions<'_>,
    authorities: &mut Authorities,
    problems: &mut Vec<Problem>,
    not_honoured: &mut Vec<NotHonoured>,
) -> Option<PodSpec> {
    let Decoded { place, mut pod, unknown, left_out } = decoded;
    let before = problems.len();
    let mut problem = |text: String| problems.push(Problem { place: place.clone(), text });
    left_out.into_iter().for_each(&mut problem);
    for path in unknown {
        problem(format!("strict decoding error: unknown field \"{path}\""));
    }
    let delay_s = i32::try_from(options.default_initial_delay.as_secs()).unwrap_or(i32::MAX);
    default::apply(&mut pod, delay_s);
    let given = pod.metadata.annotations.as_ref().and_then(|all| all.get(BASE_DIR)).map(PathBuf::from);
    let folder = given.unwrap_or(folder);
    let mut context = Context { min_probe_period: options.min_probe_period, folder: &folder, authorities };
    for text in validate::pod(&pod, &mut context) {
        problem(text);
    }
    let containers = pod
        .spec
        .as_ref()
        .map_or(0, |spec| spec.containers.len() + spec.init_containers.as_ref().map_or(0, Vec::len));
    if containers > POD_CONTAINERS_MAX {
        problem(format!(
            "spec.containers: Too many: {containers}: must have at most {POD_CONTAINERS_MAX} items"
        ));
    }
    for (path, why) in honour::not_honoured(&pod) {
        if options.strict {
            problem(format!("{path}: Forbidden: {why} (--strict)"));
        } else {
            not_honoured.push(NotHonoured { place: place.clone(), path, why });
        }
    }
    if problems.len() > before {
        return None;
    }
    Some(convert::pod(pod, (options.new_uid)(), &mut context))
}

/// Names and ports across all pods of the load (design 9.4).
fn across(pods: &[PodSpec], places: &[Place], problems: &mut Vec<Problem>) {
    let mut names = BTreeMap::new();
    let mut ports: BTreeMap<(u16, u8), Vec<(String, String)>> = BTreeMap::new();
    for (pod, place) in pods.iter().zip(places) {
        let mut problem = |text: String| problems.push(Problem { place: place.clone(), text });
        let first = *names.entry((&pod.namespace, &pod.name)).or_insert(place);
        if !std::ptr::eq(first, place) {
            let name = format!("{}/{}", pod.namespace, pod.name);
            let text = format!("metadata.name: Duplicate value: {name:?}: the pod is defined twice");
            problem(match first == place {
                true => format!("{text}: {} is given more than once", place.file),
                false => format!("{text}, first in {first}"),
            });
            // That it wants its own ports again says nothing new.
            continue;
        }
        for container in &pod.containers {
            for port in &container.ports {
                let number = port.host_port.unwrap_or(port.container_port);
                let protocol = match port.protocol {
                    Protocol::Tcp => 0,
                    Protocol::Udp => 1,
                    Protocol::Sctp => 2,
                };
                let ip = port.host_ip.as_deref().unwrap_or("0.0.0.0").to_owned();
                let who = format!("container {} of pod {}/{}", container.name, pod.namespace, pod.name);
                let taken = ports.entry((number, protocol)).or_default();
                let clash = taken.iter().find(|(other, _)| *other == ip || is_any(other) || is_any(&ip));
                if let Some((_, other)) = clash {
                    problem(format!(
                        "port {number} is wanted by {who} and by {other}: containers share the host's network, \
                         so they would answer for each other"
                    ));
                }
                taken.push((ip, who));
            }
        }
    }
    if pods.len() > PODS_MAX
        && let Some(place) = places.last()
    {
        let text = format!("{} pods: at most {PODS_MAX} can be run", pods.len());
        problems.push(Problem { place: place.clone(), text });
    }
}

fn is_any(ip: &str) -> bool {
    matches!(ip, "" | "0.0.0.0" | "::")
}
