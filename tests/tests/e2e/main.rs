//! What users were promised, on a Kubernetes and with the product's own programs.
//!
//! One binary, so that one sandbox, one operator and one gateway serve all of it.

mod bounds;
mod cut;
mod failures;
mod faults;
mod grant;
mod hostile;
mod isolation;
mod keepalive;
mod quiet;
mod refusals;
mod subprotocols;
