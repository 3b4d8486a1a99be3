//! What to start: of a pod's container, its command, its environment and where it runs. Pure.

use std::path::PathBuf;

use serde_json::Value;

use crate::object;

/// A command and all it runs with.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the fields of a container are"
)]
pub(super) struct Plan {
    /// Program, looked for in `PATH`, and its arguments.
    pub(super) argv: Vec<String>,
    pub(super) dir: PathBuf,
    /// The whole environment but for the mark.
    pub(super) env: Vec<(String, String)>,
    /// Begins with the sandbox's own.
    pub(super) mark: String,
    pub(super) tty: bool,
    pub(super) stdin: bool,
    /// Whether it sees the end of what is typed into an attachment.
    pub(super) stdin_once: bool,
    /// Whether everything with this mark ends with it, as a PID namespace does with its first process.
    pub(super) first: bool,
}

impl Plan {
    /// For a container of a pod. An image's own command is not known: a shell stands for it if there is an input, and
    /// otherwise something that only waits, for about 68 years. Of the environment, variables with a plain value count.
    pub(super) fn of(pod: &Value, spec: &Value, dir: PathBuf, mark: String) -> Self {
        let flag = |field: &str| spec[field] == true;
        let listed = |field: &str| spec[field].as_array().into_iter().flatten();
        let words = listed("command").chain(listed("args"));
        let mut argv: Vec<&str> = words.filter_map(Value::as_str).collect();
        if argv.is_empty() {
            let waits = ["sleep", "2147483647"];
            argv.extend(if flag("stdin") { &["sh"][..] } else { &waits });
        }
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
        let home = dir.display().to_string();
        let known = [
            ("PATH", &*path),
            ("HOSTNAME", object::name(pod)),
            ("HOME", &home),
        ];
        let given =
            listed("env").filter_map(|one| Some((one["name"].as_str()?, one["value"].as_str()?)));
        let env = known.into_iter().chain(given);
        Self {
            argv: argv.into_iter().map(str::to_owned).collect(),
            env: env
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            dir,
            mark,
            tty: flag("tty"),
            stdin: flag("stdin"),
            stdin_once: flag("stdinOnce"),
            first: true,
        }
    }
}
