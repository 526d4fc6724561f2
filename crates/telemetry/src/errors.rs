/// Why logs and traces cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Neither `text` nor `json`.
    #[error("log format {name:?} is unknown, expected text or json")]
    Format {
        /// As given.
        name: String,
    },
    /// The filter does not parse.
    #[error("DOTMASK_LOG is not a filter such as info or info,ledger=debug: {reason}")]
    Filter {
        /// What the parser said.
        reason: String,
    },
    /// A variable of OpenTelemetry that says nothing usable.
    #[error("{variable} is {value:?}, expected {expected}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// As given.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The exporter refuses its settings.
    #[error("cannot export traces as OTEL_EXPORTER_OTLP_ENDPOINT and its companions say: {reason}")]
    Exporter {
        /// What it said.
        reason: String,
    },
    /// A second call in the same process.
    #[error("logging was started twice")]
    Twice,
}
