//! HTTPS, Unix sockets, kept connections and milliseconds, from the manifest to the restart.

use std::fs;

use test_support::{AFTER_A_WHILE, SOON, World};

/// 503 once the file `sick` is there.
const HANDLER: &str = "
import http.server, os, socketserver, ssl
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        self.send_response(503 if os.path.exists('sick') else 200)
        self.send_header('Content-Length', '0')
        self.end_headers()
    def log_message(self, *args):
        pass
";

const WEB: &str = "
server = http.server.ThreadingHTTPServer(('127.0.0.1', 8443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('cert.pem', 'key.pem')
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
";

/// Counts connections in its log.
const CACHE: &str = "
class Server(socketserver.ThreadingUnixStreamServer):
    def get_request(self):
        request, _ = super().get_request()
        print('connection', flush=True)
        return request, ('local', 0)
if os.path.exists('cache.sock'):
    os.unlink('cache.sock')
Server('cache.sock', Handler).serve_forever()
";

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: shop
  annotations:
    defib.dev/startup.period-ms: "50"
    defib.dev/liveness.period-ms: "50"
    web.defib.dev/liveness.timeout-ms: "2500"
    web.defib.dev/liveness.tls-verify: "true"
    web.defib.dev/liveness.tls-ca: cert.pem
    web.defib.dev/liveness.tls-server-name: shop.example.com
    cache.defib.dev/startup.unix-socket: home/cache.sock
    cache.defib.dev/liveness.unix-socket: home/cache.sock
    cache.defib.dev/liveness.keep-alive: "true"
spec:
  terminationGracePeriodSeconds: 2
  containers:
    - name: web
      command: [python3, web.py]
      workingDir: .
      ports: [{name: https, containerPort: 8443}]
      startupProbe: {httpGet: {scheme: HTTPS, port: https}, failureThreshold: 600}
      livenessProbe: {httpGet: {scheme: HTTPS, port: https}}
    - name: cache
      command: [python3, cache.py]
      workingDir: home
      startupProbe: {tcpSocket: {port: 1}, failureThreshold: 600}
      livenessProbe: {httpGet: {port: 1, path: /healthz}, timeoutSeconds: 20}
"#;

#[test]
fn probes_over_tls_and_unix_sockets_every_fifty_milliseconds() {
    let world = World::new();
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["shop.example.com".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    world.write("cert.pem", &certificate.pem());
    world.write("key.pem", &key.serialize_pem());
    world.write("web.py", &format!("{HANDLER}{WEB}"));
    fs::create_dir(world.dir().join("home")).expect("a folder");
    world.write("home/cache.py", &format!("{HANDLER}{CACHE}"));
    let pod = world.write("pod.yaml", POD);
    let mut agent = world.run(&[&pod], &["--strict"]);
    agent.wait_for("Started container cache", SOON);
    test_support::eventually("both containers are ready", AFTER_A_WHILE, || {
        let ready = |name| world.container_status("shop", name)["ready"] == true;
        (ready("web") && ready("cache")).then_some(())
    });
    let describe = world.defib(&["describe", "pod", "shop"]).stdout;
    for line in [
        "http-get https://:https/ delay=0s timeout=2500ms period=50ms #success=1 #failure=3",
        "http-get http://:1/healthz delay=0s timeout=20s period=50ms #success=1 #failure=3",
        "tcp-socket :1 delay=0s timeout=1s period=50ms #success=1 #failure=600",
    ] {
        assert!(describe.contains(line), "{line:?} is not in\n{describe}");
    }
    let probe = world.defib(&["probe", "https://127.0.0.1:8443/"]);
    assert_eq!(probe.code, 0, "{}{}", probe.stdout, probe.stderr);
    let probe = world.defib(&["probe", "shop", "cache"]);
    assert_eq!(probe.code, 0, "{}{}", probe.stdout, probe.stderr);

    let before = agent.events().all().len();
    world.write("sick", "");
    let failed = "Liveness probe failed: HTTP probe failed with statuscode: 503";
    agent.wait_from(before, failed, AFTER_A_WHILE);
    agent.wait_from(before, "Container web failed liveness probe, will be restarted", AFTER_A_WHILE);
    fs::remove_file(world.dir().join("sick")).expect("it is there");
    agent.wait_from(before, "Started container web", AFTER_A_WHILE);
    assert_eq!(world.container_status("shop", "cache")["restartCount"], 0, "{}", agent.printed());
    // One connection by the startup probe that succeeded, one by the agent's own probe, one that is kept.
    let log = world.defib(&["logs", "shop", "-c", "cache"]).stdout;
    let connections = log.lines().filter(|line| *line == "connection").count();
    assert!((2..=4).contains(&connections), "{connections} connections\n{log}");
    assert_eq!(agent.terminate(), 0);
    world.assert_nothing_left();
}

#[test]
fn the_node_sets_the_floor_of_periods() {
    let world = World::new();
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: p, annotations: {defib.dev/liveness.period-ms: '5'}}, \
               spec: {containers: [{name: c, command: [x], livenessProbe: {tcpSocket: {port: 1}}}]}}";
    let pod = world.write("pod.yaml", pod);
    let refused = world.defib(&["validate", "-f", &pod]);
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    let text = "metadata.annotations[defib.dev/liveness.period-ms]: Invalid value: \"5\": below this node's floor of \
                10 ms: give at least 10, or start defib with --min-probe-period-ms 5";
    assert!(refused.stderr.contains(text), "{}", refused.stderr);
    let accepted = world.defib(&["validate", "-f", &pod, "--min-probe-period-ms", "5"]);
    assert_eq!(accepted.code, 0, "{}", accepted.stderr);
}
