//! Recordings: what goes over a connection, kept for those who must be able to look later.

pub mod tap;

pub use tap::{Room, Tap};
