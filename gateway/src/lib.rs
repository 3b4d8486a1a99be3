//! The gateway: from a token and a WebSocket to a shell in one container, and no longer than the grant lasts.
//!
//! ```text
//!  client ─TCP/TLS─► listener ─► gate ──► route, origin, credential      pure: what is asked, and by whom it claims to be
//!                      │lobby      ├────► auth ──────────TokenReview───► API server
//!                      │           ├────► sessions ◄───────watch──────── API server
//!                      │           │        │ cuts
//!                      │           ├────► open          register, then check (grant), then serve
//!                      │           ├────► upstream ─────WebSocket──────► API server as the session's account, or kubelet
//!                      │           ├────► upgrade       101 only after the upstream's
//!                      │           └────► web           the page with a terminal in it: no credential, nothing secret
//!                      └───────────────── bridge        relays until either side, a limit or `open` ends it
//!
//!  port    who connects          what proves it                         what they may
//!  8443    people's clients      a session's token, audience checked    what that session grants
//!  9090    kubelet, Prometheus   nothing                                health and metrics
//!  out     us → API server       our ServiceAccount                     TokenReviews, watch sessions, impersonate sessions
//! ```
//!
//! The gateway has no right to exec. It acts as accounts that exist only while their session does.

pub mod args;
pub mod auth;
pub mod bridge;
pub mod clock;
pub mod cluster;
pub mod console;
pub mod credential;
pub mod discovery;
pub mod drain;
pub mod gate;
pub mod grant;
pub mod listener;
pub mod lobby;
pub mod metrics;
pub mod open;
pub mod origin;
pub mod pods;
pub mod recall;
pub mod record;
pub mod refusal;
pub mod reload;
pub mod route;
pub mod session;
pub mod sessions;
pub mod tls;
pub mod transport;
pub mod upgrade;
pub mod upstream;
pub mod web;
