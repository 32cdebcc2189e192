//! `GET /metrics/probes`: kubelet's metrics of probes, under kubelet's path and names (kubelet-semantics 16).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use crossbeam::channel::RecvTimeoutError;
use probe_core::model::limits::SCRAPE_WAIT;
use probe_core::model::pod::PodSpec;
use probe_core::model::tally::Tallied;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc::Sender;

use super::error::ApiError;
use super::{Parts, Served, stream};
use crate::store::Store;

/// OpenMetrics, the successor of Prometheus' text format.
const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
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

    fn labels(&self) -> [(&str, &str); 4] {
        [
            ("container", self.container()),
            ("namespace", &self.pod.namespace),
            ("pod", &self.pod.name),
            ("probe_type", self.told.kind.as_str()),
        ]
    }
}

fn write(series: Vec<Series>, chunks: Sender<Bytes>) {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Probes(series)));
    let mut out = Out { text: String::with_capacity(CHUNK_BYTES), chunks };
    // It fails only where the client has gone away.
    if text::encode(&mut out, &registry).is_ok() {
        let _gone = out.flush();
    }
}

#[derive(Debug)]
struct Probes(Vec<Series>);

impl Collector for Probes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Cumulative number of a liveness, readiness or startup probe for a container by result.";
        let mut total = encoder.encode_descriptor("prober_probe", help, None, MetricType::Counter)?;
        for series in &self.0 {
            let uid = series.pod.uid.to_string();
            let results =
                [("successful", series.told.tally.succeeded()), ("failed", series.told.tally.failed())];
            // A result that never came has no series, as in kubelet.
            for (result, count) in results.into_iter().filter(|(_, count)| *count > 0) {
                let [container, namespace, pod, kind] = series.labels();
                let labels = [container, namespace, pod, ("pod_uid", &*uid), kind, ("result", result)];
                total.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        let help = "Duration in seconds for a probe response.";
        let name = "prober_probe_duration_seconds";
        let mut duration = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for series in &self.0 {
            let tally = &series.told.tally;
            if tally.succeeded() == 0 {
                continue;
            }
            let classes: Vec<(f64, u64)> = tally
                .classes()
                .map(|(bound, count)| (bound.map_or(f64::INFINITY, |bound| bound.as_secs_f64()), count))
                .collect();
            duration.encode_family(&series.labels())?.encode_histogram::<NoLabelSet>(
                tally.took().as_secs_f64(),
                tally.succeeded(),
                &classes,
                None,
            )?;
        }
        Ok(())
    }
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

impl fmt::Write for Out {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.text.push_str(part);
        if self.text.len() < CHUNK_BYTES { Ok(()) } else { self.flush() }
    }
}
