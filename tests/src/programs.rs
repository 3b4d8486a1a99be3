//! Where the binaries under test are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail, ensure};

use crate::note;

/// The repository this crate was built in.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the repository")
}

/// The binary of that name: in `DRAWBRIDGE_BIN_DIR` if set, else beside the running test, built first by cargo.
pub(crate) fn find(name: &str) -> Result<PathBuf> {
    static DIR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let dir = DIR.get_or_init(|| directory().map_err(|error| format!("{error:#}")));
    let path = match dir {
        Ok(dir) => dir.join(name),
        Err(error) => bail!("{error}"),
    };
    ensure!(
        path.is_file(),
        "there is no {}; build it, or set DRAWBRIDGE_BIN_DIR to where it is",
        path.display()
    );
    Ok(path)
}

fn directory() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("DRAWBRIDGE_BIN_DIR") {
        return Ok(dir.into());
    }
    let me = std::env::current_exe()?;
    let mut dir = me.parent().context("an executable lies in a directory")?;
    if dir.file_name().is_some_and(|name| name == "deps") {
        dir = dir
            .parent()
            .context("deps lies in the profile's directory")?;
    }
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.current_dir(repository()).args([
        "build",
        "-q",
        "-p",
        "drawbridge-operator",
        "-p",
        "drawbridge-gateway",
    ]);
    if dir.file_name().is_some_and(|name| name == "release") {
        build.arg("--release");
    }
    // Where the running program was built to, were it elsewhere than cargo's default.
    build.args([
        "--target-dir".as_ref(),
        dir.parent()
            .context("a profile lies in a target directory")?
            .as_os_str(),
    ]);
    if !dir.join("drawbridge-gateway").is_file() {
        note("building the operator and the gateway, which takes some minutes");
    }
    let status = build.status().context("failed to run cargo")?;
    ensure!(
        status.success(),
        "the operator and the gateway do not build; `cargo build` says why"
    );
    Ok(dir.to_owned())
}
