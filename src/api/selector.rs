//! `fieldSelector`: `key=value`, `key==value` and `key!=value`, joined by commas.

use std::borrow::Cow;

use super::error::ApiError;

/// All terms must hold. Fields are ones that never change in the life of an object, so a watch needs no
/// memory of what it has sent.
#[derive(Clone, Debug, Default)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug)]
struct Term {
    label: String,
    value: String,
    wanted: Wanted,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Wanted {
    Equal,
    Different,
}

impl FieldSelector {
    /// `labels` are the fields that this kind of object can be selected by.
    ///
    /// # Errors
    /// Bad syntax, or another field.
    pub fn parse(text: &str, labels: &[&str]) -> Result<FieldSelector, ApiError> {
        let terms = text.split(',').filter(|term| !term.is_empty());
        let terms: Vec<Term> = terms.map(|term| Term::parse(term, text)).collect::<Result<_, _>>()?;
        match terms.iter().find(|term| !labels.contains(&&*term.label)) {
            Some(term) => Err(ApiError::BadRequest(format!("field label not supported: {}", term.label))),
            None => Ok(FieldSelector { terms }),
        }
    }

    /// `field` gives the object's value of a field.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Cow<'a, str>) -> bool {
        self.terms.iter().all(|term| (field(&term.label) == *term.value) == (term.wanted == Wanted::Equal))
    }
}

impl Term {
    fn parse(term: &str, all: &str) -> Result<Term, ApiError> {
        let (label, value, wanted) = if let Some((label, value)) = term.split_once("!=") {
            (label, value, Wanted::Different)
        } else if let Some((label, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
            (label, value, Wanted::Equal)
        } else {
            return Err(ApiError::BadRequest(format!(
                "invalid selector: '{all}'; can't understand '{term}'"
            )));
        };
        Ok(Term { label: label.trim().to_owned(), value: value.trim().to_owned(), wanted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms() {
        let check = |text: &str| {
            let selector = FieldSelector::parse(text, &["a", "b"]).map_err(|error| error.to_string())?;
            Ok(selector.matches(|label| Cow::Borrowed(if label == "a" { "1" } else { "" })))
        };
        let cases = [
            ("", Ok(true)),
            ("a=1", Ok(true)),
            ("a==1,b=", Ok(true)),
            ("a=1,b=2", Ok(false)),
            ("a!=1", Ok(false)),
            ("b!=2", Ok(true)),
            ("c=1", Err("field label not supported: c".to_owned())),
            ("a", Err("invalid selector: 'a'; can't understand 'a'".to_owned())),
        ];
        for (text, expected) in cases {
            assert_eq!(check(text), expected, "{text}");
        }
    }
}
