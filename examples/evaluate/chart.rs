//! Accuracy against visual tokens, as an SVG.

use eva::benchmark::Benchmark;
use eva::evaluate::Summary;
use plotters::prelude::*;

use crate::{Failure, font};

/// Width and height in pixels.
const SIZE: (u32, u32) = (800, 500);

/// A point of the chart.
struct Point {
    label: String,
    tokens: f64,
    /// In percent.
    accuracy: f64,
    color: RGBColor,
    filled: bool,
}

/// Draws the run, and what is published on its benchmark.
///
/// Visual tokens are published for one benchmark only. For the others the published row is drawn at
/// its tokens in all, text included, as a ring.
pub(crate) fn draw(
    label: &str,
    summary: &Summary,
    benchmark: Option<&Benchmark>,
) -> Result<String, Failure> {
    let score = &summary.score;
    let ours = summary.means.visual_tokens;
    let mut points = vec![Point {
        label: format!("{label} ({} items)", score.items),
        tokens: ours,
        accuracy: 100.0 * score.accuracy,
        color: RED,
        filled: true,
    }];
    if let Some(known) = benchmark {
        points.extend(known.visual.iter().map(|point| Point {
            label: point.label.to_owned(),
            tokens: point.visual_tokens,
            accuracy: 100.0 * point.accuracy,
            color: BLUE,
            filled: true,
        }));
        points.push(Point {
            label: "published, at its tokens in all".to_owned(),
            tokens: known.published.total_tokens,
            accuracy: 100.0 * known.published.accuracy,
            color: BLUE,
            filled: false,
        });
    }
    let most = points.iter().map(|point| point.tokens).fold(1.0, f64::max);
    let title = benchmark.map_or("Accuracy and visual tokens", |known| known.name);

    font::register()?;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 22))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..most * 1.5, 0.0..105.0)?;
        chart
            .configure_mesh()
            .x_desc("visual tokens an item")
            .y_desc("accuracy, % (bar: 95% interval)")
            .x_label_formatter(&|tokens| format!("{tokens:.0}"))
            .y_label_formatter(&|share| format!("{share:.0}"))
            .light_line_style(WHITE)
            .draw()?;
        let reach = [score.interval.low, score.interval.high].map(|share| (ours, 100.0 * share));
        chart.draw_series([PathElement::new(reach, RED)])?;
        for point in points {
            let style = ShapeStyle {
                color: point.color.to_rgba(),
                filled: point.filled,
                stroke_width: 2,
            };
            let name = Text::new(point.label, (10, -6), ("sans-serif", 14));
            let mark = EmptyElement::at((point.tokens, point.accuracy))
                + Circle::new((0, 0), 5, style)
                + name;
            chart.draw_series([mark])?;
        }
        area.present()?;
    }
    Ok(svg)
}
