//! A served API and a small client.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use probe_core::model::id::{ContainerIx, PodUid};
use probe_core::model::pod::PodSpec;
use probe_core::model::probe::{Phases, ProbeKind, RunResult, Verdict};
use probe_core::model::status::{Deletion, PodSnapshot};
use probe_core::model::tally::Tallied;
use probe_core::model::time::Mono;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::api::{Api, Backend, Cause, Manifest, Parts, ProbeNow, Refusal, Socket, serve};
use crate::files;
use crate::logs::LogDoor;
use crate::store::samples::{running, spec, wall};
use crate::store::{Store, StoreUpdate};

/// resourceVersion before anything happened.
pub const START: u64 = 1_000;

/// An agent that accepts everything at once; a delete with a grace period ends when the test says so.
pub struct FakeAgent {
    store: Store,
    uids: Mutex<u128>,
    /// What the next write is refused with.
    pub refusal: Mutex<Option<Refusal>>,
    pub deletes: Mutex<Vec<Option<u32>>>,
    pub base_dirs: Mutex<HashMap<PodUid, String>>,
    /// What the engines tell; None: too many ask.
    pub tallies: Mutex<Option<Vec<Vec<Tallied>>>>,
}

impl FakeAgent {
    fn refuse(&self) -> Result<(), Refusal> {
        self.refusal.lock().unwrap().take().map_or(Ok(()), Err)
    }

    fn publish(&self, snapshot: PodSnapshot) {
        self.store.apply(StoreUpdate::Status(Box::new(snapshot)));
    }
}

impl Backend for FakeAgent {
    fn parse(&self, manifest: &Manifest<'_>) -> Result<PodSpec, Vec<Cause>> {
        let pod: Value = serde_json::from_slice(manifest.body).unwrap();
        let containers: Vec<&str> = pod["spec"]["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|container| container["name"].as_str())
            .collect();
        if containers.is_empty() {
            let cause = |reason: &str, field: &str, message: &str| Cause {
                reason: reason.into(),
                field: field.into(),
                message: message.into(),
            };
            return Err(vec![cause("FieldValueRequired", "spec.containers", "Required value")]);
        }
        let uid = manifest.uid.map_or_else(
            || {
                let mut uids = self.uids.lock().unwrap();
                *uids += 1;
                *uids
            },
            |uid| uid.0,
        );
        let mut spec = spec(uid, pod["metadata"]["name"].as_str().unwrap(), &containers);
        spec.base_dir = manifest.base_dir.unwrap_or(Path::new("/none")).to_owned();
        self.base_dirs.lock().unwrap().insert(spec.uid, spec.base_dir.display().to_string());
        let mut defaulted: Value = serde_json::from_str(&spec.manifest_json).unwrap();
        for (key, value) in pod["spec"].as_object().unwrap() {
            defaulted["spec"][key] = value.clone();
        }
        if let Some(labels) = pod["metadata"].get("labels") {
            defaulted["metadata"]["labels"] = labels.clone();
        }
        spec.manifest_json = defaulted.to_string().into();
        Ok(spec)
    }

    fn create(&self, spec: PodSpec) -> Result<(), Refusal> {
        self.refuse()?;
        self.publish(running(spec));
        Ok(())
    }

    fn update(&self, _: &PodSpec, spec: PodSpec) -> Result<(), Refusal> {
        self.refuse()?;
        self.publish(running(spec));
        Ok(())
    }

    fn delete(&self, pod: PodUid, grace_s: Option<u32>) -> Result<(), Refusal> {
        self.refuse()?;
        self.deletes.lock().unwrap().push(grace_s);
        let mut snapshot = (*self.store.pod_by_uid(pod).ok_or(Refusal::Gone)?.snapshot).clone();
        if grace_s == Some(0) {
            self.store.apply(StoreUpdate::PodGone(pod));
        } else {
            let grace_s = grace_s.unwrap_or(30);
            snapshot.status.deletion = Some(Deletion { at: wall(60), grace_s });
            self.publish(snapshot);
        }
        Ok(())
    }

    fn tallies(&self) -> Option<Vec<Parts>> {
        let engine = |told: &Vec<Tallied>| {
            let (to, parts) = crossbeam::channel::bounded(told.len());
            told.chunks(1).for_each(|part| to.send(part.to_vec()).unwrap());
            parts
        };
        self.tallies.lock().unwrap().as_ref().map(|engines| engines.iter().map(engine).collect())
    }

    fn probe_now(&self, _: PodUid, container: ContainerIx, kind: ProbeKind) -> ProbeNow {
        let at = |us: u64| Mono::from_ns(1_000_000 + us * 1_000);
        let phases = Phases { due: at(0), connected: Some(at(40)), done: at(90), ..Phases::default() };
        Box::pin(async move {
            match kind {
                ProbeKind::Liveness => {
                    Ok(RunResult { verdict: Verdict::Failure, detail: Some("HTTP 503".into()), phases })
                }
                ProbeKind::Readiness | ProbeKind::Startup => {
                    Err(format!("{container:?} is not running").into())
                }
            }
        })
    }
}

pub struct World {
    pub dir: TempDir,
    pub store: Store,
    pub agent: Arc<FakeAgent>,
    last: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

/// An answer with a JSON body.
#[derive(Debug)]
pub struct Answer {
    pub code: StatusCode,
    pub body: Value,
}

impl Answer {
    /// Checks code, reason and message of a `Status`.
    #[track_caller]
    pub fn assert_error(&self, code: u16, reason: &str, message: &str) {
        let field = |name: &str| self.body[name].as_str().unwrap_or_default();
        assert_eq!((field("kind"), self.code.as_u16()), ("Status", code), "{:?}", self.body);
        assert_eq!((field("reason"), field("message")), (reason, message));
        assert_eq!(self.body["code"], code);
    }
}

/// Runs `test` while the API is served.
pub fn with_api<F: Future<Output = ()>>(test: impl FnOnce(Arc<World>) -> F) {
    let main = |io| async move {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(START);
        let agent = Arc::new(FakeAgent {
            store: store.clone(),
            uids: Mutex::new(0),
            refusal: Mutex::default(),
            deletes: Mutex::default(),
            base_dirs: Mutex::default(),
            tallies: Mutex::default(),
        });
        let (logs, worker) = LogDoor::new(dir.path(), io);
        let socket = Socket::bind(&dir.path().join("defib.sock")).unwrap();
        let backend: Arc<dyn Backend> = Arc::clone(&agent) as Arc<dyn Backend>;
        let api = Api { store: store.clone(), backend, logs, node_name: "node-1".into() };
        let world = Arc::new(World { dir, store, agent, last: Mutex::default() });
        let (stop, stopped) = oneshot::channel::<()>();
        let worker = tokio::task::spawn_local(worker.run());
        let server = tokio::task::spawn_local(async move {
            let stop = async { stopped.await.unwrap() };
            serve(&socket, api, stop).await.unwrap();
        });
        test(Arc::clone(&world)).await;
        stop.send(()).unwrap();
        server.await.unwrap();
        worker.await.unwrap();
        let last = world.last.lock().unwrap().take();
        if let Some(last) = last {
            last.await.unwrap();
        }
        assert!(!world.dir.path().join("defib.sock").exists(), "the socket's file is removed");
    };
    files::block_on(main).unwrap();
}

impl World {
    /// Goes on while the server ends; the test waits for it.
    pub fn finish_with(&self, last: impl Future<Output = ()> + 'static) {
        *self.last.lock().unwrap() = Some(tokio::task::spawn_local(last));
    }

    pub async fn connect(&self) -> http1::SendRequest<Full<Bytes>> {
        let stream = UnixStream::connect(self.dir.path().join("defib.sock")).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    pub async fn send(&self, method: &str, path: &str, body: &str) -> Response<Incoming> {
        let request = Request::builder().method(method).uri(path).header("host", "defib");
        let request = request.body(Full::from(body.to_owned())).unwrap();
        self.connect().await.send_request(request).await.unwrap()
    }

    pub async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        let answer = self.send(method, path, body).await;
        let code = answer.status();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        Answer { code, body: serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("{bytes:?}")) }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "").await
    }

    /// A running pod with these containers, as if the agent had published it.
    pub fn publish(&self, uid: u128, name: &str, containers: &[&str]) {
        self.publish_as(uid, name, containers, |_| ());
    }

    pub fn publish_as(
        &self,
        uid: u128,
        name: &str,
        containers: &[&str],
        edit: impl FnOnce(&mut PodSnapshot),
    ) {
        let mut snapshot = running(spec(uid, name, containers));
        edit(&mut snapshot);
        self.agent.publish(snapshot);
    }
}

/// The lines of a watch or of a followed log, as they come.
pub struct Stream {
    body: Incoming,
    rest: Vec<u8>,
}

impl Stream {
    pub fn of(answer: Response<Incoming>) -> Stream {
        assert_eq!(answer.status(), 200);
        Stream { body: answer.into_body(), rest: Vec::new() }
    }

    /// None at the end.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(String::from_utf8(line).unwrap().trim_end().to_owned());
            }
            let data = self.body.frame().await?.unwrap().into_data().unwrap();
            self.rest.extend_from_slice(&data);
        }
    }

    /// Type and object of the next watch event.
    pub async fn event(&mut self) -> (String, Value) {
        let line = self.line().await.expect("the watch goes on");
        let event: Value = serde_json::from_str(&line).unwrap();
        (event["type"].as_str().unwrap().to_owned(), event["object"].clone())
    }
}
