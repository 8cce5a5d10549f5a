//! Models from a hub, which several examples take by name: `hf:OWNER/NAME`.

use std::io::{self, IsTerminal as _};

use eva::hub::{Hub, HubModel, Snapshot};
use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;

/// All files of a model, with a bar while they come.
pub(crate) fn fetch(model: &HubModel) -> Result<Snapshot, Failure> {
    let hub = Hub::from_env()?;
    let bar = if io::stderr().is_terminal() {
        ProgressBar::new(0)
    } else {
        ProgressBar::hidden()
    };
    bar.set_style(ProgressStyle::with_template(
        "{msg} {bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
    )?);
    let snapshot = hub.fetch(model, &mut |progress| {
        bar.set_length(progress.size);
        bar.set_position(progress.done);
        if bar.message() != progress.file {
            bar.set_message(progress.file.to_owned());
        }
    });
    bar.finish_and_clear();
    Ok(snapshot?)
}
