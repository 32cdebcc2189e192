//! Any bytes, in any pieces, as the answer to a probe. What must hold is said in the file that is included: the
//! ordinary tests hold the corpus to it.
#![no_main]

#[path = "../../probe-core/tests/corpus/http_answer.rs"]
mod http_answer;

libfuzzer_sys::fuzz_target!(|input: &[u8]| http_answer::check(input));
