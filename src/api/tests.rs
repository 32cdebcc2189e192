//! The API over a real Unix socket, with an agent that only plays its part.

mod logs;
mod metrics;
mod objects;
mod socket;
mod watches;
mod world;
mod writes;
