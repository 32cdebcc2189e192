//! URLs the way Go's net/url reads and writes them, since kubelet's probes, error texts and redirects are
//! made by it (kubelet-semantics 3.3, 4.3).

use std::fmt::Write as _;
use std::net::IpAddr;

use base64::Engine as _;

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
    /// Host with optional port, IPv6 in brackets; empty for a relative reference.
    authority: String,
    path: String,
    /// Some("") for a bare `?`.
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
#[error("parse {}: {problem}", quote(text.as_bytes()))]
pub struct UrlError {
    text: String,
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
        url: Box<str>,
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
    /// The host name contains characters that no host has.
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
        if let Err(problem) = check_host(&url.authority) {
            return Err(UrlError { text: url.text(), problem });
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
    fn join(&self, text: &str) -> Result<(Url, Url), UrlError> {
        let reference = Url::parse(text)?;
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

/// Follows `location`, the Location of the answer to a request for `base`. The comparison of host names is
/// textual and ignores ports; since every hop has the first one's name where only those are followed, comparing with
/// `base` is comparing with the first.
pub fn redirect(base: &str, location: &str, followed: Redirects) -> Redirect {
    let failed = |url: &str, error: String| Redirect::Failed { url: url.into(), error: error.into() };
    let base_url = match Url::parse(base) {
        Ok(url) => url,
        Err(error) => return failed(base, error.to_string()),
    };
    let (url, reference) = match base_url.join(location) {
        Ok(joined) => joined,
        Err(error) => {
            return failed(
                base,
                format!("failed to parse Location header {}: {error}", quote(location.as_bytes())),
            );
        }
    };
    if followed == Redirects::SameHost && url.host_name() != base_url.host_name() {
        return Redirect::NotFollowed;
    }
    let Some(scheme) = Scheme::parse(&url.scheme) else {
        return failed(&url.text(), format!("unsupported protocol scheme \"{}\"", url.scheme));
    };
    if url.authority.is_empty() {
        return failed(&url.text(), "http: no Host in request URL".to_owned());
    }
    let (_, port_text) = split_port(&url.authority);
    let port = match port_text {
        "" => scheme.port(),
        text => match text.parse::<u16>() {
            Ok(port) => port,
            Err(_) => return failed(&url.text(), format!("dial tcp: address {text}: invalid port")),
        },
    };
    let is_downgrade = base_url.scheme == Scheme::Https.as_str() && scheme == Scheme::Http;
    Redirect::Follow(Box::new(Hop {
        scheme,
        host: host_of(url.host_name()),
        name: url.host_name().into(),
        port,
        url: url.text().into(),
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

fn parse(text: &str) -> Result<Url, String> {
    if text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let fragment = normalise(fragment, Part::Fragment)?;
    let (scheme, rest) = split_scheme(rest)?;
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query.to_owned())),
        None => (rest, None),
    };
    let mut url = Url {
        scheme,
        opaque: String::new(),
        user: None,
        authority: String::new(),
        path: String::new(),
        query,
        fragment,
    };
    if !rest.starts_with('/') {
        if !url.scheme.is_empty() && !rest.is_empty() {
            url.opaque = rest.to_owned();
            return Ok(url);
        }
        if rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
            return Err("first path segment in URL cannot contain colon".to_owned());
        }
    }
    let mut path = rest;
    let may_have_authority = !url.scheme.is_empty() || !rest.starts_with("///");
    if let Some(after) = rest.strip_prefix("//").filter(|_| may_have_authority) {
        let end = after.find('/').unwrap_or(after.len());
        let authority = &after[..end];
        path = &after[end..];
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        check_host(host)?;
        url.user = user.map(User::parse).transpose()?;
        url.authority = host.to_owned();
    }
    url.path = normalise(path, Part::Path)?;
    Ok(url)
}

impl User {
    /// What stands before the `@` of an authority.
    fn parse(text: &str) -> Result<User, String> {
        let is_valid = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
        if !text.chars().all(is_valid) {
            return Err("net/url: invalid userinfo".to_owned());
        }
        let (name, password) = match text.split_once(':') {
            Some((name, password)) => (name, Some(unescape(password)?)),
            None => (text, None),
        };
        Ok(User { name: unescape(name)?, password })
    }
}

/// The scheme in lower case (empty if there is none) and what follows its colon.
fn split_scheme(text: &str) -> Result<(String, &str), String> {
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            b':' => return Ok((text[..at].to_ascii_lowercase(), &text[at + 1..])),
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

/// Are these a host and an optional port?
fn check_host(authority: &str) -> Result<(), String> {
    let port = if let Some(bracketed) = authority.strip_prefix('[') {
        let Some((_, port)) = bracketed.rsplit_once(']') else {
            return Err("missing ']' in host".to_owned());
        };
        port
    } else {
        authority.rfind(':').map_or("", |at| &authority[at..])
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    if !port.is_empty() && (digits.len() == port.len() || !digits.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("invalid port {} after host", quote(port.as_bytes())));
    }
    if authority.contains('%') {
        let at = authority.find('%').unwrap_or_default();
        let end = authority.len().min(at + 3);
        return Err(format!("invalid URL escape {}", quote(&authority.as_bytes()[at..end])));
    }
    let is_host_char =
        |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "-_.~!$&'()*+,;=:[]<>\"".contains(c);
    match authority.chars().find(|c| !is_host_char(*c)) {
        Some(bad) => Err(format!("invalid character {} in host name", quote(bad.to_string().as_bytes()))),
        None => Ok(()),
    }
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Part {
    Path,
    Fragment,
    User,
}

/// The escaped form that Go would send: as written where that is valid, else decoded and escaped anew.
fn normalise(raw: &str, part: Part) -> Result<String, String> {
    let decoded = unescape(raw)?;
    let is_valid = raw.bytes().all(|byte| b"!$&'()*+,;=:@[]%".contains(&byte) || !must_escape(byte, part));
    Ok(if is_valid { raw.to_owned() } else { escape(&decoded, part) })
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let bytes = text.as_bytes();
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
