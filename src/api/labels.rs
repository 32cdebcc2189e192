//! `labelSelector`: what an object's labels must be, in the API server's syntax (apimachinery, pkg/labels).

use std::collections::BTreeMap;

use super::error::ApiError;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// All terms must hold; without any, everything is selected.
#[derive(Clone, Debug, Default)]
pub struct LabelSelector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug)]
struct Term {
    key: String,
    wanted: Wanted,
}

#[derive(Clone, Debug)]
enum Wanted {
    Exists,
    Missing,
    In(Vec<String>),
    /// Also when there is no such label.
    NotIn(Vec<String>),
}

impl LabelSelector {
    /// `key`, `!key`, `key=value`, `key==value`, `key!=value`, `key in (a,b)` and `key notin (a,b)`, joined by commas.
    ///
    /// # Errors
    /// Bad syntax. `>` and `<` are not served.
    pub fn parse(text: &str) -> Result<LabelSelector, ApiError> {
        if text.trim().is_empty() {
            return Ok(LabelSelector::default());
        }
        let terms = split(text).into_iter().map(|term| {
            let wrong = || format!("unable to parse requirement: {:?} in {text:?}", term.trim());
            Term::parse(term.trim()).ok_or_else(|| ApiError::BadRequest(wrong()))
        });
        Ok(LabelSelector { terms: terms.collect::<Result<_, _>>()? })
    }

    /// Labels are asked for only if something is wanted of them.
    pub fn matches(&self, labels: impl FnOnce() -> Labels) -> bool {
        if self.terms.is_empty() {
            return true;
        }
        let labels = labels();
        self.terms.iter().all(|term| {
            let value = labels.get(&term.key);
            match &term.wanted {
                Wanted::Exists => value.is_some(),
                Wanted::Missing => value.is_none(),
                Wanted::In(values) => value.is_some_and(|value| values.contains(value)),
                Wanted::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            }
        })
    }
}

impl Term {
    fn parse(text: &str) -> Option<Term> {
        if let Some(key) = text.strip_prefix('!') {
            return Term::new(key, Wanted::Missing);
        }
        if let Some((head, list)) = text.split_once('(') {
            let values = list.strip_suffix(')')?.split(',').map(value).collect::<Option<Vec<_>>>()?;
            let (key, word) = head.trim().rsplit_once(char::is_whitespace)?;
            return match word {
                "in" => Term::new(key, Wanted::In(values)),
                "notin" => Term::new(key, Wanted::NotIn(values)),
                _ => None,
            };
        }
        if let Some((key, one)) = text.split_once("!=") {
            return Term::new(key, Wanted::NotIn(vec![value(one)?]));
        }
        match text.split_once("==").or_else(|| text.split_once('=')) {
            Some((key, one)) => Term::new(key, Wanted::In(vec![value(one)?])),
            None => Term::new(text, Wanted::Exists),
        }
    }

    fn new(key: &str, wanted: Wanted) -> Option<Term> {
        let key = key.trim();
        let is_key = !key.is_empty() && key.chars().all(|c| is_plain(c) || c == '/');
        is_key.then(|| Term { key: key.to_owned(), wanted })
    }
}

/// The empty value is one, too.
fn value(text: &str) -> Option<String> {
    let text = text.trim();
    text.chars().all(is_plain).then(|| text.to_owned())
}

/// What names and values of labels are made of.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// At the commas that are not in parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut is_inside = false;
    text.split(|c| {
        match c {
            '(' => is_inside = true,
            ')' => is_inside = false,
            _ => {}
        }
        c == ',' && !is_inside
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms() {
        let labels = || Labels::from([("app", "web"), ("x.io/tier", "a"), ("none", "")].map(owned));
        let selected =
            ["", " ", "app", "app=web", "app==web", " app = web , x.io/tier = a ", "none=", "none"];
        let sets =
            ["app in (db, web)", "app in(web),!other", "app notin (db)", "other notin (x,y)", "none in ()"];
        let others = ["app!=db", "other!=x", "!other", "app,x.io/tier notin (b,c),app!=db"];
        for text in selected.iter().chain(&sets).chain(&others) {
            assert!(LabelSelector::parse(text).unwrap().matches(labels), "{text}");
        }
        let outside =
            ["other", "app=db", "app!=web", "!app", "app in (db)", "app notin (web)", "app=web,other=x"];
        for text in outside {
            assert!(!LabelSelector::parse(text).unwrap().matches(labels), "{text}");
        }
        let bad = [
            "app=web,",
            ",",
            "=",
            "a b",
            "app>1",
            "app=web=db",
            "app in web",
            "app in (web",
            "app is (web)",
            "in (a)",
            "a!b",
            "!",
        ];
        for text in bad {
            let error = LabelSelector::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("unable to parse requirement: "), "{text}: {error}");
        }
    }

    fn owned((key, value): (&str, &str)) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }
}
