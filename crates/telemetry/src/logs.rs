use std::{
    fmt,
    io::{self, IsTerminal as _},
    str::FromStr,
};

use serde_json::{Map, Value};
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::{JsonFields, Writer},
        time::{FormatTime as _, SystemTime},
    },
    registry::{LookupSpan, Scope},
};

use crate::TelemetryError;

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

impl FromStr for LogFormat {
    type Err = TelemetryError;

    fn from_str(name: &str) -> Result<Self, TelemetryError> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(TelemetryError::Format { name: other.into() }),
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

/// Lines on stderr (stdout is for data), filtered by the variable `DOTMASK_LOG`.
pub(crate) fn layer<S>(format: LogFormat) -> Result<Box<dyn Layer<S> + Send + Sync>, TelemetryError>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let filter = std::env::var(FILTER_VARIABLE).ok().filter(|filter| !filter.is_empty());
    let filter = EnvFilter::builder()
        .parse(filter.as_deref().unwrap_or(DEFAULT_FILTER))
        .map_err(|error| TelemetryError::Filter { reason: error.to_string() })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    Ok(match format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).with_filter(filter).boxed(),
        LogFormat::Json => lines.fmt_fields(JsonFields::new()).event_format(FlatJson).with_filter(filter).boxed(),
    })
}

/// One JSON object a line. The fields of the spans around an event are its own: whoever looks for `job.id` finds every line about the job,
/// whatever part of the program wrote it.
struct FlatJson;

impl<S> FormatEvent<S, JsonFields> for FlatJson
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn format_event(&self, context: &FmtContext<'_, S, JsonFields>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Map::new();
        // From the outermost in: what is nearer to the event wins.
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            if let Some(fields) = span.extensions().get::<FormattedFields<JsonFields>>() {
                line.append(&mut object(&fields.fields)?);
            }
        }
        let mut fields = String::new();
        context.format_fields(Writer::new(&mut fields), event)?;
        line.append(&mut object(&fields)?);

        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        line.insert("timestamp".into(), timestamp.into());
        line.insert("level".into(), event.metadata().level().as_str().into());
        line.insert("target".into(), event.metadata().target().into());
        writeln!(writer, "{}", Value::Object(line))
    }
}

fn object(fields: &str) -> Result<Map<String, Value>, fmt::Error> {
    // A span without fields has an empty text.
    if fields.is_empty() { Ok(Map::new()) } else { serde_json::from_str(fields).map_err(|_| fmt::Error) }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{error_span, field::Empty, info, subscriber::with_default};
    use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt as _};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Written {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn a_json_line_bears_the_fields_of_the_spans_around_it_flat() {
        let written = Written::default();
        let lines = tracing_subscriber::fmt::layer().fmt_fields(JsonFields::new()).event_format(FlatJson);
        with_default(tracing_subscriber::registry().with(lines.with_writer(written.clone())), || {
            let job = error_span!("job", job.id = 7, trace.id = Empty, worker = "w");
            job.record("trace.id", "abc");
            let _job = job.enter();
            let _stage = error_span!("no fields").entered();
            info!(worker = "nearer", seconds = 0.5, "said \"so\"");
        });
        let line = written.0.lock().expect("no panic").clone();
        let mut line: Map<String, Value> = serde_json::from_slice(&line).expect("one line of JSON");
        assert!(line.remove("timestamp").is_some_and(|time| time.as_str().is_some_and(|time| time.ends_with('Z'))));
        let expected = serde_json::json!({
            "level": "INFO", "target": "telemetry::logs::tests", "message": "said \"so\"",
            "job.id": 7, "trace.id": "abc", "worker": "nearer", "seconds": 0.5,
        });
        assert_eq!(Value::Object(line), expected);
    }
}
