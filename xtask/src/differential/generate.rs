//! Cases from a seed: what servers do, in every shape that a probe may meet.

use probe_core::ring::twin::Rng;

use super::behaviour::{Act, Behaviour, Door, Script, host};
use super::shapes::{self, Answer};

type Make = fn(&mut Rng, &mut Behaviour);

/// Families with their weights: how many of so many cases are of each.
const FAMILIES: [(&str, u32, Make); 15] = [
    ("status line", 12, status_line),
    ("header lines", 12, header_lines),
    ("content-length", 10, content_length),
    ("chunked", 14, chunked),
    ("body sizes", 6, body_sizes),
    ("interim answers", 6, interim),
    ("no body", 3, no_body),
    ("cut", 10, cut),
    ("stalled", 3, stalled),
    ("slow", 3, slow),
    ("redirect", 16, redirect),
    ("request", 10, request),
    ("damaged", 12, damaged),
    ("TLS", 6, tls),
    ("nobody", 1, nobody),
];

/// The case of this number; the same for the same seed.
pub fn behaviour(seed: u64, id: u16) -> Behaviour {
    let mut rng = Rng::new(seed ^ (u64::from(id) << 32));
    let all: u32 = FAMILIES.iter().map(|(_, weight, _)| weight).sum();
    let mut at = rng.below(u64::from(all)) as u32;
    let family = FAMILIES.iter().find(|(_, weight, _)| {
        let is_it = at < *weight;
        at = at.saturating_sub(*weight);
        is_it
    });
    let (family, _, make) = family.unwrap_or(&FAMILIES[0]);
    let mut behaviour = Behaviour {
        id,
        family,
        scheme: "http",
        door: Door::Plain,
        path: "/healthz".to_owned(),
        headers: Vec::new(),
        scripts: vec![vec![Act::Send(Answer::ok().bytes())]],
    };
    make(&mut rng, &mut behaviour);
    behaviour
}

pub fn one<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.below(of.len() as u64) as usize]
}

fn is(rng: &mut Rng, per_cent: u16) -> bool {
    rng.chance(per_cent * 10)
}

fn send(bytes: Vec<u8>) -> Vec<Script> {
    vec![vec![Act::Send(bytes)]]
}

fn status_line(rng: &mut Rng, to: &mut Behaviour) {
    let line = if is(rng, 40) {
        let reason = one(rng, &shapes::REASONS);
        format!("HTTP/1.1 {}{reason}", one(rng, &shapes::CODES))
    } else {
        let version = if is(rng, 60) { "HTTP/1.1" } else { one(rng, &shapes::VERSIONS) };
        let gap = if is(rng, 80) { " " } else { one(rng, &shapes::GAPS) };
        let code = if is(rng, 40) { "200" } else { one(rng, &shapes::ODD_CODES) };
        format!("{version}{gap}{code}{}", one(rng, &shapes::REASONS))
    };
    let end = if is(rng, 85) { "\r\n" } else { one(rng, &["\n", "\r", "\n\r", "\r\r\n", ""]) };
    let before = if is(rng, 90) { "" } else { one(rng, &["\r\n", "\n", " ", "\0", "\r\n\r\n"]) };
    let mut answer = Answer::ok();
    answer.first = format!("{before}{line}{end}").into_bytes();
    to.scripts = send(answer.bytes());
}

fn header_lines(rng: &mut Rng, to: &mut Behaviour) {
    let mut answer = Answer::ok();
    for _ in 0..=rng.below(3) {
        let line = match rng.below(10) {
            0..7 => one(rng, &shapes::HEADER_LINES).to_vec(),
            7 => shapes::long_header(one(rng, &[100, 1_000, 4_000, 8_000])),
            8 => shapes::many_headers(one(rng, &[10, 64, 100, 101, 150])),
            _ => shapes::random_line(rng),
        };
        let at = rng.below(answer.lines.len() as u64 + 1) as usize;
        answer.lines.insert(at, line);
    }
    if is(rng, 15) {
        answer.end = one(rng, &[b"\n" as &[u8], b"\r\n", b"\r", b" \r\n", b""]).to_vec();
    }
    to.scripts = send(answer.bytes());
}

fn content_length(rng: &mut Rng, to: &mut Behaviour) {
    let mut answer = Answer::ok();
    answer.lines.clear();
    for _ in 0..=u64::from(is(rng, 30)) {
        let value = one(rng, &shapes::LENGTHS);
        let name = one(rng, &["Content-Length", "content-length", "CONTENT-LENGTH"]);
        answer.lines.push(format!("{name}:{value}\r\n").into_bytes());
    }
    if is(rng, 10) {
        answer.lines.push(b"Transfer-Encoding: chunked\r\n".to_vec());
        answer.body = b"5\r\nhello\r\n0\r\n\r\n".to_vec();
    } else {
        answer.body = one(rng, &[b"" as &[u8], b"hello", b"hello, and more of it"]).to_vec();
    }
    answer.status(one(rng, &["200 OK", "500 No", "302 Found"]));
    if is(rng, 20) {
        answer.first = b"HTTP/1.0 200 OK\r\n".to_vec();
    }
    to.scripts = send(answer.bytes());
}

fn chunked(rng: &mut Rng, to: &mut Behaviour) {
    let mut answer = Answer::ok();
    let coding = if is(rng, 70) { "chunked" } else { one(rng, &shapes::CODINGS) };
    answer.lines = vec![format!("Transfer-Encoding: {coding}\r\n").into_bytes()];
    answer.body = if is(rng, 30) { shapes::good_chunks(rng) } else { one(rng, &shapes::CHUNKS).to_vec() };
    if is(rng, 10) {
        answer.first = b"HTTP/1.0 200 OK\r\n".to_vec();
    } else {
        answer.status(one(rng, &["200 OK", "200 OK", "503 No", "304 Same", "204 None", "302 Found"]));
    }
    to.scripts = send(answer.bytes());
}

fn body_sizes(rng: &mut Rng, to: &mut Behaviour) {
    let size = one(rng, &[0, 1, 100, 4_096, 10_239, 10_240, 10_241, 12_000, 30_000, 300_000]);
    let body = vec![b'a' + rng.below(26) as u8; size];
    let mut answer = Answer::ok();
    answer.status(one(rng, &["200 OK", "200 OK", "302 Found", "404 No"]));
    answer.lines = match rng.below(3) {
        0 => vec![format!("Content-Length: {size}\r\n").into_bytes()],
        1 => Vec::new(),
        _ => vec![b"Transfer-Encoding: chunked\r\n".to_vec()],
    };
    let is_chunked = answer.lines.first().is_some_and(|line| line.starts_with(b"Transfer"));
    answer.body = if is_chunked { shapes::chunks_of(&body, 1_000 + rng.below(9_000) as usize) } else { body };
    to.scripts = send(answer.bytes());
}

fn interim(rng: &mut Rng, to: &mut Behaviour) {
    let mut bytes = Vec::new();
    for _ in 0..one(rng, &[1, 1, 1, 2, 5, 6, 7]) {
        bytes.extend_from_slice(one(rng, &shapes::INTERIM));
    }
    let last = Answer::ok().bytes();
    bytes.extend_from_slice(if is(rng, 80) { &last } else { b"" });
    to.scripts = send(bytes);
}

fn no_body(rng: &mut Rng, to: &mut Behaviour) {
    let mut answer = Answer::ok();
    answer.status(one(rng, &["204 No Content", "304 Not Modified", "205 Reset", "200 OK"]));
    answer.lines = match rng.below(3) {
        0 => Vec::new(),
        1 => vec![b"Content-Length: 5\r\n".to_vec()],
        _ => vec![b"Content-Length: 0\r\n".to_vec()],
    };
    answer.body = one(rng, &[b"" as &[u8], b"hello"]).to_vec();
    to.scripts = send(answer.bytes());
}

/// A good answer of some kind.
fn good(rng: &mut Rng) -> Answer {
    let mut answer = Answer::ok();
    answer.status(one(rng, &["200 OK", "503 Service Unavailable", "302 Found"]));
    if is(rng, 40) {
        answer.lines = vec![b"Server: x\r\n".to_vec(), b"Transfer-Encoding: chunked\r\n".to_vec()];
        answer.body = shapes::good_chunks(rng);
    }
    answer
}

fn cut(rng: &mut Rng, to: &mut Behaviour) {
    let mut bytes = good(rng).bytes();
    bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize);
    let mut script = vec![Act::Send(bytes)];
    if is(rng, 40) {
        script.push(Act::Reset);
    }
    to.scripts = vec![script];
    maybe_tls(rng, to, 15);
}

fn stalled(rng: &mut Rng, to: &mut Behaviour) {
    let mut bytes = good(rng).bytes();
    bytes.truncate(rng.below(bytes.len() as u64) as usize);
    to.scripts = vec![vec![Act::Send(bytes), Act::Hang]];
    maybe_tls(rng, to, 15);
}

fn slow(rng: &mut Rng, to: &mut Behaviour) {
    let bytes = good(rng).bytes();
    to.scripts = vec![vec![Act::Trickle(bytes, 1 + rng.below(20) as usize)]];
    maybe_tls(rng, to, 30);
}

fn redirect(rng: &mut Rng, to: &mut Behaviour) {
    let mut scripts = Vec::new();
    let hops = one(rng, &[1, 1, 1, 2, 3, 9, 10, 11]);
    for hop in 1..=hops {
        let mut answer = Answer::ok();
        let code =
            if is(rng, 85) { one(rng, &[301, 302, 303, 307, 308]) } else { one(rng, &[300, 304, 305, 306]) };
        answer.status(&format!("{code} Elsewhere"));
        let place = if hops > 3 && hop != hops { "/next" } else { one(rng, &shapes::LOCATIONS) };
        let place = place
            .replace("{host}", &host(to.id).to_string())
            .replace("{other}", &host(to.id ^ 1).to_string());
        if is(rng, 97) {
            let place = place.split("{fc}").map(str::as_bytes).collect::<Vec<_>>().join(&b'\xfc');
            answer.lines.push([b"Location: ", place.as_slice(), b"\r\n"].concat());
        }
        scripts.push(vec![Act::Send(answer.bytes())]);
    }
    let mut last = Answer::ok();
    last.status(one(rng, &["200 OK", "200 OK", "500 No"]));
    scripts.push(vec![Act::Send(last.bytes())]);
    to.scripts = scripts;
    if is(rng, 40) {
        to.headers = headers(rng);
    }
    if is(rng, 20) {
        to.path = one(rng, &["//user:secret@x/a", "http://user@x/a"]).to_owned();
    }
    maybe_tls(rng, to, 20);
}

fn headers(rng: &mut Rng) -> Vec<(String, String)> {
    (0..=rng.below(4))
        .map(|_| {
            let (name, value) = one(rng, &shapes::REQUEST_HEADERS);
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

fn request(rng: &mut Rng, to: &mut Behaviour) {
    to.headers = if is(rng, 75) { headers(rng) } else { Vec::new() };
    to.path = if is(rng, 60) { one(rng, &shapes::PATHS).to_owned() } else { to.path.clone() };
    maybe_tls(rng, to, 15);
}

/// A good answer with a few bytes that are wrong, gone or new.
fn damaged(rng: &mut Rng, to: &mut Behaviour) {
    let mut bytes = good(rng).bytes();
    for _ in 0..=rng.below(3) {
        let at = rng.below(bytes.len() as u64) as usize;
        let byte = if is(rng, 50) { one(rng, b"\r\n :;\t0aZ\0\x7f,") } else { rng.below(256) as u8 };
        match rng.below(4) {
            0 | 1 => bytes[at] = byte,
            2 => bytes.insert(at, byte),
            _ => drop(bytes.remove(at)),
        }
    }
    to.scripts = send(bytes);
}

fn maybe_tls(rng: &mut Rng, to: &mut Behaviour, per_cent: u16) {
    if is(rng, per_cent) {
        (to.scheme, to.door) = ("https", Door::Tls);
    }
}

fn tls(rng: &mut Rng, to: &mut Behaviour) {
    to.scheme = "https";
    match rng.below(10) {
        // The clear where TLS is spoken, and TLS where the clear is.
        0 => to.door = Door::Plain,
        1 => (to.scheme, to.door) = ("http", Door::Tls),
        2..4 => to.door = Door::Tls,
        _ => {
            to.door = Door::Raw;
            let answer = one(rng, &shapes::TLS_FAULTS).to_vec();
            let ends = [vec![], vec![Act::Reset], vec![Act::Hang]];
            let mut script = vec![Act::Send(answer)];
            script.extend(ends[one(rng, &[0, 0, 0, 1, 2])].iter().cloned());
            to.scripts = vec![script];
        }
    }
}

fn nobody(_: &mut Rng, to: &mut Behaviour) {
    to.door = Door::Closed;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_cases_of_every_family() {
        let all: Vec<Behaviour> = (0..500).map(|id| behaviour(7, id)).collect();
        assert!((0..500).all(|id| behaviour(7, id) == all[usize::from(id)]));
        assert_ne!(behaviour(8, 0), all[0]);
        for (family, ..) in FAMILIES {
            assert!(all.iter().any(|behaviour| behaviour.family == family), "no {family}");
        }
    }
}
