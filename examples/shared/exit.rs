//! How the program ends: by itself, by a signal, by a failure.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::Failure;

/// Exit status of a program that was interrupted.
pub(crate) const INTERRUPTED: u8 = 130;

/// A flag that Ctrl-C sets. With the flag set, the next Ctrl-C ends the program.
pub(crate) fn on_signal() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, i32::from(INTERRUPTED), stop.clone())?;
        flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

/// The exit status of a run; a failure is told.
pub(crate) fn code(run: Result<ExitCode, Failure>) -> ExitCode {
    match run {
        Ok(code) => code,
        Err(failure) => match failure.downcast_ref::<io::Error>() {
            // Whoever read the output has had enough.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            _ => {
                // Whoever has closed the standard error still gets the right status.
                _ = writeln!(io::stderr(), "error: {failure}");
                ExitCode::FAILURE
            }
        },
    }
}
