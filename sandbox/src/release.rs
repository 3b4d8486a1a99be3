//! Which Kubernetes the sandbox behaves like, where releases differ.

/// A Kubernetes release whose behaviour is taken on. What differs: subprotocols of exec (v5 from 1.30), Status bodies,
/// the `create` check on a WebSocket exec (1.35), CEL rules (1.25), ephemeral containers (1.23).
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// 1.20
    #[value(name = "1.20")]
    V1_20 = 20,
    /// 1.30
    #[value(name = "1.30")]
    V1_30 = 30,
    /// 1.36
    #[default]
    #[value(name = "1.36")]
    V1_36 = 36,
}
