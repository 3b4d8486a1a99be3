//! Pods as local processes: a container is a directory and a command.
//!
//! ```text
//!  node: the pods of the store ──► process ──► log
//!  connect (API server), kubelet ──► stream ──┘  └► channel
//! ```
//!
//! A container has the rights, the file system, the network and the `PATH` of whoever runs the sandbox. Its image is noted
//! and not used; of its spec only the command, plain variables and standard input mean something. Its processes are found
//! by a variable in their environment when they are to end; one that clears its environment escapes. On other systems than
//! Linux only the process started directly is ended.

mod channel;
mod connect;
mod kubelet;
mod log;
mod node;
mod process;
mod stream;

use std::{collections::HashMap, sync::Arc};

use tokio::sync::watch;

pub(crate) use connect::connect;
pub(crate) use kubelet::serve as serve_kubelet;
pub(crate) use node::run;

use process::Process;

/// The last start of each container, by pod UID and name.
#[derive(Debug, Default)]
pub struct Pods(watch::Sender<HashMap<(String, String), Arc<Process>>>);

impl Pods {
    fn last(&self, uid: &str, name: &str) -> Option<Arc<Process>> {
        let key = (uid.to_owned(), name.to_owned());
        self.0.borrow().get(&key).cloned()
    }
}
