use std::{fmt, str::FromStr};

use tracing_subscriber::EnvFilter;

/// Which levels of which modules are logged, e.g. `info` or `info,ledger=debug`.
const FILTER_VARIABLE: &str = "DOTMASK_LOG";
/// lapin calls each lost connection an error, where the part that uses it says so once and carries on.
const DEFAULT_FILTER: &str = "info,lapin=off";

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For a person at a terminal.
    #[default]
    Text,
    /// One JSON object a line, for a collector.
    Json,
}

/// Why logging cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// Neither `text` nor `json`.
    #[error("log format {name:?} is unknown, expected text or json")]
    Format {
        /// As given.
        name: String,
    },
    /// The filter does not parse.
    #[error("{FILTER_VARIABLE} is not a filter such as info or info,ledger=debug: {reason}")]
    Filter {
        /// What the parser said.
        reason: String,
    },
    /// A second call in the same process.
    #[error("logging was started twice")]
    Twice,
}

impl FromStr for LogFormat {
    type Err = LogsError;

    fn from_str(name: &str) -> Result<Self, LogsError> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(LogsError::Format { name: other.into() }),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Starts logging to stderr (stdout is for data), filtered by the variable `DOTMASK_LOG`.
pub fn init_logs(format: LogFormat) -> Result<(), LogsError> {
    let filter = std::env::var(FILTER_VARIABLE).ok().filter(|filter| !filter.is_empty());
    let filter = EnvFilter::builder()
        .parse(filter.as_deref().unwrap_or(DEFAULT_FILTER))
        .map_err(|error| LogsError::Filter { reason: error.to_string() })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    started.map_err(|_| LogsError::Twice)
}
