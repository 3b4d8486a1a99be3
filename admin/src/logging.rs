//! Logging to standard error, as text for people or JSON for collectors.

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Flags about logging; flatten them into the binary's own.
#[derive(clap::Args, Clone, Debug)]
pub struct Logging {
    /// How a log line looks: `text` for people, `json` (one object a line) for collectors.
    #[arg(long, env = "DRAWBRIDGE_LOG_FORMAT", value_enum, default_value_t = Format::Text)]
    pub log_format: Format,
    /// What is logged: comma-separated `level` or `target=level`, e.g. `info,kube=debug`. Levels: error, warn, info,
    /// debug, trace, off.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log_filter: String,
}

/// How a log line looks.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One line a person can read.
    Text,
    /// One JSON object a line: `timestamp`, `level`, `fields`, `target`, `span`.
    Json,
}

/// Sends every `tracing` event from now on to standard error.
///
/// # Errors
/// When the filter cannot be parsed (the message says which part), or logging was set up before.
pub fn init(logging: &Logging) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&logging.log_filter)
        .with_context(|| format!("--log-filter {:?} cannot be parsed", logging.log_filter))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let installed = match logging.log_format {
        Format::Text => builder.with_ansi(false).try_init(),
        Format::Json => builder
            .json()
            .with_current_span(true)
            .with_span_list(false)
            .try_init(),
    };
    installed.map_err(|error| anyhow::anyhow!("failed to set up logging: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_parsed_is_named_in_the_error() {
        let logging = Logging {
            log_format: Format::Text,
            log_filter: "kube=loud".into(),
        };
        let error = init(&logging).expect_err("not a level");
        assert!(format!("{error:#}").contains("kube=loud"), "{error:#}");
    }
}
