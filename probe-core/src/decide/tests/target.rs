//! Group RES, the request on the wire (HTTPX-08, HTTPX-09), redirects of group HTTP.

use std::net::{IpAddr, SocketAddr};

use super::world::container;
use crate::decide::target::{self, Follow, Purpose, http, resolve, resolve_port, without_tls};
use crate::model::pod::{ContainerPort, ContainerSpec, Protocol, Role};
use crate::model::probe::{
    GrpcAction, GrpcTarget, Handler, Host, HttpGetAction, HttpTarget, PortRef, Redirects, Target, TcpClose,
    TcpSocketAction, TcpTarget, TlsAction,
};
use crate::model::tls::TlsTarget;
use crate::wire::tls::{any_certificate, server_name};

pub(super) fn follow(first: &HttpTarget, current: &HttpTarget, location: &str) -> Follow {
    target::follow(first, current, 307, location.as_bytes(), 1)
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The container of the cases: port list [{name: found, containerPort: 93}].
pub(super) fn with_port() -> ContainerSpec {
    let port = ContainerPort {
        name: Some("found".into()),
        container_port: 93,
        host_port: Some(8093),
        host_ip: None,
        protocol: Protocol::Tcp,
    };
    ContainerSpec { ports: vec![port], ..container("c", Role::Regular) }
}

pub(super) fn get(port: PortRef, path: &str) -> HttpGetAction {
    HttpGetAction::plain(None, port, path)
}

fn name(text: &str) -> PortRef {
    PortRef::Name(text.into())
}

#[test]
fn ports() {
    let syntax = |text: &str| Err(format!("strconv.Atoi: parsing \"{text}\": invalid syntax"));
    let invalid = |port: i64| Err(format!("invalid port number: {port}"));
    let cases = [
        ("RES-01", PortRef::Number(-1), invalid(-1)),
        ("RES-02", name(""), syntax("")),
        ("RES-03", name("-1"), invalid(-1)),
        ("RES-05", name("found"), Ok(93)),
        ("RES-06", PortRef::Number(76), Ok(76)),
        ("RES-07", name("118"), Ok(118)),
        ("RES-10", name(""), syntax("")),
        ("RES-11", name("-1"), invalid(-1)),
        ("RES-12", name("not-found"), syntax("not-found")),
        ("RES-13", name("found"), Ok(93)),
        ("RES-14", PortRef::Number(76), Ok(76)),
        ("RES-15", name("118"), Ok(118)),
        ("RES-30", PortRef::Number(65_536), invalid(65_536)),
        (
            "3.1: too large",
            name("99999999999999999999"),
            Err("strconv.Atoi: parsing \"99999999999999999999\": value out of range".to_owned()),
        ),
    ];
    for (id, port, expected) in cases {
        let found = resolve_port(&port, &with_port()).map_err(|error| error.to_string());
        assert_eq!(found, expected, "{id}");
    }
}

#[test]
fn tcp_targets() {
    let tcp = |host: Option<&str>, port| {
        let action = TcpSocketAction::plain(host.map(Box::from), port);
        resolve(&Handler::TcpSocket(action), &with_port(), ip("1.2.3.4"))
    };
    let pod_ip = Host::Ip(ip("1.2.3.4"));
    let target = |host, port| Target::Tcp(TcpTarget { host, port, close: TcpClose::Reset });
    assert_eq!(tcp(None, name("found")), target(pod_ip, 93), "RES-13");
    assert_eq!(tcp(Some("db"), PortRef::Number(5432)), target(Host::Name("db".into()), 5432));
    let error = "strconv.Atoi: parsing \"not-found\": invalid syntax".into();
    assert_eq!(tcp(None, name("not-found")), Target::Broken { error }, "RES-12");
    let error = "invalid port number: -1".into();
    assert_eq!(tcp(None, PortRef::Number(-1)), Target::Broken { error }, "TCP-02");
}

struct UrlCase {
    id: &'static str,
    host: &'static str,
    path: &'static str,
    url: &'static str,
    request_target: &'static str,
}

#[test]
fn urls() {
    let case = |id, host, path, url, request_target| UrlCase { id, host, path, url, request_target };
    let cases = [
        case("RES-16", "localhost", "", "http://localhost:93", "/"),
        case("RES-17 on http", "localhost", "/path", "http://localhost:93/path", "/path"),
        case("RES-18", "localhost", "?foo", "http://localhost:93?foo", "/?foo"),
        case("RES-19 on http", "localhost", "/path?bar", "http://localhost:93/path?bar", "/path?bar"),
        case("RES-20", "localhost", "/path#foo", "http://localhost:93/path#foo", "/path"),
        case("RES-08", "hostname", "path", "http://hostname:93/path", "/path"),
        case("3.3 authority in the path", "h", "//other/x", "http://h:93/x", "/x"),
        case("3.3 URL in the path", "h", "http://other/x", "http://h:93/x", "/x"),
        case("3.3 three slashes", "h", "///x", "http://h:93///x", "///x"),
        case("3.3 bad escape", "h", "/a%zz?b", "http://h:93/a%25zz%3Fb", "/a%25zz%3Fb"),
        case("3.3 space", "h", "/a b", "http://h:93/a%20b", "/a%20b"),
        case("3.3 kept escapes", "h", "/a%2Fb!(c)", "http://h:93/a%2Fb!(c)", "/a%2Fb!(c)"),
        case("3.3 bare question mark", "h", "/a?", "http://h:93/a?", "/a?"),
        case("3.3 not ASCII", "h", "/ä", "http://h:93/%C3%A4", "/%C3%A4"),
        case("3.3 line break", "h", "/a\nb", "http://h:93/a%0Ab", "/a%0Ab"),
        case("3.2 IPv6", "::1", "/", "http://[::1]:93/", "/"),
        case("3.3 scheme without slashes", "h", "a:b", "http://h:93/a:b", "/a:b"),
    ];
    for case in cases {
        let action = HttpGetAction { host: Some(case.host.into()), ..get(name("found"), case.path) };
        let target = http(&action, &with_port(), ip("127.0.0.1"), Purpose::Probe).unwrap();
        assert_eq!(&*target.url, case.url, "{}", case.id);
        let line = format!("GET {} HTTP/1.1\r\n", case.request_target);
        assert!(target.request.starts_with(line.as_bytes()), "{}: {:?}", case.id, target.request);
    }
}

#[test]
fn hosts() {
    let target =
        http(&get(PortRef::Number(9090), "/metrics"), &with_port(), ip("10.0.0.1"), Purpose::Probe).unwrap();
    assert_eq!((&*target.url, target.port), ("http://10.0.0.1:9090/metrics", 9090), "RES-28");
    assert_eq!(target.host, Host::Ip(ip("10.0.0.1")), "RES-28");
    let v6 = http(&get(PortRef::Number(80), "/"), &with_port(), ip("fd00::1"), Purpose::Probe).unwrap();
    assert_eq!((&*v6.url, &v6.host), ("http://[fd00::1]:80/", &Host::Ip(ip("fd00::1"))));
    let bad = HttpGetAction { host: Some("a b".into()), ..get(PortRef::Number(80), "/") };
    let error = "parse \"http://a b:80/\": invalid character \" \" in host name".into();
    assert_eq!(resolve(&Handler::HttpGet(bad), &with_port(), ip("127.0.0.1")), Target::Broken { error });
}

struct HeaderCase {
    id: &'static str,
    purpose: Purpose,
    given: &'static [(&'static str, &'static str)],
    lines: &'static [&'static str],
}

pub(super) fn lines(target: &HttpTarget) -> Vec<String> {
    let text = String::from_utf8(target.request.to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "");
    head.split("\r\n").skip(1).map(str::to_owned).collect()
}

pub(super) fn probed(given: &[(&str, &str)], purpose: Purpose) -> HttpTarget {
    let headers = given.iter().map(|(name, value)| (Box::from(*name), Box::from(*value))).collect();
    let action = HttpGetAction { headers, ..get(PortRef::Number(8080), "/health") };
    http(&action, &with_port(), ip("10.1.2.3"), purpose).unwrap()
}

#[test]
fn header_lines() {
    const HOST: &str = "Host: 10.1.2.3:8080";
    const AGENT: &str = "User-Agent: kube-probe/1.34";
    const ACCEPT: &str = "Accept: */*";
    const CLOSE: &str = "Connection: close";
    let case = |id, given, lines| HeaderCase { id, purpose: Purpose::Probe, given, lines };
    let cases: &[HeaderCase] = &[
        case("RES-23, RES-26, HTTP-05, HTTP-09, HTTPX-09", &[], &[HOST, AGENT, ACCEPT, CLOSE]),
        HeaderCase {
            purpose: Purpose::Hook,
            ..case("RES-26 hook", &[], &[HOST, "User-Agent: kube-lifecycle/1.34", ACCEPT, CLOSE])
        },
        case(
            "RES-22",
            &[("HOST", "h.example"), ("FOO-bAR", "1")],
            &["Host: h.example", AGENT, ACCEPT, "Foo-Bar: 1", CLOSE],
        ),
        case(
            "RES-25",
            &[
                ("accept", "application/json"),
                ("Accept", "*/*"),
                ("pragma", "no-cache"),
                ("X-forwarded-for", "username"),
            ],
            &[
                HOST,
                AGENT,
                "Accept: application/json",
                "Accept: */*",
                "Pragma: no-cache",
                "X-Forwarded-For: username",
                CLOSE,
            ],
        ),
        case(
            "RES-29, HTTP-06",
            &[("Accept", "foo/*"), ("User-Agent", "foo/1.0")],
            &[HOST, "User-Agent: foo/1.0", "Accept: foo/*", CLOSE],
        ),
        case(
            "HTTP-02",
            &[("X-Muffins-Or-Cupcakes", "muffins")],
            &[HOST, AGENT, ACCEPT, "X-Muffins-Or-Cupcakes: muffins", CLOSE],
        ),
        case("HTTP-04", &[("User-Agent", "")], &[HOST, ACCEPT, CLOSE]),
        case("HTTP-07", &[("Accept", "")], &[HOST, AGENT, CLOSE]),
        case("HTTP-08", &[("User-Agent", "foo/1.0"), ("Accept", "")], &[HOST, "User-Agent: foo/1.0", CLOSE]),
        case(
            "HTTP-10",
            &[("Host", "muffins.cupcakes.org")],
            &["Host: muffins.cupcakes.org", AGENT, ACCEPT, CLOSE],
        ),
        case("4.1 empty Host", &[("Host", "")], &[HOST, AGENT, ACCEPT, CLOSE]),
        case(
            "HTTPX-08",
            &[("X-Two", "2"), ("X-One", "a"), ("x-two", "1")],
            &[HOST, AGENT, ACCEPT, "X-One: a", "X-Two: 2", "X-Two: 1", CLOSE],
        ),
        case("4.1 own Connection", &[("connection", "close")], &[HOST, AGENT, ACCEPT, CLOSE]),
        case("Go's client writes its own length", &[("Content-Length", "9")], &[HOST, AGENT, ACCEPT, CLOSE]),
    ];
    for case in cases {
        assert_eq!(lines(&probed(case.given, case.purpose)), case.lines, "{}", case.id);
    }
}

#[test]
fn a_line_break_in_a_header_never_reaches_the_wire() {
    let headers = vec![("X-A".into(), "1\r\nX-B: 2".into())];
    let action = HttpGetAction { headers, ..get(PortRef::Number(80), "/") };
    let error = "net/http: invalid header field value for \"X-A\"".into();
    assert_eq!(resolve(&Handler::HttpGet(action), &with_port(), ip("10.1.2.3")), Target::Broken { error });
}

#[test]
fn a_hook_asks_for_what_it_names() {
    for (id, headers, extra) in
        [("HOOK-02", vec![], None), ("HOOK-03", vec![("Foo".into(), "bar".into())], Some("Foo: bar"))]
    {
        let action = HttpGetAction { host: Some("foo".into()), headers, ..get(PortRef::Number(8080), "bar") };
        let target = http(&action, &with_port(), ip("10.1.2.3"), Purpose::Hook).unwrap();
        assert_eq!((&*target.url, target.port), ("http://foo:8080/bar", 8080), "{id}");
        assert!(target.request.starts_with(b"GET /bar HTTP/1.1\r\nHost: foo:8080\r\n"), "{id}");
        let found = lines(&target).into_iter().find(|line| line.starts_with("Foo"));
        assert_eq!(found.as_deref(), extra, "{id}");
    }
}

#[test]
fn a_hook_without_a_port_uses_80() {
    let target = http(&get(name(""), "bar"), &with_port(), ip("10.1.2.3"), Purpose::Hook).unwrap();
    assert_eq!(&*target.url, "http://10.1.2.3:80/bar", "HOOK-04 on http");
}

enum Leads {
    To(&'static str, &'static [&'static str]),
    Nowhere,
    Fails(&'static str),
}

#[test]
fn redirects() {
    use Leads::{Fails, Nowhere, To};
    const REFERER: &str = "Referer: http://10.1.2.3:8080/health";
    let plain: &[(&str, &str)] = &[("User-Agent", "a"), ("Accept", "")];
    let custom: &[(&str, &str)] = &[("User-Agent", "a"), ("Accept", ""), ("Host", "www.success.com")];
    let own_referer: &[(&str, &str)] = &[("User-Agent", "a"), ("Accept", ""), ("Referer", "x")];
    let (host, agent, close) = ("Host: 10.1.2.3:8080", "User-Agent: a", "Connection: close");
    let default_lines: &[&str] = &["Host: 10.1.2.3:8080", "User-Agent: a", REFERER, "Connection: close"];
    let port_lines: &[&str] = &["Host: 10.1.2.3:81", "User-Agent: a", REFERER, "Connection: close"];
    let no_port_lines: &[&str] = &["Host: 10.1.2.3", "User-Agent: a", REFERER, "Connection: close"];
    let custom_lines: &[&str] = &["Host: www.success.com", "User-Agent: a", REFERER, "Connection: close"];
    let own_lines: &[&str] = &["Host: 10.1.2.3:8080", "User-Agent: a", "Referer: x", "Connection: close"];
    assert_eq!(own_lines, [host, agent, "Referer: x", close]);
    let not_parsed = "Get \"http://10.1.2.3:8080/health\": failed to parse Location header \"/%zz\": \
                      parse \"/%zz\": invalid URL escape \"%zz\"";
    let cases = [
        ("HTTP-14", plain, "/new", To("http://10.1.2.3:8080/new", default_lines)),
        ("4.3 relative", plain, "new?a=b#c", To("http://10.1.2.3:8080/new?a=b#c", default_lines)),
        ("4.3 dots", plain, "/a/./b/../c", To("http://10.1.2.3:8080/a/c", default_lines)),
        ("4.3 dots at the end", plain, "/a/b/..", To("http://10.1.2.3:8080/a/", default_lines)),
        ("4.3 above the root", plain, "/../..", To("http://10.1.2.3:8080/", default_lines)),
        ("4.3 query only", plain, "?x", To("http://10.1.2.3:8080/health?x", default_lines)),
        ("HTTP-26", plain, "http://10.1.2.3:81/fail", To("http://10.1.2.3:81/fail", port_lines)),
        ("4.3 no port", plain, "http://10.1.2.3/x", To("http://10.1.2.3/x", no_port_lines)),
        ("4.3 no scheme", plain, "//10.1.2.3:81/x", To("http://10.1.2.3:81/x", port_lines)),
        ("HTTP-27", plain, "http://0.0.0.0/fail", Nowhere),
        ("4.3 localhost is another", plain, "http://localhost:8080/", Nowhere),
        ("4.3 no host", plain, "mailto:x", Nowhere),
        ("4.3 any scheme", plain, "https://10.1.2.3/x", To("https://10.1.2.3/x", no_port_lines)),
        ("HTTP-30", custom, "/success", To("http://10.1.2.3:8080/success", custom_lines)),
        ("4.3 absolute", custom, "http://10.1.2.3:8080/s", To("http://10.1.2.3:8080/s", default_lines)),
        ("4.3 own Referer", own_referer, "/new", To("http://10.1.2.3:8080/new", own_lines)),
        ("4.3 not parsed", plain, "/%zz", Fails(not_parsed)),
        (
            "4.3 other scheme",
            plain,
            "ftp://10.1.2.3/x",
            Fails("Get \"ftp://10.1.2.3/x\": unsupported protocol scheme \"ftp\""),
        ),
    ];
    for (id, given, location, expected) in cases {
        let first = probed(given, Purpose::Probe);
        match (follow(&first, &first, location), expected) {
            (Follow::Next(next), To(url, expected)) => {
                assert_eq!(&*next.url, url, "{id}");
                assert_eq!(lines(&next), expected, "{id}");
            }
            (Follow::NotFollowed, Nowhere) => {}
            (Follow::Failed(text), Fails(expected)) => assert_eq!(&*text, expected, "{id}"),
            (found, To(..) | Nowhere | Fails(_)) => panic!("{id}: {found:?}"),
        }
    }
}

#[test]
fn a_second_hop_names_the_first_as_referer() {
    let first = probed(&[], Purpose::Probe);
    let Follow::Next(second) = follow(&first, &first, "/b") else { panic!("/b is followed") };
    let Follow::Next(third) = follow(&first, &second, "/c") else { panic!("/c is followed") };
    let referer = lines(&third).into_iter().find(|line| line.starts_with("Referer"));
    assert_eq!(referer.as_deref(), Some("Referer: http://10.1.2.3:8080/b"));
    assert_eq!(lines(&third).iter().filter(|line| line.starts_with("Referer")).count(), 1);
}

#[test]
fn https_targets() {
    let tls =
        |name: Option<&str>| Some(TlsAction { config: any_certificate(), server_name: name.map(Box::from) });
    let action = |host: &str, name| HttpGetAction {
        host: Some(host.into()),
        tls: tls(name),
        ..get(PortRef::Number(8443), "/secure")
    };
    let target = |action: &HttpGetAction| http(action, &with_port(), ip("1.2.3.4"), Purpose::Probe).unwrap();
    let named = target(&action("secure.example.com", None));
    assert_eq!(&*named.url, "https://secure.example.com:8443/secure", "RES-27");
    assert_eq!(named.tls().map(|tls| &tls.server_name), Some(&server_name("secure.example.com")));
    for (id, path) in [("RES-17", "/path"), ("RES-19", "/path?bar")] {
        let port = PortRef::Number(93);
        let found = target(&HttpGetAction { port, path: path.into(), ..action("localhost", None) });
        assert_eq!(*found.url, format!("https://localhost:93{path}"), "{id}");
    }
    let other = target(&action("10.0.0.1", Some("other.example")));
    assert_eq!(other.tls().map(|tls| &tls.server_name), Some(&server_name("other.example")));
    assert_eq!(lines(&other)[0], "Host: 10.0.0.1:8443");
    let hook = HttpGetAction { tls: tls(None), host: Some("foo".into()), ..get(name(""), "/bar") };
    let hook = http(&hook, &with_port(), ip("1.2.3.4"), Purpose::Hook).unwrap();
    assert_eq!(&*hook.url, "https://foo:443/bar", "HOOK-04");
    let plain = without_tls(&hook).unwrap();
    assert_eq!((&*plain.url, plain.port, plain.tls()), ("http://foo:443/bar", 443, None));
    assert_eq!(lines(&plain), lines(&hook));
    assert_eq!(without_tls(&named), None, "a probe fails");
    let secret = vec![("authorization".into(), "Basic x".into())];
    let hook = HttpGetAction { tls: tls(None), headers: secret, ..get(PortRef::Number(443), "/") };
    let hook = http(&hook, &with_port(), ip("1.2.3.4"), Purpose::Hook).unwrap();
    let plain = without_tls(&hook).unwrap();
    assert!(lines(&hook).len() == lines(&plain).len() + 1, "{:?}", lines(&plain));

    let Follow::Next(plain) = follow(&other, &other, "http://10.0.0.1/x") else { panic!("http is followed") };
    assert_eq!((plain.tls(), plain.port), (None, 80));
    assert!(lines(&plain).iter().all(|line| !line.starts_with("Referer")), "{:?}", lines(&plain));
    let Follow::Next(back) = follow(&other, &plain, "https://10.0.0.1/y") else {
        panic!("https is followed")
    };
    assert_eq!((back.tls(), back.port), (other.tls(), 443));
    let first = probed(&[], Purpose::Probe);
    let Follow::Next(secure) = follow(&first, &first, "https://10.1.2.3/") else {
        panic!("https is followed")
    };
    let any = TlsTarget { config: any_certificate(), server_name: server_name("10.1.2.3") };
    assert_eq!(secure.tls(), Some(&any));
}

#[test]
fn targets_in_the_file_system_and_kept_connections() {
    let path: std::sync::Arc<std::path::Path> = std::path::Path::new("/run/x.sock").into();
    let unix_socket = Some(path.clone());
    let action = HttpGetAction { unix_socket, keep_alive: true, ..get(PortRef::Number(8080), "/h") };
    let target = http(&action, &with_port(), ip("1.2.3.4"), Purpose::Probe).unwrap();
    assert_eq!((&target.host, &*target.url), (&Host::Unix(path.clone()), "http://1.2.3.4:8080/h"));
    let text = |request: &[u8]| String::from_utf8_lossy(request).into_owned();
    let closing = text(&target.request);
    let keeping = text(target.keep_alive_request().unwrap());
    assert!(closing.starts_with("GET /h HTTP/1.1\r\nHost: 1.2.3.4:8080\r\n"), "{closing}");
    assert_eq!(keeping.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"), closing);
    let Follow::Next(next) = follow(&target, &target, "http://1.2.3.4:81/new") else {
        panic!("it is followed")
    };
    assert_eq!((&next.host, next.keep_alive_request()), (&Host::Unix(path.clone()), None));

    let plain = TcpSocketAction::plain(None, PortRef::Number(1));
    let action = TcpSocketAction { unix_socket: Some(path.clone()), close: TcpClose::Graceful, ..plain };
    let expected = TcpTarget { host: Host::Unix(path), port: 1, close: TcpClose::Graceful };
    assert_eq!(resolve(&Handler::TcpSocket(action), &with_port(), ip("1.2.3.4")), Target::Tcp(expected));
}

#[test]
fn section_3_2_grpc_goes_to_the_pods_own_address() {
    let action = GrpcAction { port: 5000, service: "my.Service".into() };
    for pod_ip in ["10.1.2.3", "fd00::7"] {
        let expected = GrpcTarget { addr: SocketAddr::new(ip(pod_ip), 5000), service: "my.Service".into() };
        let target = resolve(&Handler::Grpc(action.clone()), &with_port(), ip(pod_ip));
        assert_eq!(target, Target::Grpc(expected));
    }
}

#[test]
fn redirects_to_any_host() {
    let given = [("Authorization", "Bearer x"), ("Cookie", "a=b"), ("Content-Type", "x"), ("X-A", "b")];
    let headers = given.iter().map(|(name, value)| (Box::from(*name), Box::from(*value))).collect();
    let tls = Some(TlsAction { config: any_certificate(), server_name: Some("given.example".into()) });
    let action = HttpGetAction {
        headers,
        tls,
        host: Some("example.com".into()),
        redirects: Redirects::AnyHost,
        ..get(PortRef::Number(8443), "/")
    };
    let first = http(&action, &with_port(), ip("10.1.2.3"), Purpose::Probe).unwrap();
    let next = |current: &HttpTarget, status, location: &str| match target::follow(
        &first,
        current,
        status,
        location.as_bytes(),
        1,
    ) {
        Follow::Next(next) => *next,
        other => panic!("{location}: {other:?}"),
    };
    let has = |target: &HttpTarget, line: &str| lines(target).iter().any(|other| other == line);
    let below = next(&first, 307, "https://a.example.com/fail");
    assert!(has(&below, "Authorization: Bearer x") && has(&below, "Content-Type: x"), "{:?}", lines(&below));
    assert_eq!(below.tls().map(|tls| &tls.server_name), Some(&server_name("a.example.com")));
    let away = next(&first, 302, "https://0.0.0.0/fail");
    assert_eq!((&away.host, &*away.url), (&Host::Ip(ip("0.0.0.0")), "https://0.0.0.0/fail"), "HTTP-28");
    for secret in ["Authorization: Bearer x", "Cookie: a=b", "Content-Type: x"] {
        assert!(!has(&away, secret), "{:?}", lines(&away));
    }
    assert!(has(&away, "X-A: b"), "{:?}", lines(&away));
    let home = next(&away, 307, "https://example.com:8443/");
    assert!(!has(&home, "Content-Type: x"), "nor does a body come back: {:?}", lines(&home));
    assert!(!has(&home, "Cookie: a=b"), "what one hop took away stays away: {:?}", lines(&home));
    assert_eq!(home.tls().map(|tls| &tls.server_name), Some(&server_name("given.example")));
}

#[test]
fn a_user_in_a_location_asks_with_its_name() {
    let text = |target: &HttpTarget| String::from_utf8_lossy(&target.request).into_owned();
    let first = probed(&[], Purpose::Probe);
    let next = |current: &HttpTarget, location: &str| match follow(&first, current, location) {
        Follow::Next(next) => *next,
        other => panic!("{location}: {other:?}"),
    };
    let named = next(&first, "http://us%20er:s%3Acret@10.1.2.3:81/a");
    assert!(text(&named).contains("\r\nAuthorization: Basic dXMgZXI6czpjcmV0\r\n"), "{}", text(&named));
    assert_eq!(&*named.url, "http://us%20er:***@10.1.2.3:81/a");
    let relative = next(&named, "b");
    assert!(text(&relative).contains("\r\nAuthorization: Basic dXMgZXI6czpjcmV0\r\n"), "{}", text(&relative));
    assert!(text(&relative).contains("\r\nReferer: http://10.1.2.3:81/a\r\n"), "{}", text(&relative));
    let absolute = next(&relative, "http://10.1.2.3:81/c");
    assert!(!text(&absolute).contains("Authorization"), "{}", text(&absolute));

    let given = probed(&[("authorization", "Bearer x")], Purpose::Probe);
    let Follow::Next(next) = follow(&given, &given, "http://u@10.1.2.3/") else { panic!("it is followed") };
    assert!(text(&next).contains("\r\nAuthorization: Bearer x\r\n"), "{}", text(&next));
    assert_eq!(&*next.url, "http://u@10.1.2.3/");
}
