//! Version `v1alpha1` of the API.

mod session;

pub use session::{
    ConsoleSession, ConsoleSessionSpec, ConsoleSessionStatus, Credential, EndReason, Mode, Phase,
    PodTarget, ResolvedTarget, Target,
};
