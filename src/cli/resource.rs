//! What verbs are about: `pods`, `pod NAME`, `pod/NAME`, `events`.

use thiserror::Error;

/// A kind that can be named on the command line.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    Pods,
    Events,
}

impl Kind {
    /// As in paths: `pods`.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Pods => "pods",
            Kind::Events => "events",
        }
    }

    /// As in `pod/NAME`.
    pub fn singular(self) -> &'static str {
        match self {
            Kind::Pods => "pod",
            Kind::Events => "event",
        }
    }

    /// As in the field `kind`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Pods => "Pod",
            Kind::Events => "Event",
        }
    }

    fn parse(word: &str) -> Result<Kind, UsageError> {
        match &*word.to_lowercase() {
            "pods" | "pod" | "po" => Ok(Kind::Pods),
            "events" | "event" | "ev" => Ok(Kind::Events),
            _ => Err(UsageError(format!("error: the server doesn't have a resource type \"{word}\""))),
        }
    }
}

/// What was typed makes no sense (exit code 2).
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// One kind, and the names wanted of it; none means all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    pub kind: Kind,
    pub names: Vec<String>,
}

impl Wanted {
    /// `TYPE`, `TYPE NAME…` or `TYPE/NAME…`.
    ///
    /// # Errors
    /// Another type, both forms mixed, or several types.
    pub fn parse(words: &[String]) -> Result<Wanted, UsageError> {
        let Some(first) = words.first() else {
            return Err(UsageError("error: You must specify the type of resource".to_owned()));
        };
        if !first.contains('/') {
            if let Some(mixed) = words.iter().find(|word| word.contains('/')) {
                return Err(UsageError(format!(
                    "error: there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'defib get {mixed}')"
                )));
            }
            return Ok(Wanted { kind: Kind::parse(first)?, names: words[1..].to_vec() });
        }
        let mut wanted: Option<Wanted> = None;
        for word in words {
            let Some((kind, name)) = word.split_once('/').filter(|(_, name)| !name.is_empty()) else {
                return Err(UsageError(format!("error: {word:?} is not of the form TYPE/NAME")));
            };
            let kind = Kind::parse(kind)?;
            let wanted = wanted.get_or_insert(Wanted { kind, names: Vec::new() });
            if wanted.kind != kind {
                return Err(UsageError("error: only one type at a time".to_owned()));
            }
            wanted.names.push(name.to_owned());
        }
        wanted.ok_or_else(|| UsageError("error: You must specify the type of resource".to_owned()))
    }

    /// For verbs that only know pods.
    ///
    /// # Errors
    /// Another kind is wanted.
    pub fn pods(words: &[String]) -> Result<Vec<String>, UsageError> {
        match Wanted::parse(words)? {
            Wanted { kind: Kind::Pods, names } => Ok(names),
            Wanted { kind: Kind::Events, .. } => {
                Err(UsageError("error: this works for pods only; `defib get events` lists events".to_owned()))
            }
        }
    }
}

/// The pod named by `NAME` or `pod/NAME`.
///
/// # Errors
/// Another type is named.
pub fn pod_name(word: &str) -> Result<&str, UsageError> {
    match word.split_once('/') {
        None => Ok(word),
        Some((kind, name)) if Kind::parse(kind)? == Kind::Pods => Ok(name),
        Some(_) => Err(UsageError(format!("error: {word:?} is not a pod"))),
    }
}

/// The object of `--for TYPE/NAME`, with kubectl's words where it is none.
///
/// # Errors
/// Another form, or another type.
pub fn owner(word: &str) -> Result<(Kind, &str), UsageError> {
    let usage = |text: &str| UsageError(format!("error: {text}"));
    let (kind, name) = word.split_once('/').ok_or_else(|| usage("--for must be in resource/name form"))?;
    if name.contains('/') {
        return Err(usage("arguments in resource/name form may not have more than one slash"));
    }
    match name {
        "" => Err(usage("--for must be in resource/name form")),
        name => Ok((Kind::parse(kind)?, name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let wanted = |words: &str| {
            let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
            Wanted::parse(&words).map(|wanted| format!("{:?} {}", wanted.kind, wanted.names.join(",")))
        };
        let ok = |words, text: &str| assert_eq!(wanted(words), Ok(text.to_owned()));
        ok("pods", "Pods ");
        ok("po a b", "Pods a,b");
        ok("pod/a pods/b", "Pods a,b");
        ok("ev", "Events ");
        for bad in ["nodes", "pod a pod/b", "pod/a event/b", "pod/", "pod/a b"] {
            assert!(wanted(bad).is_err(), "{bad}");
        }
        assert_eq!(pod_name("a"), Ok("a"));
        assert_eq!(pod_name("pod/a"), Ok("a"));
        assert!(pod_name("event/a").is_err());
        assert_eq!(owner("po/a"), Ok((Kind::Pods, "a")));
        for bad in ["a", "pod/", "pod/a/b", "node/a"] {
            assert!(owner(bad).is_err(), "{bad}");
        }
    }
}
