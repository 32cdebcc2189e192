//! What a redirect takes along, and in which order its faults are found (kubelet-semantics 4.3).

use super::target::{follow, get, ip, lines, probed, with_port};
use crate::decide::target::{self, Follow, Purpose, http, resolve};
use crate::model::probe::{Handler, HttpGetAction, HttpTarget, PortRef, Redirects, Target, TlsAction};
use crate::wire::tls::any_certificate;

/// The lines of a request that begin so.
fn lines_of(target: &HttpTarget, name: &str) -> Vec<String> {
    lines(target).into_iter().filter(|line| line.starts_with(name)).collect()
}

/// A probe of `path` that follows redirects anywhere.
fn anywhere(path: &str, given: &[(&str, &str)]) -> HttpTarget {
    let headers = given.iter().map(|(name, value)| (Box::from(*name), Box::from(*value))).collect();
    let redirects = Redirects::AnyHost;
    let action = HttpGetAction {
        headers,
        redirects,
        host: Some("h.example".into()),
        ..get(PortRef::Number(80), path)
    };
    http(&action, &with_port(), ip("10.1.2.3"), Purpose::Probe).unwrap()
}

/// Given headers, path, Locations one after the other, and the Authorization lines of each request.
type LoginCase = (
    &'static [(&'static str, &'static str)],
    &'static str,
    &'static [&'static str],
    &'static [&'static [&'static str]],
);

#[test]
fn a_login_of_a_url_is_for_this_url() {
    const LOGIN: &str = "Authorization: Basic dTpw";
    const EMPTY: &str = "Authorization: ";
    const OWN: &str = "Authorization: Bearer x";
    let own: &'static [(&str, &str)] = &[("Authorization", "Bearer x")];
    let empty: &'static [(&str, &str)] = &[("Authorization", ""), ("Cookie", "a=b")];
    let cases: [LoginCase; 9] = [
        (&[], "//u:p@x/a", &["/b", "c"], &[&[LOGIN], &[LOGIN], &[LOGIN]]),
        (&[], "//u:p@x/a", &["http://h.example:80/b"], &[&[LOGIN], &[]]),
        (&[], "//u:p@x/a", &["http://a.h.example/b", "/c"], &[&[LOGIN], &[], &[]]),
        (&[], "//u:p@x/a", &["http://other.example/b", "//h.example:80/c"], &[&[LOGIN], &[], &[]]),
        (&[], "/a", &["//u:p@other.example/b", "/c", "//h.example/d"], &[&[], &[LOGIN], &[LOGIN], &[]]),
        (own, "//u:p@x/a", &["/b", "//a.h.example/c", "//other.example/d"], &[&[OWN], &[OWN], &[OWN], &[]]),
        (own, "/a", &["//u:p@other.example/b", "//h.example/c"], &[&[OWN], &[LOGIN], &[]]),
        (empty, "/a", &["/b", "//u:p@h.example/c"], &[&[EMPTY], &[EMPTY], &[LOGIN]]),
        (empty, "//u:p@x/a", &["/b", "//h.example/c"], &[&[LOGIN], &[LOGIN], &[EMPTY]]),
    ];
    for (given, path, locations, expected) in cases {
        let first = anywhere(path, given);
        let mut asked = vec![first.clone()];
        for location in locations {
            let current = asked.last().unwrap();
            let Follow::Next(next) = follow(&first, current, location) else { panic!("{path}: {location}") };
            asked.push(*next);
        }
        let found: Vec<_> = asked.iter().map(|target| lines_of(target, "Authorization")).collect();
        assert_eq!(found, expected, "{path}, {locations:?}");
    }
    let first = anywhere("//u:p@x/a", empty);
    let Follow::Next(next) = follow(&first, &first, "//h.example/c") else { panic!("it is followed") };
    assert_eq!(lines_of(&next, "Cookie"), ["Cookie: a=b"], "the login took nothing else away");
}

#[test]
fn a_hook_that_fell_back_to_plain_http_sends_its_credentials_nowhere() {
    let given = [("authorization", "Bearer x"), ("Cookie", "a=b")];
    let headers = given.map(|(name, value)| (Box::from(name), Box::from(value))).to_vec();
    for path in ["/a", "//u:p@x/a"] {
        for headers in [headers.clone(), headers[1..].to_vec()] {
            let tls = Some(TlsAction { config: any_certificate(), server_name: None });
            let action = HttpGetAction { tls, headers, ..get(PortRef::Number(443), path) };
            let first = http(&action, &with_port(), ip("10.1.2.3"), Purpose::Hook).unwrap();
            let mut asked = vec![target::without_tls(&first).unwrap()];
            for location in ["/b", "c", "https://10.1.2.3/d", "http://10.1.2.3/e"] {
                let Follow::Next(next) = follow(&first, asked.last().unwrap(), location) else {
                    panic!("{path}: {location}")
                };
                asked.push(next);
            }
            for target in asked {
                let (none, url) = (lines_of(&target, "Authorization"), &target.url);
                assert_eq!(none, [""; 0], "{path}, {url}");
                assert_eq!(lines_of(&target, "Cookie"), ["Cookie: a=b"], "{path}, {url}: Go keeps it");
            }
            // A login that the server gives is the server's own affair.
            let plain = target::without_tls(&first).unwrap();
            let Follow::Next(next) = follow(&first, &plain, "//v:q@10.1.2.3/b") else { panic!("{path}") };
            assert_eq!(lines_of(&next, "Authorization"), ["Authorization: Basic djpx"], "{path}");
        }
    }
}

#[test]
fn an_empty_referer_of_the_manifest_is_replaced() {
    let first = anywhere("/a", &[("Referer", ""), ("Referer", "y")]);
    assert_eq!(lines_of(&first, "Referer"), ["Referer: ", "Referer: y"]);
    let Follow::Next(next) = follow(&first, &first, "/b") else { panic!("it is followed") };
    assert_eq!(lines_of(&next, "Referer"), ["Referer: http://h.example:80/a"]);
}

#[test]
fn what_go_looks_at_first_after_ten_requests() {
    let same = probed(&[], Purpose::Probe);
    let any = anywhere("/health", &[]);
    let stopped = |location: &str| format!("Get \"{location}\": stopped after 10 redirects");
    let cases = [
        (&same, "/next", Some(stopped("/next"))),
        (&same, "http://10.1.2.3:99999/", Some(stopped("http://10.1.2.3:99999/"))),
        (&same, "ftp://10.1.2.3/x", Some(stopped("ftp://10.1.2.3/x"))),
        (&same, "http://other/x", None),
        (&same, "mailto:x", None),
        (
            &same,
            "/%zz",
            Some(
                "Get \"http://10.1.2.3:8080/health\": failed to parse Location header \"/%zz\": parse \"/%zz\": \
                 invalid URL escape \"%zz\""
                    .to_owned(),
            ),
        ),
        (&any, "http://other/x", Some(stopped("http://other/x"))),
        (&any, "mailto:x", Some(stopped("mailto:x"))),
    ];
    for (first, location, expected) in cases {
        let text = match target::follow(first, first, 302, location.as_bytes(), 10) {
            Follow::Failed(text) => Some(String::from(text)),
            Follow::NotFollowed => None,
            Follow::Next(next) => panic!("{location}: {next:?}"),
        };
        assert_eq!(text, expected, "{location}");
        let is_followed = matches!(target::follow(&same, &same, 302, b"/next", 9), Follow::Next(_));
        assert!(is_followed, "nine requests");
    }
}

#[test]
fn the_bytes_of_a_location_are_kept() {
    let first = probed(&[], Purpose::Probe);
    let any = anywhere("/health", &[]);
    let cases: [(&[u8], &str); 6] = [
        (b"/\xfc", "GET /%FC HTTP/1.1"),
        (b"/\xfc%2f", "GET /%FC/ HTTP/1.1"),
        (b"/\xc3\xbc", "GET /%C3%BC HTTP/1.1"),
        (b"/a?\xc3\xbc", "GET /a?\u{fc} HTTP/1.1"),
        (b"/a?\xfc", "GET /a?%FC HTTP/1.1"),
        (b"/a#\xff", "GET /a HTTP/1.1"),
    ];
    for (location, line) in cases {
        let Follow::Next(next) = target::follow(&first, &first, 302, location, 1) else {
            panic!("{line}: it is followed")
        };
        assert!(next.request.starts_with(line.as_bytes()), "{line}: {:?}", next.request);
    }
    let failed = |first: &HttpTarget, location: &[u8], requests| match target::follow(
        first, first, 302, location, requests,
    ) {
        Follow::Failed(text) => String::from(text),
        other => panic!("{other:?}"),
    };
    assert_eq!(failed(&first, b"/\xfc", 10), "Get \"/\\xfc\": stopped after 10 redirects");
    assert_eq!(
        failed(&first, b"/\xfc%zz", 1),
        "Get \"http://10.1.2.3:8080/health\": failed to parse Location header \"/\\xfc%zz\": parse \
         \"/\\xfc%zz\": invalid URL escape \"%zz\""
    );
    for (location, host) in [
        ("http://b\u{fc}cher.example/".as_bytes(), "b%C3%BCcher.example"),
        (b"http://b%c3%bccher.example/", "b%C3%BCcher.example"),
        (b"http://b\xfccher.example/", "b%FCcher.example"),
    ] {
        assert_eq!(target::follow(&first, &first, 302, location, 1), Follow::NotFollowed, "{host}");
        let text = failed(&any, location, 1);
        let expected = format!(
            "Get \"http://{host}/\": the host name is not ASCII: write it in punycode (xn--\u{2026})"
        );
        assert_eq!(text, expected);
    }
    let text = failed(&first, b"http://b%41/", 1);
    assert!(text.ends_with("parse \"http://b%41/\": invalid URL escape \"%41\""), "{text}");
    let action = HttpGetAction { host: Some("b\u{fc}cher".into()), ..get(PortRef::Number(80), "/") };
    let error =
        "parse \"http://b\u{fc}cher:80/\": the host name is not ASCII: write it in punycode (xn--\u{2026})"
            .into();
    assert_eq!(resolve(&Handler::HttpGet(action), &with_port(), ip("127.0.0.1")), Target::Broken { error });
}
