//! Builds the browser's page with npm and writes down, as Rust, what to embed of it.
//!
//! npm is optional: without it, or when it fails, a page is embedded that says how to get the real one. `DRAWBRIDGE_WEB=off`
//! asks for that page, `DRAWBRIDGE_WEB=required` makes every failure an error.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, thread};

/// What the page is made from, below `gateway/web`. A change in any of it builds the page again; nothing else does.
const SOURCES: [&str; 8] = [
    "src",
    "index.html",
    "replay.html",
    "package.json",
    "package-lock.json",
    "vite.config.js",
    "tsconfig.json",
    ".npmrc",
];
/// Longest download of the packages, on a slow network; a network that is not there fails sooner.
const INSTALL_LIMIT: Duration = Duration::from_mins(5);
/// Longest build; it takes seconds.
const BUILD_LIMIT: Duration = Duration::from_mins(3);

fn main() -> ExitCode {
    let variable = |name: &str| PathBuf::from(env::var_os(name).unwrap_or_default());
    let web = variable("CARGO_MANIFEST_DIR").join("web");
    let out = variable("OUT_DIR");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", web.join(source).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DRAWBRIDGE_WEB");

    let wish = env::var("DRAWBRIDGE_WEB").unwrap_or_default();
    let page = out.join("page");
    let built = match wish.as_str() {
        "off" => Err("DRAWBRIDGE_WEB=off".to_owned()),
        _ => build(&web, &page),
    };
    let built = match built {
        Ok(()) => list(&page),
        Err(why) if wish == "required" => {
            println!("cargo::error=the terminal page was not built: {why}");
            return ExitCode::FAILURE;
        }
        Err(why) => {
            if wish != "off" {
                println!(
                    "cargo::warning=the gateway gets a page without a terminal: {why}; to try again: DRAWBRIDGE_WEB=required cargo build"
                );
            }
            text(&web.join("unbuilt.html")).map(|page| vec![("index.html".to_owned(), page)])
        }
    };
    println!(
        "cargo::rerun-if-changed={}",
        web.join("unbuilt.html").display()
    );
    match built.and_then(|files| fs::write(out.join("page.rs"), code(&files))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error=failed to embed the terminal page: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Installs what the lock file names, and builds into `page`.
fn build(web: &Path, page: &Path) -> Result<(), String> {
    // Builds of other target directories use the same node_modules: one at a time.
    let lock = File::create(web.join(".lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    install(web)?;
    let mut vite = Command::new("node");
    vite.args([
        "node_modules/vite/bin/vite.js",
        "build",
        "--logLevel=warn",
        "--emptyOutDir",
        "--outDir",
    ]);
    vite.arg(page);
    run(vite.current_dir(web), "the build", BUILD_LIMIT)
}

fn install(web: &Path) -> Result<(), String> {
    let wanted = fs::read(web.join("package-lock.json")).map_err(|error| error.to_string())?;
    // Written last, so that an interrupted installation is not taken for a whole one.
    let stamp = web.join("node_modules/.installed");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let mut npm = Command::new("npm");
    npm.args([
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--fetch-retries=1",
    ]);
    run(npm.current_dir(web), "npm ci", INSTALL_LIMIT)?;
    fs::write(stamp, wanted).map_err(|error| error.to_string())
}

/// Runs a program for at most `limit`; what it said is told only when it fails.
fn run(command: &mut Command, what: &str, limit: Duration) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let (mut said, output) = io::pipe().map_err(|error| error.to_string())?;
    let errors = output.try_clone().map_err(|error| error.to_string())?;
    let spawned = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn();
    // The command keeps our ends of the pipe as long as it lives.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = spawned.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{program} is not installed"),
        _ => format!("{program} did not start: {error}"),
    })?;
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        let _ = said.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let begun = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begun.elapsed() < limit => thread::sleep(Duration::from_millis(50)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{what} took more than {limit:?}"));
            }
            Err(error) => return Err(format!("{what}: {error}")),
        }
    };
    if status.success() {
        return Ok(());
    }
    let text = reader.join().unwrap_or_default();
    let last = text
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.contains("complete log of this run"));
    Err(format!(
        "{what} failed ({status}): {}",
        last.unwrap_or("it said nothing")
    ))
}

/// The built files: their paths below `page`, in order, and where they are.
fn list(page: &Path) -> io::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    let mut folders = vec![page.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(name) = path.strip_prefix(page) {
                files.push((text(name)?.replace('\\', "/"), text(&path)?));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// A path as text, which is what a source file can name.
fn text(path: &Path) -> io::Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| io::Error::other(format!("{} is not UTF-8", path.display())))
}

/// The table `web.rs` includes.
fn code(files: &[(String, String)]) -> String {
    let variant = |name: &str, ending: &str| {
        let compressed = format!("{name}.{ending}");
        let found = files.iter().find(|(name, _)| *name == compressed);
        found.map_or("None".to_owned(), |(_, path)| {
            format!("Some(include_bytes!({path:?}))")
        })
    };
    let mut table = String::from("[\n");
    for (name, path) in files {
        let ending = Path::new(name)
            .extension()
            .and_then(|ending| ending.to_str());
        if matches!(ending, Some("br" | "gz")) {
            continue;
        }
        let (brotli, gzip) = (variant(name, "br"), variant(name, "gz"));
        let _ = writeln!(
            table,
            "    Asset {{ path: {name:?}, plain: include_bytes!({path:?}), brotli: {brotli}, gzip: {gzip} }},"
        );
    }
    table.push(']');
    table
}
