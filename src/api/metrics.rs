//! `GET /metrics/probes`: kubelet's metrics of probes, under kubelet's path and names (kubelet-semantics 16).
//!
//! Written here since the libraries keep a registry of their own and write OpenMetrics, whose names and bounds look
//! different; and an answer of 100,000 probes has to be told in chunks.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use crossbeam::channel::RecvTimeoutError;
use probe_core::model::limits::SCRAPE_WAIT;
use probe_core::model::pod::PodSpec;
use probe_core::model::tally::Tallied;
use tokio::sync::mpsc::Sender;

use super::error::ApiError;
use super::{Parts, Served, stream};
use crate::store::Store;

/// Prometheus' text format, as kubelet answers whoever asks for nothing else.
const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Text that is handed over at a time: with many pods the whole is large.
const CHUNK_BYTES: usize = 64 * 1024;

pub async fn probes(State(api): State<Arc<Served>>) -> Result<Response, ApiError> {
    let parts = api.backend.tallies().ok_or(ApiError::Unavailable("as many ask for metrics as may"))?;
    let store = api.store.clone();
    let (chunks, body) = stream::body();
    let (found, answer) = tokio::sync::oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let told = parts.iter().map(collect).collect::<Option<Vec<_>>>();
        let is_whole = told.is_some();
        // Whoever asked may have gone away.
        if found.send(is_whole).is_ok() && is_whole {
            write(series(&store, told.into_iter().flatten().flatten()), chunks);
        }
    });
    if !answer.await.unwrap_or(false) {
        return Err(ApiError::Unavailable("a probe engine has not told its counters in time"));
    }
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response())
}

/// All that one engine tells. None when it does not come in time.
fn collect(parts: &Parts) -> Option<Vec<Tallied>> {
    let mut all = Vec::new();
    loop {
        match parts.recv_timeout(SCRAPE_WAIT) {
            Ok(part) => all.extend(part),
            Err(RecvTimeoutError::Disconnected) => return Some(all),
            Err(RecvTimeoutError::Timeout) => return None,
        }
    }
}

/// One probe with the pod it is of.
#[derive(Debug)]
struct Series {
    pod: Arc<PodSpec>,
    told: Tallied,
}

/// By pod, container and kind. A probe whose pod has gone meanwhile is left out.
fn series(store: &Store, told: impl Iterator<Item = Tallied>) -> Vec<Series> {
    let pods = store.pods(None);
    let by_uid: HashMap<_, _> =
        pods.items.iter().map(|pod| (pod.snapshot.spec.uid, &pod.snapshot.spec)).collect();
    let known = told.filter_map(|told| {
        let pod = by_uid.get(&told.pod)?;
        (told.container.at() < pod.containers.len()).then(|| Series { pod: Arc::clone(pod), told })
    });
    let mut all: Vec<Series> = known.collect();
    all.sort_by(|a, b| a.place().cmp(&b.place()));
    all
}

impl Series {
    fn place(&self) -> impl Ord + '_ {
        let told = &self.told;
        (&self.pod.namespace, &self.pod.name, told.container.at(), told.kind.as_str())
    }

    fn container(&self) -> &str {
        &self.pod.containers[self.told.container.at()].name
    }

    /// Their alphabets (RFC 1123 labels) have nothing that the format would have escaped.
    fn labels(&self) -> Labels<'_> {
        Labels {
            container: self.container(),
            namespace: &self.pod.namespace,
            pod: &self.pod.name,
            kind: self.told.kind.as_str(),
        }
    }
}

struct Labels<'a> {
    container: &'a str,
    namespace: &'a str,
    pod: &'a str,
    kind: &'a str,
}

fn write(series: Vec<Series>, chunks: Sender<Bytes>) {
    let mut out = Out { text: String::with_capacity(CHUNK_BYTES), chunks };
    // It fails only where the client has gone away.
    let _told =
        totals(&series, &mut out).and_then(|()| durations(&series, &mut out)).and_then(|()| out.flush());
}

fn totals(all: &[Series], out: &mut Out) -> fmt::Result {
    head(
        out,
        "prober_probe_total",
        "counter",
        "Cumulative number of a liveness, readiness or startup probe for a container by result.",
    )?;
    for series in all {
        let tally = &series.told.tally;
        let results = [("failed", tally.failed()), ("successful", tally.succeeded())];
        // A result that never came has no series, as in kubelet.
        for (result, count) in results.into_iter().filter(|(_, count)| *count > 0) {
            let Labels { container, namespace, pod, kind } = series.labels();
            writeln!(
                out,
                "prober_probe_total{{container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\",\
                 pod_uid=\"{}\",probe_type=\"{kind}\",result=\"{result}\"}} {count}",
                series.pod.uid
            )?;
        }
    }
    Ok(())
}

fn durations(all: &[Series], out: &mut Out) -> fmt::Result {
    const NAME: &str = "prober_probe_duration_seconds";
    head(out, NAME, "histogram", "Duration in seconds for a probe response.")?;
    for series in all.iter().filter(|series| series.told.tally.succeeded() > 0) {
        let tally = &series.told.tally;
        let Labels { container, namespace, pod, kind } = series.labels();
        let labels = format!(
            "container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\",probe_type=\"{kind}\""
        );
        let mut count = 0;
        for (bound, runs) in tally.classes() {
            count += runs;
            match bound.map(|bound| bound.as_secs_f64()) {
                Some(bound) => writeln!(out, "{NAME}_bucket{{{labels},le=\"{bound}\"}} {count}")?,
                None => writeln!(out, "{NAME}_bucket{{{labels},le=\"+Inf\"}} {count}")?,
            }
        }
        writeln!(out, "{NAME}_sum{{{labels}}} {}", tally.took().as_secs_f64())?;
        writeln!(out, "{NAME}_count{{{labels}}} {count}")?;
    }
    Ok(())
}

fn head(out: &mut Out, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

/// Text on its way to the client, in chunks.
struct Out {
    text: String,
    chunks: Sender<Bytes>,
}

impl Out {
    fn flush(&mut self) -> fmt::Result {
        let text = std::mem::replace(&mut self.text, String::with_capacity(CHUNK_BYTES));
        self.chunks.blocking_send(Bytes::from(text)).map_err(|_| fmt::Error)
    }
}

impl Write for Out {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.text.push_str(part);
        if self.text.len() < CHUNK_BYTES { Ok(()) } else { self.flush() }
    }
}
