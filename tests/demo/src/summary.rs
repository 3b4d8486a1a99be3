//! What the demo prints: where the shell is, and how to end it.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// Where the gateway keeps recordings, below the demo's directory.
pub(crate) const STORE: &str = "gateway.spool/store";
/// The public keys to verify them with, beside it.
pub(crate) const KEYS: &str = "signing-keys.json";

/// What there is to say.
pub(crate) struct Summary<'a> {
    /// Page of the terminal, token in the fragment.
    pub(crate) url: &'a str,
    /// Page of what is recorded of it, another token in the fragment.
    pub(crate) replay: &'a str,
    /// Directory of everything.
    pub(crate) dir: &'a Path,
    /// Kubeconfig of the gateway.
    pub(crate) shell: &'a Path,
    /// Kubeconfig of the sandbox's API, as alice@example.com.
    pub(crate) alice: &'a Path,
    /// From the program's start.
    pub(crate) took: Duration,
    /// When access ends, as the clock of this machine shows it.
    pub(crate) until: &'a str,
    /// Whether `r` can be typed.
    pub(crate) keys: bool,
    /// Whether the terminal shows bold and dim.
    pub(crate) colour: bool,
}

impl Summary<'_> {
    /// The text.
    pub(crate) fn text(&self) -> String {
        let (bold, dim, plain) = if self.colour {
            ("\x1b[1m", "\x1b[2m", "\x1b[0m")
        } else {
            ("", "", "")
        };
        let Self {
            url,
            replay,
            dir,
            shell,
            alice,
            took,
            until,
            keys,
            colour: _,
        } = self;
        let (dir, shell, alice) = (dir.display(), shell.display(), alice.display());
        let mut text = String::new();
        let _ = write!(
            text,
            "
  {bold}The bridge is down.{plain} alice@example.com has a shell in pod demo/web until {until}.  {dim}({seconds:.1} s){plain}

  {bold}Browser{plain}   {url}
            {dim}its certificate is the demo's own: tell the browser to go on{plain}

  {bold}kubectl{plain}   kubectl --kubeconfig {shell} exec -it web -c app -- sh

  {bold}Revoke{plain}    kubectl --kubeconfig {alice} -n demo patch cons shell --type merge -p '{{\"spec\":{{\"revoked\":true}}}}'
            {revoke}

  {bold}Watch{plain}     {replay}
            {dim}what goes on in the shell, and its recordings once it is closed; or, offline and with every byte checked:{plain}
            cargo run -q -p drawbridge-cli -- verify {dir}/{STORE} --keys {dir}/{KEYS}
            {dim}and ls, search, replay, export instead of verify{plain}

  {bold}Look{plain}      kubectl --kubeconfig {alice} -n demo get cons,pods
            {dim}all of it is in {dir}: kubeconfigs, logs, {STORE} with the recordings,
            and the audit logs in operator.audit and gateway.audit{plain}

  {bold}This is no cluster:{plain} pods are processes of this machine, and a shell in one is a shell as you.
  Ctrl-C ends it and leaves nothing behind.
",
            seconds = took.as_secs_f32(),
            revoke = if *keys {
                format!("{dim}or type r and Enter here; the open shell closes at once and says why{plain}")
            } else {
                format!("{dim}the open shell closes at once and says why{plain}")
            },
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_to_get_in_how_to_get_out_and_what_it_is_not() {
        let summary = Summary {
            url: "https://127.0.0.1:8443/ui/#demo/shell/t",
            replay: "https://127.0.0.1:8443/ui/replay.html#demo/shell/u",
            dir: Path::new("/d"),
            shell: Path::new("/d/shell.kubeconfig"),
            alice: Path::new("/d/alice.kubeconfig"),
            took: Duration::from_millis(1234),
            until: "15:04",
            keys: false,
            colour: false,
        };
        let text = summary.text();
        for needed in [
            "https://127.0.0.1:8443/ui/#demo/shell/t",
            "https://127.0.0.1:8443/ui/replay.html#demo/shell/u",
            "verify /d/gateway.spool/store --keys /d/signing-keys.json",
            "kubectl --kubeconfig /d/shell.kubeconfig exec -it web",
            "kubectl --kubeconfig /d/alice.kubeconfig -n demo patch cons shell",
            "no cluster",
            "Ctrl-C",
            "1.2 s",
        ] {
            assert!(text.contains(needed), "{needed}");
        }
        assert!(!text.contains('\x1b'), "no escapes where none are shown");
    }
}
