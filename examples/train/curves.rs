//! A picture of a run: what each stage measured, step by step.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use eva::train::Line;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::{Failure, font};

/// Width and height of one stage's chart in pixels.
const SIZE: (u32, u32) = (960, 300);
/// Measures that are no shares, and would flatten those that are.
const APART: [&str; 9] = [
    "tokens",
    "rate",
    "gradient_norm",
    "frames",
    "visual_tokens",
    "rounds",
    "reply_tokens",
    "desirable",
    "undesirable",
];

type Series = BTreeMap<String, Vec<(f64, f64)>>;

/// Draws `curves.png` from `metrics.jsonl` in the folder of a run: a chart for each stage, with its
/// loss, rewards and shares over its steps.
pub(crate) fn draw(folder: &Path) -> Result<(), Failure> {
    let Ok(text) = fs::read_to_string(folder.join("metrics.jsonl")) else {
        return Ok(());
    };
    let mut stages: Vec<(String, Series)> = Vec::new();
    for line in text.lines() {
        let Ok(line) = serde_json::from_str::<Line>(line) else {
            continue;
        };
        if stages.last().is_none_or(|(stage, _)| *stage != line.stage) {
            stages.push((line.stage.clone(), Series::new()));
        }
        let Some((_, series)) = stages.last_mut() else {
            continue;
        };
        for (name, mean) in line.means {
            if !APART.contains(&name.as_str()) && !name.starts_with("seconds") {
                series
                    .entry(name)
                    .or_default()
                    .push((line.step as f64, mean));
            }
        }
    }
    if stages.is_empty() {
        return Ok(());
    }
    font::register()?;
    let (width, height) = (SIZE.0, SIZE.1 * stages.len() as u32);
    let mut pixels = vec![0; width as usize * height as usize * 3];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        root.fill(&WHITE)?;
        for (area, (stage, series)) in root.split_evenly((stages.len(), 1)).iter().zip(&stages) {
            chart(area, stage, series)?;
        }
        root.present()?;
    }
    let mut file = Vec::new();
    let mut png = png::Encoder::new(&mut file, width, height);
    png.set_color(png::ColorType::Rgb);
    png.write_header()?.write_image_data(&pixels)?;
    fs::write(folder.join("curves.png"), file)?;
    Ok(())
}

fn chart(
    area: &DrawingArea<BitMapBackend<'_>, Shift>,
    stage: &str,
    series: &Series,
) -> Result<(), Failure> {
    let points = || series.values().flatten();
    let last = points().map(|point| point.0).fold(1.0, f64::max);
    // The first losses are far above the rest.
    let top = points().map(|point| point.1).fold(1.0, f64::max).min(2.0);
    let mut chart = ChartBuilder::on(area)
        .caption(stage, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(24)
        .y_label_area_size(40)
        .build_cartesian_2d(0.0..last, 0.0..top)?;
    chart.configure_mesh().light_line_style(WHITE).draw()?;
    for (index, (name, points)) in series.iter().enumerate() {
        let colour = Palette99::pick(index).to_rgba();
        let line = points.iter().map(|(step, mean)| (*step, mean.min(top)));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 12, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 10))
        .draw()?;
    Ok(())
}
