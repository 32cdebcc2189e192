//! EADDRNOTAVAIL has two meanings: this host has no port left, which says nothing about the target, or no address to
//! reach it from, which is so until somebody changes the one or the other.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use probe_core::engine::once;
use probe_core::model::probe::{Host, RunResult, Target, TcpClose, TcpTarget, Verdict};
use probe_core::ring::RingKind;
use probe_core::sys::clock;
use test_support::NetNs;

const RINGS: [RingKind; 2] = [RingKind::Uring, RingKind::Epoll];
const NO_ADDRESS: &str = "cannot assign requested address";

fn probe(ring: RingKind, ip: IpAddr, port: u16) -> RunResult {
    let target = Target::Tcp(TcpTarget { host: Host::Ip(ip), port, close: TcpClose::Reset });
    once(ring, Arc::new(target), Duration::from_secs(5), clock::now).expect("a ring")
}

#[track_caller]
fn check(result: &RunResult, verdict: Verdict) {
    assert_eq!(result.verdict, verdict, "{result:?}");
    assert!(result.detail.as_deref().is_some_and(|text| text.contains(NO_ADDRESS)), "{result:?}");
}

#[test]
fn without_an_address_of_its_family_a_target_fails() {
    NetNs::new().inside(|| {
        fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").expect("a namespace of our own");
        for ring in RINGS {
            check(&probe(ring, Ipv6Addr::LOCALHOST.into(), 80), Verdict::Failure);
        }
    });
}

#[test]
fn without_a_free_port_nobody_fails() {
    NetNs::new().inside(|| {
        // Two ports, so that there is one of each parity, between which the kernel chooses.
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40001").expect("a namespace of our own");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 9_000)).expect("a free port");
        let addr = listener.local_addr().expect("a bound socket");
        let taken = [(); 2].map(|()| TcpStream::connect(addr).expect("a port is left"));
        for ring in RINGS {
            check(&probe(ring, addr.ip(), addr.port()), Verdict::Errored);
        }
        drop(taken);
    });
}
