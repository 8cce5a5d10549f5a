//! The estimates of a model as a table: [`table`].

use std::fmt::Write as _;

use super::{ByteSize, Estimate, Workload};
use crate::config::ModelConfig;
use crate::weights::Precision;

/// A Markdown table of all precisions, which reads well as plain text too: what each takes, and which
/// of the budgets it fits.
///
/// - estimate: [`Estimate::new`] or [`Estimate::on_cpu`]
#[must_use]
pub fn table(
    config: &ModelConfig,
    workload: &Workload,
    budgets: &[ByteSize],
    estimate: fn(&ModelConfig, Precision, &Workload) -> Estimate,
) -> String {
    let (width, height) = workload.picture;
    let mut head = vec![
        "weights as".to_owned(),
        "weights".to_owned(),
        "KV cache, 1,000 tokens".to_owned(),
        format!("vision, a picture of {width} x {height}"),
        format!("vision, {} tokens at once", grouped(workload.turn)),
        "reading them".to_owned(),
        format!("all, {} tokens", grouped(workload.context)),
    ];
    head.extend(budgets.iter().map(ToString::to_string));
    let mut rows = vec![head];
    for precision in Precision::ALL {
        let estimate = estimate(config, precision, workload);
        let sizes = [
            estimate.weights,
            estimate.kv_per_1000,
            estimate.vision_picture,
            estimate.vision_turn,
            estimate.reading,
            estimate.total(),
        ];
        let mut row = vec![precision.to_string()];
        row.extend(sizes.iter().map(|bytes| ByteSize(*bytes).to_string()));
        let fits = |budget: &ByteSize| match estimate.fits(*budget) {
            true => "fits".to_owned(),
            false => "no".to_owned(),
        };
        row.extend(budgets.iter().map(fits));
        rows.push(row);
    }
    laid_out(&rows)
}

/// Rows with their columns made equally wide, and a line below the first.
fn laid_out(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.len()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string does not fail.
            _ = write!(text, "| {cell:<width$} ");
        }
        text.push_str("|\n");
        if index == 0 {
            for width in &widths {
                _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

/// `12,000` for 12000.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
