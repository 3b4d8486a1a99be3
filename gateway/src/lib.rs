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
//!                      │           ├────► look ─────────recordings─────► store, for who may: a session's (grant) or people (SubjectAccessReview)
//!                      │           └────► web           the pages: no credential, nothing secret
//!                      └───────────────── bridge        relays until either side, a limit or `open` ends it
//!
//!  port    who connects          what proves it                         what they may
//!  8443    people's clients      a session's token, audience checked    what that session grants
//!  9090    kubelet, Prometheus   nothing                                health and metrics
//!  8443    auditors              the same, of `mode: Observe`; or any   recordings of one session
//!                                 token of the API server's
//!  out     us → API server       our ServiceAccount                     reviews, watch sessions, impersonate sessions
//! ```
//!
//! The gateway has no right to exec. It acts as accounts that exist only while their session does.

pub mod args;
pub mod auth;
pub mod body;
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
pub mod look;
pub mod metrics;
pub mod open;
pub mod origin;
pub mod people;
pub mod pods;
pub mod recall;
pub mod record;
pub mod refusal;
pub mod reload;
pub mod route;
pub mod session;
pub mod sessions;
pub mod tls;
mod told;
pub mod transport;
pub mod upgrade;
pub mod upstream;
pub mod web;
