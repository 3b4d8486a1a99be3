//! What Drawbridge puts on the record, and how anybody can check it later.
//!
//! ```text
//!  bytes of a session ──► recording::Encoder ──► lines ──► SegmentWriter ──► chunks ──► segments ─┐
//!                         (what is kept)                   (chain, zstd, age)                     ├─► store
//!                                                          SegmentWriter::seal ──► manifest ──────┘
//!                                                                                  (dsse, keys)
//!  verify ◄── Source ◄── store        offline, with nothing but public keys
//!  Reader ◄── Source ◄── store        the events of a session, byte for byte
//!
//!  event ──► log: chain, checkpoint ──► spool ──► sink: stdout, file, webhook, NATS, Kafka
//!  chain::Verifier ◄── lines            offline, too
//! ```
//!
//! Whoever writes a record signs it with a key that only the operator and the gateway can read; whoever reads one needs
//! the public keys. A changed, missing, swapped or added byte breaks a hash that the next one contains.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that panics has failed")
)]

pub mod chain;
pub mod checkpoint;
pub mod dsse;
pub mod event;
pub mod hash;
pub mod keys;
#[cfg(feature = "log")]
pub mod log;
#[cfg(feature = "log")]
pub mod metrics;
pub mod recording;
#[cfg(feature = "log")]
pub mod sink;
#[cfg(feature = "store")]
pub mod store;
pub mod subject;
pub mod terminal;
