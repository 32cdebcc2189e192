//! URLs the way Go's net/url reads and writes them, since kubelet's probes, error texts and redirects are
//! made by it (kubelet-semantics 3.3, 4.3).

use std::fmt::Write as _;
use std::net::IpAddr;

use base64::Engine as _;

use crate::model::limits::HTTP_REQUESTS_MAX;
use crate::model::probe::{Host, Redirects};
use crate::wire::http1::quote::quote;

/// A URL, kept in escaped form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    /// Lower case; empty for a relative reference.
    scheme: String,
    /// What follows the scheme of a URL without slashes, as in `mailto:x`.
    opaque: String,
    user: Option<User>,
    /// Host with optional port, IPv6 in brackets; empty for a relative reference. What is not ASCII is escaped.
    authority: String,
    path: String,
    /// Some("") for a bare `?`. Bytes that are no UTF-8 are escaped.
    query: Option<String>,
    fragment: String,
}

/// Who asks, unescaped.
#[derive(Clone, PartialEq, Eq, Debug)]
struct User {
    name: Vec<u8>,
    password: Option<Vec<u8>>,
}

/// Why a text is no URL, in Go's words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("parse {}: {problem}", quote(text))]
pub struct UrlError {
    text: Vec<u8>,
    problem: String,
}

/// What a 3xx answer with a Location means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Redirect {
    Follow(Box<Hop>),
    /// The 3xx answer itself is the result: it leads to another host name.
    NotFollowed,
    /// The run fails with `Get "<url>": <error>`.
    Failed {
        url: Box<[u8]>,
        error: Box<str>,
    },
}

/// What is spoken to a URL's host.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// As it stands in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// Where it is spoken when a URL names no port.
    pub const fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }

    /// The scheme that a URL names, if it is one of these.
    pub fn parse(text: &str) -> Option<Scheme> {
        [Scheme::Http, Scheme::Https].into_iter().find(|scheme| scheme.as_str() == text)
    }
}

/// Where a redirect leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hop {
    pub scheme: Scheme,
    pub host: Host,
    /// The host's name as the URL has it.
    pub name: Box<str>,
    pub port: u16,
    /// As quoted in error texts.
    pub url: Box<str>,
    /// Path and query for the request line.
    pub request_target: Box<str>,
    /// Value of the Host header, unless a custom one is kept.
    pub authority: Box<str>,
    /// The Location was relative: a custom Host header stays.
    pub keeps_custom_host: bool,
    /// Value of the Referer header; None: none is sent.
    pub referer: Option<Box<str>>,
    pub login: Login,
}

/// What a hop's URL says of who asks. A header of the manifest counts for more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Login {
    None,
    /// Value of the Authorization header: the Location names a user.
    Basic(Box<str>),
    /// The Location goes on in the URL that was asked, whose user stays.
    Kept,
}

impl Url {
    /// The URL of an HTTP probe. A path that is no valid URL reference is taken as a bare path, and so is one
    /// that starts with a scheme but no slash (`a:b`).
    ///
    /// # Errors
    /// The host name contains characters that no host has, or that are not ASCII.
    pub fn for_probe(scheme: Scheme, host: &str, port: u16, path: &str) -> Result<Url, UrlError> {
        let mut url = match Url::parse(path) {
            Ok(url) if url.opaque.is_empty() => url,
            Ok(_) | Err(_) => Url {
                scheme: String::new(),
                opaque: String::new(),
                user: None,
                authority: String::new(),
                path: escape_path(path),
                query: None,
                fragment: String::new(),
            },
        };
        url.scheme = scheme.as_str().to_owned();
        url.authority = join_host_port(host, port);
        let checked = parse_host(url.authority.as_bytes());
        match checked.and_then(|escaped| check_plain(&escaped).map(|()| escaped)) {
            Ok(escaped) => url.authority = escaped,
            Err(problem) => return Err(UrlError { text: url.text().into(), problem }),
        }
        if !url.path.is_empty() && !url.path.starts_with('/') {
            url.path.insert(0, '/');
        }
        Ok(url)
    }

    /// Reads a URL or a relative reference.
    ///
    /// # Errors
    /// Control characters, a broken escape, a bad host or port, a colon in the first segment of a relative
    /// path.
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        Url::parse_bytes(text.as_bytes())
    }

    fn parse_bytes(text: &[u8]) -> Result<Url, UrlError> {
        parse(text).map_err(|problem| UrlError { text: text.to_owned(), problem })
    }

    /// The whole URL, with any password replaced, as error texts have it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.scheme.is_empty() {
            text.push_str(&self.scheme);
            text.push(':');
        }
        if self.opaque.is_empty() {
            if !self.authority.is_empty() {
                text.push_str("//");
                if let Some(User { name, password }) = &self.user {
                    text.push_str(&escape(name, Part::User));
                    text.push_str(if password.is_some() { ":***@" } else { "@" });
                }
                text.push_str(&self.authority);
            }
            text.push_str(&self.path);
        } else {
            text.push_str(&self.opaque);
        }
        if let Some(query) = &self.query {
            text.push('?');
            text.push_str(query);
        }
        if !self.fragment.is_empty() {
            text.push('#');
            text.push_str(&self.fragment);
        }
        text
    }

    /// What stands in the request line: path (`/` if empty) and query, never the fragment.
    pub fn request_target(&self) -> String {
        let path = if self.path.is_empty() { "/" } else { &self.path };
        match &self.query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        }
    }

    /// Value of the Authorization header for the user that the URL names.
    pub fn basic_auth(&self) -> Option<String> {
        let User { name, password } = self.user.as_ref()?;
        let login = [name.as_slice(), b":", password.as_deref().unwrap_or_default()].concat();
        Some(format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(login)))
    }

    /// Host with port as written: the default Host header.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host without port and brackets, as written.
    pub fn host_name(&self) -> &str {
        let (host, _) = split_port(&self.authority);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// The reference `text`, seen from this URL.
    fn join(&self, text: &[u8]) -> Result<(Url, Url), UrlError> {
        let reference = Url::parse_bytes(text)?;
        let mut url = reference.clone();
        if !url.scheme.is_empty() || !url.authority.is_empty() {
            if url.scheme.is_empty() {
                url.scheme.clone_from(&self.scheme);
            }
            url.path = resolve_path(&url.path, "");
            return Ok((url, reference));
        }
        url.scheme.clone_from(&self.scheme);
        if reference.path.is_empty() && reference.query.is_none() {
            url.query.clone_from(&self.query);
            if reference.fragment.is_empty() {
                url.fragment.clone_from(&self.fragment);
            }
        }
        url.authority.clone_from(&self.authority);
        url.user.clone_from(&self.user);
        url.path = resolve_path(&self.path, &reference.path);
        Ok((url, reference))
    }
}

/// Follows `location`, the Location of the answer to a request for `base`, of which kind `requests` were made. The
/// comparison of host names is textual and ignores ports; since every hop has the first one's name where only those are
/// followed, comparing with `base` is comparing with the first. In Go's order: the Location is parsed, then hosts are
/// compared, then requests counted, and what is wrong with the next one shows when it is made.
pub fn redirect(base: &str, location: &[u8], followed: Redirects, requests: u32) -> Redirect {
    let failed = |url: &[u8], error: String| Redirect::Failed { url: url.into(), error: error.into() };
    let base_url = match Url::parse(base) {
        Ok(url) => url,
        Err(error) => return failed(base.as_bytes(), error.to_string()),
    };
    let (url, reference) = match base_url.join(location) {
        Ok(joined) => joined,
        Err(error) => {
            let error = format!("failed to parse Location header {}: {error}", quote(location));
            return failed(base.as_bytes(), error);
        }
    };
    if followed == Redirects::SameHost && url.host_name() != base_url.host_name() {
        return Redirect::NotFollowed;
    }
    if requests >= HTTP_REQUESTS_MAX {
        return failed(location, format!("stopped after {HTTP_REQUESTS_MAX} redirects"));
    }
    let text = url.text();
    let failed = |error: String| failed(text.as_bytes(), error);
    let Some(scheme) = Scheme::parse(&url.scheme) else {
        return failed(format!("unsupported protocol scheme \"{}\"", url.scheme));
    };
    if url.authority.is_empty() {
        return failed("http: no Host in request URL".to_owned());
    }
    if let Err(problem) = check_plain(&url.authority) {
        return failed(problem);
    }
    let (_, port_text) = split_port(&url.authority);
    let port = match port_text {
        "" => scheme.port(),
        text => match text.parse::<u16>() {
            Ok(port) => port,
            Err(_) => return failed(format!("dial tcp: address {text}: invalid port")),
        },
    };
    let is_downgrade = base_url.scheme == Scheme::Https.as_str() && scheme == Scheme::Http;
    Redirect::Follow(Box::new(Hop {
        scheme,
        host: host_of(url.host_name()),
        name: url.host_name().into(),
        port,
        url: text.as_str().into(),
        request_target: url.request_target().into(),
        authority: url.authority.as_str().into(),
        keeps_custom_host: reference.scheme.is_empty(),
        referer: (!is_downgrade).then(|| Url { user: None, ..base_url }.text().into()),
        login: match url.basic_auth() {
            Some(_) if reference.authority.is_empty() => Login::Kept,
            Some(basic) => Login::Basic(basic.into()),
            None => Login::None,
        },
    }))
}

/// An address if it is one, else a name to look up.
pub fn host_of(text: &str) -> Host {
    match text.parse::<IpAddr>() {
        Ok(ip) => Host::Ip(ip),
        Err(_) => Host::Name(text.into()),
    }
}

/// A bare path as it stands in a URL: everything that is no path character as percent escapes.
pub fn escape_path(path: &str) -> String {
    escape(path.as_bytes(), Part::Path)
}

/// Go's net.JoinHostPort: brackets around everything that contains a colon.
pub fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn parse(text: &[u8]) -> Result<Url, String> {
    if text.iter().any(|byte| *byte < 0x20 || *byte == 0x7f) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    let (rest, fragment) = cut(text, b'#');
    let fragment = normalise(fragment.unwrap_or_default(), Part::Fragment)?;
    let (scheme, rest) = split_scheme(rest)?;
    let (rest, query) = cut(rest, b'?');
    let mut url = Url {
        scheme,
        opaque: String::new(),
        user: None,
        authority: String::new(),
        path: String::new(),
        query: query.map(utf8),
        fragment,
    };
    if !rest.starts_with(b"/") {
        if !url.scheme.is_empty() && !rest.is_empty() {
            url.opaque = utf8(rest);
            return Ok(url);
        }
        if cut(rest, b'/').0.contains(&b':') {
            return Err("first path segment in URL cannot contain colon".to_owned());
        }
    }
    let mut path = rest;
    let may_have_authority = !url.scheme.is_empty() || !rest.starts_with(b"///");
    if let Some(after) = rest.strip_prefix(b"//").filter(|_| may_have_authority) {
        let (authority, tail) = after.split_at(cut(after, b'/').0.len());
        path = tail;
        let (user, host) = match authority.iter().rposition(|byte| *byte == b'@') {
            Some(at) => (Some(&authority[..at]), &authority[at + 1..]),
            None => (None, authority),
        };
        url.authority = parse_host(host)?;
        url.user = user.map(User::parse).transpose()?;
    }
    url.path = normalise(path, Part::Path)?;
    Ok(url)
}

/// What stands before the first `at`, and what behind it.
fn cut(text: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|byte| *byte == at) {
        Some(place) => (&text[..place], Some(&text[place + 1..])),
        None => (text, None),
    }
}

/// As it is, but for bytes that are no UTF-8: they are escaped.
fn utf8(bytes: &[u8]) -> String {
    bytes.utf8_chunks().fold(String::with_capacity(bytes.len()), |mut text, chunk| {
        text.push_str(chunk.valid());
        text.push_str(&escape(chunk.invalid(), Part::Path));
        text
    })
}

impl User {
    /// What stands before the `@` of an authority.
    fn parse(text: &[u8]) -> Result<User, String> {
        let is_valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(byte);
        if !text.iter().all(is_valid) {
            return Err("net/url: invalid userinfo".to_owned());
        }
        let (name, password) = cut(text, b':');
        Ok(User { name: unescape(name)?, password: password.map(unescape).transpose()? })
    }
}

/// The scheme in lower case (empty if there is none) and what follows its colon.
fn split_scheme(text: &[u8]) -> Result<(String, &[u8]), String> {
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            b':' => return Ok((utf8(&text[..at].to_ascii_lowercase()), &text[at + 1..])),
            _ => break,
        }
    }
    Ok((String::new(), text))
}

/// Host and port text of an authority; the port is empty if there is none.
fn split_port(authority: &str) -> (&str, &str) {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        Some(_) | None => (authority, ""),
    }
}

/// A host and an optional port, with what is not ASCII escaped.
fn parse_host(text: &[u8]) -> Result<String, String> {
    let place = |byte| text.iter().rposition(|other| *other == byte);
    let port = if text.starts_with(b"[") {
        let end = place(b']').ok_or("missing ']' in host")?;
        &text[end + 1..]
    } else {
        place(b':').map_or(&text[..0], |at| &text[at..])
    };
    let digits = port.strip_prefix(b":").unwrap_or(port);
    if !port.is_empty() && (digits.len() == port.len() || !digits.iter().all(u8::is_ascii_digit)) {
        return Err(format!("invalid port {} after host", quote(port)));
    }
    let mut escaped = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let count = if *byte == b'%' { 3 } else { 1 };
        let piece = &text[at..text.len().min(at + count)];
        match byte {
            // Only what cannot stand there as it is may be escaped.
            b'%' => match unescape(piece)?.as_slice() {
                [plain @ ..0x80] if *plain != b'%' => {
                    return Err(format!("invalid URL escape {}", quote(piece)));
                }
                decoded => escaped.push_str(&escape(decoded, Part::Path)),
            },
            0x80.. => escaped.push_str(&escape(piece, Part::Path)),
            plain if plain.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"".contains(plain) => {
                escaped.push(char::from(*plain));
            }
            _ => return Err(format!("invalid character {} in host name", quote(piece))),
        }
        at += count;
    }
    Ok(escaped)
}

/// Go turns other names into punycode. It takes the tables of Unicode to do that, which defib has not.
fn check_plain(authority: &str) -> Result<(), String> {
    if authority.contains('%') {
        return Err("the host name is not ASCII: write it in punycode (xn--…)".to_owned());
    }
    Ok(())
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Part {
    Path,
    Fragment,
    User,
}

/// The escaped form that Go would send: as written where that is valid, else decoded and escaped anew.
fn normalise(raw: &[u8], part: Part) -> Result<String, String> {
    let decoded = unescape(raw)?;
    let is_valid = raw.iter().all(|byte| b"!$&'()*+,;=:@[]%".contains(byte) || !must_escape(*byte, part));
    Ok(if is_valid { utf8(raw) } else { escape(&decoded, part) })
}

fn unescape(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'%' {
            decoded.push(bytes[at]);
            at += 1;
            continue;
        }
        let digit = |offset: usize| bytes.get(at + offset).and_then(|b| char::from(*b).to_digit(16));
        let (Some(high), Some(low)) = (digit(1), digit(2)) else {
            let end = bytes.len().min(at + 3);
            return Err(format!("invalid URL escape {}", quote(&bytes[at..end])));
        };
        decoded.push((high * 16 + low) as u8);
        at += 3;
    }
    Ok(decoded)
}

fn escape(bytes: &[u8], part: Part) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len()), |mut text, byte| {
        if must_escape(*byte, part) {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        } else {
            text.push(char::from(*byte));
        }
        text
    })
}

fn must_escape(byte: u8, part: Part) -> bool {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => false,
        b'/' | b':' | b'@' => part == Part::User,
        b'$' | b'&' | b'+' | b',' | b';' | b'=' => false,
        b'?' => part != Part::Fragment,
        b'!' | b'(' | b')' | b'*' => part != Part::Fragment,
        _ => true,
    }
}

/// Path `reference` seen from path `base`, with `.` and `..` removed.
fn resolve_path(base: &str, reference: &str) -> String {
    let full = if reference.is_empty() {
        base.to_owned()
    } else if reference.starts_with('/') {
        reference.to_owned()
    } else {
        let folder = base.rfind('/').map_or("", |at| &base[..=at]);
        format!("{folder}{reference}")
    };
    if full.is_empty() {
        return full;
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut last = "";
    for segment in full.strip_prefix('/').unwrap_or(&full).split('/') {
        last = segment;
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let closes = if (last == "." || last == "..") && !kept.is_empty() { "/" } else { "" };
    format!("/{}{closes}", kept.join("/"))
}
