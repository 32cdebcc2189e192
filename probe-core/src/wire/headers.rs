//! The header lines of a probe's request, in the order in which Go's client writes them
//! (kubelet-semantics 4.1).

use super::url::{Hop, Login};
use crate::model::probe::Dropped;

/// One header line: name and value as they go on the wire.
pub type Header = (Box<str>, Box<str>);

/// User agent of probes and of lifecycle hooks: kubelet 1.34 is emulated.
pub const AGENT_PROBE: &str = "kube-probe/1.34";
/// `User-Agent` of HTTP hooks (kubelet-semantics 13).
pub const AGENT_HOOK: &str = "kube-lifecycle/1.34";

/// A header value that cannot go on the wire.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("net/http: invalid header field value for {name:?}")]
pub struct BadHeader {
    name: Box<str>,
}

/// All header lines of a request: Host, User-Agent, the rest sorted by canonical name, Connection.
///
/// `given` are the manifest's headers in its order, `authority` the URL's host and port.
///
/// # Errors
/// A value contains control characters.
pub fn request_headers(
    given: &[(Box<str>, Box<str>)],
    authority: &str,
    agent: &str,
) -> Result<Vec<Header>, BadHeader> {
    let mut lines: Vec<Header> = Vec::with_capacity(given.len() + 4);
    for (name, value) in given {
        let name: Box<str> = canonical(name).into();
        if value.bytes().any(|byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f) {
            return Err(BadHeader { name });
        }
        lines.push((name, value.trim_matches([' ', '\t']).into()));
    }
    if first(&lines, "User-Agent").is_none() {
        lines.push(("User-Agent".into(), agent.into()));
    }
    match first(&lines, "Accept") {
        None => lines.push(("Accept".into(), "*/*".into())),
        Some("") => lines.retain(|(name, _)| &**name != "Accept"),
        Some(_) => {}
    }
    let host = first(&lines, "Host").filter(|host| !host.is_empty()).unwrap_or(authority).to_owned();
    Ok(in_order(&host, lines))
}

/// A redirect, as far as header lines depend on it.
pub struct Redirected<'a> {
    /// Lines of the first request of the run, without a login that its URL names.
    pub first: &'a [Header],
    /// Which of them are not sent any more.
    pub dropped: Dropped,
    /// Lines of the request that was redirected, and host and port of its URL.
    pub current: &'a [Header],
    pub current_authority: &'a str,
    pub hop: &'a Hop,
}

/// The header lines after a redirect: those of the first request, but for what another host is not to see, and for what
/// describes a body that a GET does not have.
pub fn redirected(redirected: &Redirected<'_>) -> Vec<Header> {
    const SECRET: [&str; 6] = [
        "Authorization",
        "Www-Authenticate",
        "Cookie",
        "Cookie2",
        "Proxy-Authorization",
        "Proxy-Authenticate",
    ];
    const OF_BODY: [&str; 4] = ["Content-Encoding", "Content-Language", "Content-Location", "Content-Type"];
    let Redirected { first: given, dropped, current, current_authority, hop } = redirected;
    // The last line is the client's own; it is added again behind the Referer.
    let mut lines = without_close(given).to_vec();
    let is_dropped = |name: &str| {
        dropped.secrets && SECRET.contains(&name)
            || dropped.of_body && OF_BODY.contains(&name)
            || dropped.authorization && name == "Authorization"
    };
    lines.retain(|(name, _)| !is_dropped(name));
    if let Some(referer) = &hop.referer {
        // The manifest's first one counts for more, and becomes the only one.
        let own = first(&lines, "Referer").filter(|own| !own.is_empty()).map(Box::from);
        lines.retain(|(name, _)| &**name != "Referer");
        lines.push(("Referer".into(), own.unwrap_or_else(|| referer.clone())));
    }
    let login = match &hop.login {
        Login::None => None,
        Login::Basic(login) => Some(&**login),
        Login::Kept => first(current, "Authorization"),
    };
    if let Some(login) = login {
        log_in(&mut lines, login);
    }
    let current_host = host(current);
    let is_custom = current_host != *current_authority;
    let host = if is_custom && hop.keeps_custom_host { current_host } else { &hop.authority };
    in_order(host, lines)
}

/// Says who asks, for a URL that names a user, if the first Authorization line does not say it. Returns the values of
/// the lines that this replaces.
pub fn log_in(lines: &mut Vec<Header>, login: &str) -> Option<Box<[Box<str>]>> {
    let is_authorization = |(name, _): &Header| name.eq_ignore_ascii_case("Authorization");
    if lines.iter().find(|line| is_authorization(line)).is_some_and(|(_, value)| !value.is_empty()) {
        return None;
    }
    let replaced = lines.extract_if(.., |line| is_authorization(line)).map(|(_, value)| value).collect();
    lines.push(("Authorization".into(), login.into()));
    Some(replaced)
}

/// What the next request does not send of the first one's headers: `name` is the host's that it goes to, and `status` of
/// the answer that leads there.
pub fn dropped(before: Dropped, home: &str, name: &str, status: u16) -> Dropped {
    Dropped {
        secrets: before.secrets || !is_at_home(name, home),
        of_body: before.of_body || (301..=303).contains(&status),
        authorization: before.authorization,
    }
}

/// The same name, or one below it: `a.example.com` below `example.com`.
fn is_at_home(name: &str, home: &str) -> bool {
    let (name, home) = (name.to_ascii_lowercase(), home.to_ascii_lowercase());
    name == home
        || !name.contains([':', '%']) && name.strip_suffix(&home).is_some_and(|below| below.ends_with('.'))
}

/// The lines without the client's own `Connection: close`, which is the last one. A header of the manifest that says
/// the same stays.
pub fn without_close(lines: &[Header]) -> &[Header] {
    match lines.split_last() {
        Some(((name, value), rest)) if (&**name, &**value) == ("Connection", "close") => rest,
        Some(_) | None => lines,
    }
}

/// Value of the Host line, which is always the first.
pub fn host(lines: &[Header]) -> &str {
    first(lines, "Host").unwrap_or_default()
}

/// Sorts lines into wire order and drops those that Go's client never takes from a header map.
fn in_order(host: &str, lines: Vec<Header>) -> Vec<Header> {
    let agent = first(&lines, "User-Agent").filter(|agent| !agent.is_empty()).map(Box::from);
    let is_own = |name: &str| {
        matches!(name, "Host" | "User-Agent" | "Content-Length" | "Transfer-Encoding" | "Trailer")
    };
    let mut rest: Vec<Header> = lines.into_iter().filter(|(name, _)| !is_own(name)).collect();
    rest.sort_by(|(a, _), (b, _)| a.cmp(b));
    let has_token = |token: &str| {
        rest.iter()
            .filter(|(name, _)| &**name == "Connection")
            .flat_map(|(_, value)| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    let closes = !has_token("close") && !has_token("upgrade");
    let mut ordered: Vec<Header> = vec![("Host".into(), host.into())];
    ordered.extend(agent.map(|agent| ("User-Agent".into(), agent)));
    ordered.append(&mut rest);
    if closes {
        ordered.push(("Connection".into(), "close".into()));
    }
    ordered
}

fn first<'a>(lines: &'a [Header], name: &str) -> Option<&'a str> {
    lines.iter().find(|(line, _)| &**line == name).map(|(_, value)| &**value)
}

/// Go's canonical header name: upper case at the start and after each hyphen, lower case elsewhere. A name
/// with characters that no header name has stays as it is.
pub fn canonical(name: &str) -> String {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !name.bytes().all(is_token) {
        return name.to_owned();
    }
    let mut starts_word = true;
    let case = |c: char| {
        let cased = if starts_word { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
        starts_word = c == '-';
        cased
    };
    name.chars().map(case).collect()
}
