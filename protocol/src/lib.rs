//! The Kubernetes exec and attach protocol over WebSocket: both of its sides, without I/O, clocks or tasks.
//!
//! ```text
//!  client                                                                                            upstream
//!    │  request headers ──► Offer ──► bearer, Subprotocol        Subprotocol ◄── UpstreamOffer ◄── response │
//!    │                      (subprotocol)                                        (subprotocol)              │
//!    │                                                                                                      │
//!    │  bytes ──► Walker ──┬─ Pass ──────────────────── the same bytes ───────────────────────────► bytes   │
//!    │           (walker)  ├─ Message ──► Input ──────── decoded, checked, encoded anew ──► Outbox ──► bytes │
//!    │                     └─ Control ──► the caller                                                        │
//!    │                                                                                                      │
//!    │  bytes ◄── Outbox ◄───────────── Output ◄── Message ──┬── Walker ◄──────────────────────────  bytes  │
//!    │            (transcode)           holds the Status     ├── Pass, Control                              │
//!    ▼                                  until the end        └── (frame, walker)                            ▼
//! ```
//!
//! `Input` and `Output` work on whole messages in any pair of subprotocols. Where both sides lay data out alike, the
//! walker asks them ([`Input::passes`], [`Output::passes`]) whether a frame may go through untouched.
//!
//! Every buffer is bounded, by a constant of its module or by the caller's message limit.
//!
//! [`Input::passes`]: transcode::Input::passes
//! [`Output::passes`]: transcode::Output::passes

pub mod encoding;
pub mod frame;
pub mod resize;
pub mod status;
pub mod subprotocol;
pub mod transcode;
pub mod walker;
