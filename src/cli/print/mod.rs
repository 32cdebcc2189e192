//! What verbs print, as functions of API objects and the time: kubectl's words and columns.

pub mod age;
pub mod describe;
pub mod events;
pub mod pods;
pub mod probe;
pub mod table;
#[cfg(test)]
mod tests;
