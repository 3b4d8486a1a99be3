//! Pods as local processes: a container is a directory and a command.
//!
//! ```text
//!  node: the pods of the store ──► container ──► process ◄── exec
//!                                     └── log ◄─────┴─────► attach
//!  connect (API server), kubelet ──► stream ──► channel, wire
//! ```
//!
//! A container has the rights, the file system, the network and the `PATH` of whoever runs the sandbox. Its image is noted
//! and not used; of its spec only the command, plain variables and standard input mean something. Its processes are found
//! by a variable in their environment when they are to end; one that clears its environment escapes. On other systems than
//! Linux only the process started directly is ended.

mod channel;
mod connect;
mod container;
mod kubelet;
mod log;
mod node;
mod process;
mod query;
mod stream;
mod wire;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use connect::connect;
pub use kubelet::serve as serve_kubelet;
pub use node::run;

use container::Container;

/// The last two starts of each container, the newest last, by pod UID and name.
#[derive(Debug, Default)]
pub struct Pods(Mutex<Starts>);

type Starts = HashMap<(String, String), Vec<Arc<Container>>>;

impl Pods {
    fn starts(&self, uid: &str, name: &str) -> Vec<Arc<Container>> {
        let key = (uid.to_owned(), name.to_owned());
        self.lock().get(&key).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Starts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
