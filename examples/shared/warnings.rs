//! What the libraries warn of: a server that is asked again, a key that is ignored, a decoder that failed.

use std::fmt;
use std::io::{self, IsTerminal as _};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// To the beginning of the line, and clears it.
const CLEAR: &str = "\r\x1b[2K";

/// From now on warnings are lines on the standard error.
pub(crate) fn show() {
    let lines = Lines {
        over_a_bar: io::stderr().is_terminal(),
    };
    let shown = tracing_subscriber::fmt()
        .with_max_level(Level::WARN)
        .with_ansi(false)
        .with_writer(io::stderr)
        // It would tell of a closed standard error by `eprintln!`, which panics then.
        .log_internal_errors(false)
        .event_format(lines)
        .try_init();
    // Whoever shows warnings already goes on to do so.
    _ = shown;
}

/// Lines such as those of errors: `warning: the hub is asked again file="config.json"`.
struct Lines {
    /// Whether a progress bar may be where the line is to be; it is drawn anew below.
    over_a_bar: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.over_a_bar {
            writer.write_str(CLEAR)?;
        }
        writer.write_str("warning: ")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
