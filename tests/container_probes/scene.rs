//! A pod with one probed container, which is a regular one or a sidecar beside one that sleeps.

use std::time::Duration;

use serde_json::{Value, json};
use test_support::pace::{self, patience};
use test_support::{Agent, World, eventually, pass};

/// What upstream's test images do, on 8080: well for so many seconds, then 500 for ever, and redirects.
const APP: &str = r#"
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

well_until = time.monotonic() + float(sys.argv[1])

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == '/redirect':
            to = parse_qs(url.query)['loc'][0]
            self.answer(302, '<a href="%s">Found</a>.\n\n' % to, to)
        elif url.path == '/healthz' and time.monotonic() > well_until:
            self.answer(500, 'error')
        else:
            self.answer(200, 'ok')

    def answer(self, code, body, location=None):
        self.send_response(code)
        if location:
            self.send_header('Location', location)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args):
        pass

ThreadingHTTPServer(('0.0.0.0', 8080), Handler).serve_forever()
"#;

/// Seconds that upstream watches: whether a container is restarted, and whether a pod gets ready.
const WATCHED_S: u64 = 240;
const WATCHED_FOR_READY_S: u64 = 60;
/// Of a probe that says nothing else, the default.
const PERIOD_S: u64 = 10;
/// Upstream's app is well for so long.
const WELL_S: u64 = 10;
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What kind of container is probed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    Regular,
    Sidecar,
}

pub struct Scene {
    world: World,
    agent: Agent,
}

/// A container that runs `script`; `$DIR` is a folder that outlives it.
pub fn sh(script: &str) -> Value {
    json!({"command": ["/bin/sh", "-c", script]})
}

/// The app, which is well for a while.
pub fn app() -> Value {
    sh(&format!("exec python3 $DIR/app.py {}", pace::seconds(WELL_S)))
}

/// `container` with a probe of this kind; the default period where none is given.
pub fn probed(mut container: Value, kind: &str, mut probe: Value) -> Value {
    if probe["periodSeconds"].is_null() {
        probe["periodSeconds"] = json!(pace::seconds(PERIOD_S));
    }
    container[kind] = probe;
    container
}

/// A probe that runs a command.
pub fn exec(command: &[&str], mut fields: Value) -> Value {
    fields["exec"] = json!({"command": command});
    fields
}

/// One that gets a path from 8080.
pub fn get(path: &str, mut fields: Value) -> Value {
    fields["httpGet"] = json!({"path": path, "port": 8080});
    fields
}

impl Scene {
    pub fn new(kind: Kind, container: Value, args: &[&str]) -> Scene {
        Scene::in_pod(kind, container, 2, args)
    }

    /// With this grace period of the pod.
    pub fn in_pod(kind: Kind, mut container: Value, grace_s: u32, args: &[&str]) -> Scene {
        let world = World::new();
        world.write("app.py", APP);
        container["name"] = json!("c");
        container["env"] = json!([{"name": "DIR", "value": world.dir()}]);
        let spec = match kind {
            Kind::Regular => json!({"containers": [container], "terminationGracePeriodSeconds": grace_s}),
            Kind::Sidecar => {
                container["restartPolicy"] = json!("Always");
                let main = json!({"name": "main", "command": ["sleep", "100000"]});
                json!({
                    "initContainers": [container], "containers": [main],
                    "terminationGracePeriodSeconds": grace_s,
                })
            }
        };
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec});
        let file = world.write("pod.yaml", &pod.to_string());
        let agent = world.run(&[&file], args);
        Scene { world, agent }
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    pub fn status(&self) -> Value {
        self.world.container_status("p", "c")
    }

    fn restarts(&self) -> u64 {
        self.status()["restartCount"].as_u64().unwrap_or_default()
    }

    /// A condition of the pod.
    pub fn condition(&self, kind: &str) -> Value {
        let pods = self.world.get_json("pods");
        let conditions = pods["items"][0]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
    }

    pub fn is_ready(&self) -> bool {
        self.status()["ready"] == true
    }

    pub fn events(&self) -> Vec<String> {
        self.agent.events().all()
    }

    /// It is ready in the end.
    pub fn gets_ready(&self, id: &str) {
        eventually(&format!("{id}: it is ready"), patience(), || self.is_ready().then_some(()));
    }

    /// The container is restarted so often in the end, and the count only grows.
    pub fn restarts_to(mut self, id: &str, count: u64) {
        let mut before = 0;
        eventually(&format!("{id}: {count} restarts"), patience(), || {
            let now = self.restarts();
            assert!(now >= before, "{id}: {now} restarts after {before}");
            before = now;
            (now >= count).then_some(())
        });
        self.end(id);
    }

    /// As [`Scene::restarts_to`] once; what ignores signals is killed, also in the end.
    pub fn restarts_and_is_killed(mut self, id: &str) {
        eventually(&format!("{id}: a restart"), patience(), || (self.restarts() > 0).then_some(()));
        let uid = self.world.get_json("pods")["items"][0]["metadata"]["uid"].clone();
        assert!(uid.is_string(), "{id}");
        // The pod's own grace period is long.
        let done = self.world.defib(&["delete", "pod", "p", "--force"]);
        assert_eq!(done.code, 0, "{id}: {}", done.stderr);
        self.ends_by_itself(id);
    }

    /// Its only pod was deleted: the agent ends with it.
    pub fn ends_by_itself(&mut self, id: &str) {
        assert_eq!(self.agent.wait(), 0, "{id}: {}", self.agent.printed());
        self.world.assert_nothing_left();
    }

    /// It runs all the time, and is not restarted.
    pub fn keeps_running(mut self, id: &str) {
        self.watch(Duration::from_secs(pace::seconds(WATCHED_S)), |scene| {
            assert_eq!(scene.restarts(), 0, "{id}: {}", scene.agent.printed());
        });
        self.end(id);
    }

    /// It is not ready at any time, and not restarted.
    pub fn never_gets_ready(mut self, id: &str) {
        self.watch(Duration::from_secs(pace::seconds(WATCHED_FOR_READY_S)), |scene| {
            assert!(!scene.is_ready(), "{id}: {}", scene.agent.printed());
        });
        assert_eq!(self.restarts(), 0, "{id}: {}", self.agent.printed());
        self.end(id);
    }

    /// Looks for so long, since what must not happen announces nothing.
    pub fn watch(&self, length: Duration, mut look: impl FnMut(&Scene)) {
        for _ in 0..length.as_millis() / LOOK_EVERY.as_millis() {
            look(self);
            pass(LOOK_EVERY);
        }
    }

    pub fn end(&mut self, id: &str) {
        assert_eq!(self.agent.terminate(), 0, "{id}: {}", self.agent.printed());
        self.world.assert_nothing_left();
    }
}
