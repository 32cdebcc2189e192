//! The demo server of the first example: well, then wedged, and ended by SIGTERM.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use test_support::World;

#[test]
fn wedge_answers_then_accepts_and_says_nothing() {
    let world = World::new();
    let mut demo = Command::new(world.binary());
    demo.args(["demo", "wedge", "--port", "18080", "--healthy-for", "2s"]).stdout(Stdio::piped());
    let mut demo = world.net().inside(|| demo.spawn()).expect("defib demo starts");
    let mut lines = BufReader::new(demo.stdout.take().expect("its output is piped")).lines();
    let mut line = || lines.next().expect("a line").expect("readable output");

    assert_eq!(line(), "demo: listening on 127.0.0.1:18080, well for 2s");
    let well = world.http("GET", 18080, "/").expect("an answer while it is well");
    assert_eq!((well.status, well.body.as_str()), (200, "ok\n"));
    assert_eq!(line(), "demo: wedged: connections are accepted, and none is answered");
    let error = world.net().inside(|| {
        let mut client = TcpStream::connect(("127.0.0.1", 18080)).expect("it still accepts");
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it still takes bytes");
        client.set_read_timeout(Some(Duration::from_millis(300))).expect("a positive timeout");
        client.read(&mut [0; 1]).expect_err("no answer may come")
    });
    assert_eq!(error.kind(), ErrorKind::WouldBlock);

    kill_process(Pid::from_child(&demo), Signal::TERM).expect("it runs");
    assert_eq!(demo.wait().expect("it ends").signal(), Some(15));
    world.assert_nothing_left();
}

#[test]
fn wedge_can_close_its_port_instead() {
    let world = World::new();
    let mut demo = Command::new(world.binary());
    let args = ["demo", "wedge", "--port", "18081", "--healthy-for", "0s", "--then", "refuse"];
    let mut demo = world.net().inside(|| demo.args(args).stdout(Stdio::piped()).spawn()).expect("it starts");
    let lines = BufReader::new(demo.stdout.take().expect("its output is piped")).lines();
    let last = lines.take(2).last().expect("two lines").expect("readable output");

    assert_eq!(last, "demo: wedged: the port is closed");
    let error = world.http("GET", 18081, "/").expect_err("the port is closed");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    demo.kill().expect("it runs");
    demo.wait().expect("it ends");
}

#[test]
fn a_taken_port_is_named() {
    let world = World::new();
    let _holder = world.net().inside(|| std::net::TcpListener::bind("127.0.0.1:18080")).expect("a free port");
    let done = world.defib(&["demo", "wedge", "--port", "18080"]);
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("cannot listen on 127.0.0.1:18080"), "{}", done.stderr);
}
