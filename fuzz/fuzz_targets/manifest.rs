//! Any bytes, or pods of known fields with odd values, as a manifest. What must hold is said in the files that are
//! included: the ordinary tests hold the corpus to it.
#![no_main]

#[path = "../../probe-core/tests/corpus/manifest.rs"]
mod manifest;
#[path = "../../probe-core/tests/corpus/recipe.rs"]
mod recipe;

libfuzzer_sys::fuzz_target!(|input: &[u8]| manifest::check(input));
