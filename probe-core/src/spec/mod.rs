//! Pod YAML or JSON, in three steps: parse, default, validate (kubelet-semantics 1 to 3).
//!
//! ```text
//! source     files, folders, standard input: bounded reading
//! decode     text to documents to pods; unknown and repeated fields are errors
//! default    what the API server fills in
//! validate   what the API server refuses, in its words; all errors at once
//! honour     what is valid and has no effect here, named once
//! convert    to `model::pod::PodSpec`
//! load       all of it for a set of files, and what only shows across pods
//! ```

mod annotations;
mod convert;
mod decode;
mod default;
mod error;
mod honour;
mod load;
mod names;
mod quantity;
mod source;
#[cfg(test)]
mod tests;
mod validate;

pub use annotations::{Timing, timing};
pub use error::{LoadErrors, NotHonoured, Place, Problem};
pub use load::{JsonContext, LoadOptions, Loaded, LoadedPod, load_files, pod_from_json};
