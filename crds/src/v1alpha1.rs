//! Version `v1alpha1` of the API.

mod session;

pub use session::{
    ConsoleSession, ConsoleSessionSpec, ConsoleSessionStatus, Credential, EndReason, MAX_RECORDED,
    Mode, Observe, ObservedSession, Phase, PodTarget, Recorded, RecordingLevel, RecordingTerms,
    RecordingVerdict, ResolvedTarget, Target,
};
