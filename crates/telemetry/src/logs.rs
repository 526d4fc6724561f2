use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::{self, Write as _},
    io::{self, IsTerminal as _},
    panic,
    str::FromStr,
    thread,
};

use serde_json::{Map, Value};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    field::RecordFields,
    filter::{FilterExt as _, filter_fn},
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::{JsonFields, Writer},
        time::{FormatTime as _, SystemTime},
    },
    registry::{LookupSpan, Scope},
};

use crate::{
    TelemetryError,
    printable::{Escaped, is_unprintable},
};

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

/// The crates whose lines hold no secret, at whatever level; the tests see to it.
const OURS: [&str; 17] = [
    "broker",
    "dispatcher",
    "evaluation",
    "images",
    "ledger",
    "noop_worker",
    "objects",
    "pictures",
    "quick_worker",
    "request",
    "secrets",
    "segmenter",
    "servers",
    "telemetry",
    "tests",
    "tls",
    "worker",
];

/// Whether a line may be written at all, whatever the filter says. Below the level info, libraries write what they send: lapin the password,
/// the AWS SDK whole requests. At the level warn even, sqlx writes what it does not know of a database URL, and a reader of DICOM may write what
/// it found in a file about a patient: what is wrong with either is in our own errors.
fn holds_no_secret(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_ours = target.split("::").next().is_some_and(|name| OURS.contains(&name));
    is_ours || (*metadata.level() <= Level::INFO && !target.starts_with("sqlx_postgres::options") && !target.starts_with("dicom"))
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
    let filter = filter.and(filter_fn(holds_no_secret));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    Ok(match format {
        LogFormat::Text => lines.fmt_fields(OneLine).with_ansi(io::stderr().is_terminal()).with_filter(filter).boxed(),
        LogFormat::Json => lines.fmt_fields(JsonFields::new()).event_format(FlatJson).with_filter(filter).boxed(),
    })
}

/// What a program says when it panics is a line of its log like any other; with `RUST_BACKTRACE` the backtrace follows.
pub(crate) fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let reason = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(location, thread = thread::current().name(), "panicked: {reason}");
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            eprintln!("{backtrace}");
        }
    }));
}

/// The message and then each field as `name=value`, all in one line: nothing in them ends it, or acts on a terminal.
struct OneLine;

impl<'writer> FormatFields<'writer> for OneLine {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = OneLineVisitor { writer, is_first: true, outcome: Ok(()) };
        fields.record(&mut visitor);
        visitor.outcome
    }
}

struct OneLineVisitor<'writer> {
    writer: Writer<'writer>,
    is_first: bool,
    outcome: fmt::Result,
}

impl OneLineVisitor<'_> {
    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>) -> fmt::Result {
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_char(' ')?;
        }
        if field.name() != "message" {
            write!(self.writer, "{}=", field.name())?;
        }
        Escaped(&mut self.writer).write_fmt(value)
    }
}

impl Visit for OneLineVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.record_debug(field, &format_args!("{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.outcome.is_ok() {
            self.outcome = self.write(field, format_args!("{value:?}"));
        }
    }
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
        // JSON lets stand what some programs take for the end of a line; outside of its texts there is none of it.
        for character in Value::Object(line).to_string().chars() {
            if is_unprintable(character) {
                write!(writer, "\\u{:04x}", u32::from(character))?;
            } else {
                writer.write_char(character)?;
            }
        }
        writeln!(writer)
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

    /// What could end a record's line, forge another one, or act on a terminal, where one piece of it is an object's key.
    const HOSTILE: &str = "in/a.png\n2026-01-01T00:00:00.000000Z  INFO worker: job ended state=\"succeeded\"\r\u{1b}[2K\u{1b}]0;owned\u{7}\
                           \u{85}\u{9b}31m\u{2028}{\"level\":\"INFO\"}\u{2029}\u{202e}gnp";

    /// A record with it in every place where a text may be.
    fn record() {
        let span = error_span!("job", job.id = HOSTILE, late = Empty, shown = %HOSTILE);
        span.record("late", HOSTILE);
        let _span = span.enter();
        let error = io::Error::other(HOSTILE);
        let source: &(dyn std::error::Error + 'static) = &error;
        info!(text = HOSTILE, debug = ?HOSTILE, display = %HOSTILE, source, "it said {HOSTILE}");
    }

    fn written_by<L: Layer<tracing_subscriber::Registry> + Send + Sync>(layer: impl FnOnce(Written) -> L) -> String {
        let written = Written::default();
        with_default(tracing_subscriber::registry().with(layer(written.clone())), record);
        String::from_utf8(written.0.lock().expect("no panic").clone()).expect("text")
    }

    fn assert_is_one_line(written: &str) {
        let line = written.strip_suffix('\n').expect("a whole line");
        assert!(!line.contains(is_unprintable), "{line:?}");
    }

    #[test]
    fn a_record_is_one_line_whatever_is_in_its_fields() {
        for ansi in [false, true] {
            let text =
                written_by(|written| tracing_subscriber::fmt::layer().with_writer(written).fmt_fields(OneLine).with_ansi(ansi));
            // Colours are the formatter's own.
            let plain = if ansi { text.replace("\u{1b}[", "[") } else { text };
            assert_is_one_line(&plain);
            assert!(plain.contains(r"it said in/a.png\n2026-01-01"), "{plain}");
            assert_eq!(plain.matches("in/a.png").count(), 8, "{plain}");
        }
        let json = written_by(|written| {
            tracing_subscriber::fmt::layer().with_writer(written).fmt_fields(JsonFields::new()).event_format(FlatJson)
        });
        assert_is_one_line(&json);
        let line: Map<String, Value> = serde_json::from_str(&json).expect("JSON");
        assert_eq!((&line["level"], &line["job.id"], &line["text"]), (&"INFO".into(), &HOSTILE.into(), &HOSTILE.into()));
    }

    #[test]
    fn what_libraries_may_say_of_secrets_is_written_by_no_filter() {
        let written = Written::default();
        let filter = EnvFilter::new("trace,lapin=trace").and(filter_fn(holds_no_secret));
        let lines = tracing_subscriber::fmt::layer().with_writer(written.clone()).with_filter(filter);
        with_default(tracing_subscriber::registry().with(lines), || {
            tracing::trace!(target: "lapin::channel", "one");
            tracing::debug!(target: "aws_smithy_runtime::client", "two");
            tracing::warn!(target: "sqlx_postgres::options::parse", "three");
            tracing::warn!(target: "dicom_parser::dataset", "three");
            tracing::warn!(target: "sqlx::query", "four");
            tracing::trace!(target: "ledger::claims", "five");
        });
        let text = String::from_utf8(written.0.lock().expect("no panic").clone()).expect("text");
        let words: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(words, ["four", "five"], "{text}");
    }
}
