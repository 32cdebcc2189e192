//! What is wrong with manifests, and what of them has no effect.

use std::fmt;

/// Where in the input something is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The file as it was named; `-` for standard input.
    pub file: String,
    /// Counted from 1 over the documents of the file that are not empty; None for the file itself.
    pub document: Option<usize>,
    /// Counted from 0 over the items of a list, as in a field path; None outside of one.
    pub item: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.document {
            None => f.write_str(&self.file)?,
            Some(document) => write!(f, "{}: document {document}", self.file)?,
        }
        self.item.map_or(Ok(()), |item| write!(f, ": items[{item}]"))
    }
}

/// One error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    pub place: Place,
    /// `spec.containers[0].name: Required value`, or a text about the document as a whole.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// Everything that is wrong, one line each. Never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadErrors {
    pub problems: Vec<Problem>,
}

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadErrors {}

/// A field that is valid and has no effect here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotHonoured {
    pub place: Place,
    /// `spec.volumes`
    pub path: String,
    pub why: &'static str,
}

impl fmt::Display for NotHonoured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.path, self.why)
    }
}
