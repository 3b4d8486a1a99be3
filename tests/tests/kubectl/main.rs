//! Real kubectl, unmodified, with the kubeconfig from the Secret and nothing else; on the sandbox as on a real cluster.

mod ends;
mod grant;
mod shell;
