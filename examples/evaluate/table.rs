//! What is printed: the check, the summary, two runs side by side.

use std::io::{self, Write};
use std::path::PathBuf;

use eva::benchmark::Benchmark;
use eva::evaluate::{Comparison, Found, Means, Score, Summary};
use serde_json::Value;

use crate::items::Items;

/// Most names of a kind that are printed.
const NAMED: usize = 10;

/// Says what the items are; whether all of it is fine.
pub(crate) fn check(out: &mut impl Write, items: &Items, missing: &[String]) -> io::Result<bool> {
    writeln!(out, "Items      {}", of_all(items))?;
    if let Some(known) = items.benchmark {
        writeln!(
            out,
            "Benchmark  {}, {} items as published",
            known.name, known.items
        )?;
    }
    let unanswerable = items
        .chosen
        .iter()
        .filter(|item| !item.is_answerable())
        .count();
    writeln!(
        out,
        "Unmatched  {unanswerable} ground truths that no answer can match"
    )?;
    let several = items
        .chosen
        .iter()
        .filter(|item| item.videos.len() > 1)
        .count();
    if several > 0 {
        writeln!(
            out,
            "Videos     {several} items have several; the first is watched"
        )?;
    }
    writeln!(out, "Missing    {} videos", missing.len())?;
    for video in missing.iter().take(NAMED) {
        writeln!(out, "           {video}")?;
    }
    let mut bad = 0;
    if let Some(file) = &items.file {
        bad = file.bad;
        if file.renumbered {
            writeln!(
                out,
                "Index      not unique: items have the number of their line instead"
            )?;
        }
        writeln!(out, "Bad lines  {bad}")?;
        for line in file.bad_lines.iter().take(NAMED) {
            writeln!(out, "           {line}")?;
        }
    }
    Ok(missing.is_empty() && bad == 0)
}

/// Says what is about to run.
pub(crate) fn begin(out: &mut impl Write, items: &Items, found: &Found) -> io::Result<()> {
    writeln!(out, "{} items", of_all(items))?;
    if let Some(file) = items.file.as_ref().filter(|file| file.bad > 0) {
        writeln!(
            out,
            "{} lines are no items and left out; --check names them",
            file.bad
        )?;
    }
    if found.records > 0 {
        writeln!(out, "{} are done already", found.records)?;
    }
    if found.retried > 0 {
        writeln!(
            out,
            "{} ended by an error and are tried again",
            found.retried
        )?;
    }
    if found.broken > 0 {
        writeln!(
            out,
            "{} broken lines of the results are left out",
            found.broken
        )?;
    }
    Ok(())
}

fn of_all(items: &Items) -> String {
    let (chosen, all) = (items.chosen.len(), items.all);
    if chosen == all {
        all.to_string()
    } else {
        format!("{chosen} of {all}")
    }
}

/// The numbers of a run, beside the published ones if there are any.
pub(crate) fn summary(
    out: &mut impl Write,
    label: &str,
    summary: &Summary,
    benchmark: Option<&Benchmark>,
) -> io::Result<()> {
    let means = &summary.means;
    writeln!(out, "\n{label}")?;
    writeln!(out, "Accuracy   {}", share(&summary.score))?;
    writeln!(
        out,
        "Means      {:.2} rounds, {:.1} frames, {:.0} visual tokens, {:.0} tokens in all",
        means.rounds, means.frames, means.visual_tokens, means.total_tokens
    )?;
    writeln!(
        out,
        "Tokens     {:.0} of the prompt, {:.0} of them cached, {:.0} generated, an item",
        means.prompt_tokens, means.cached_tokens, means.completion_tokens
    )?;
    writeln!(
        out,
        "Time       {:.3} s in the model, {:.3} s in the decoder, an item",
        means.seconds_model, means.seconds_decoder
    )?;
    let ends = summary.stop_reasons.iter();
    let ends: Vec<String> = ends
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    writeln!(out, "Ends       {}", ends.join(", "))?;
    if summary.unanswered > 0 {
        writeln!(
            out,
            "Unanswered {} items count as wrong: there is no answer",
            summary.unanswered
        )?;
    }
    if summary.errors > 0 {
        writeln!(
            out,
            "Errors     {}; try them again with --retry-error",
            summary.errors
        )?;
    }
    if summary.unanswerable > 0 {
        writeln!(
            out,
            "Unmatched  {} items count as wrong: no answer can match their ground truth",
            summary.unanswerable
        )?;
    }
    if let Some(known) = benchmark {
        let published = known.published;
        writeln!(
            out,
            "Published  {}: {:.2}% of {} items, {:.2} rounds, {:.0} tokens in all (7B weights)",
            known.name,
            100.0 * published.accuracy,
            known.items,
            published.rounds,
            published.total_tokens
        )?;
    }
    for (key, values) in &summary.categories {
        writeln!(out, "\nby {key}")?;
        let width = values.keys().map(|value| value.chars().count()).max();
        let width = width.unwrap_or_default().min(40);
        for (value, score) in values {
            let value: String = value.chars().take(40).collect();
            writeln!(out, "  {value:width$}  {}", share(score))?;
        }
    }
    Ok(())
}

/// `61.5% (8 of 13), 35.5 to 82.3%`
fn share(score: &Score) -> String {
    format!(
        "{:.1}% ({} of {}), {:.1} to {:.1}%",
        100.0 * score.accuracy,
        score.correct,
        score.items,
        100.0 * score.interval.low,
        100.0 * score.interval.high
    )
}

/// The published row, for a summary file.
pub(crate) fn published_json(benchmark: Option<&Benchmark>) -> Value {
    benchmark.map_or(Value::Null, |known| {
        serde_json::json!({
            "name": known.name,
            "items": known.items,
            "accuracy": known.published.accuracy,
            "rounds": known.published.rounds,
            "total_tokens": known.published.total_tokens,
        })
    })
}

/// Two runs side by side.
pub(crate) fn compare(
    out: &mut impl Write,
    names: [&PathBuf; 2],
    summaries: &[Summary; 2],
    compared: &Comparison,
) -> io::Result<()> {
    let [a, b] = summaries;
    for (letter, name) in ["A", "B"].iter().zip(names) {
        writeln!(out, "{letter}  {}", name.display())?;
    }
    writeln!(out, "\n{:16} {:>12} {:>12}", "", "A", "B")?;
    let score = |summary: &Summary| 100.0 * summary.score.accuracy;
    writeln!(
        out,
        "{:16} {:>12} {:>12}",
        "items", a.score.items, b.score.items
    )?;
    writeln!(
        out,
        "{:16} {:>11.1}% {:>11.1}%",
        "accuracy",
        score(a),
        score(b)
    )?;
    type Row = (&'static str, fn(&Means) -> f64);
    let rows: [Row; 9] = [
        ("rounds", |means| means.rounds),
        ("frames", |means| means.frames),
        ("visual tokens", |means| means.visual_tokens),
        ("tokens in all", |means| means.total_tokens),
        ("prompt tokens", |means| means.prompt_tokens),
        ("cached tokens", |means| means.cached_tokens),
        ("generated", |means| means.completion_tokens),
        ("seconds model", |means| means.seconds_model),
        ("seconds decoder", |means| means.seconds_decoder),
    ];
    for (name, value) in rows {
        let (a, b) = (value(&a.means), value(&b.means));
        writeln!(out, "{name:16} {a:>12.2} {b:>12.2}")?;
    }
    writeln!(out, "\non the {} items that both have", compared.a.items)?;
    writeln!(out, "  A  {}", share(&compared.a))?;
    writeln!(out, "  B  {}", share(&compared.b))?;
    writeln!(
        out,
        "  right in A alone: {}, in B alone: {}; p = {:.4} (McNemar, exact)",
        compared.only_a, compared.only_b, compared.p
    )?;
    if compared.different > 0 {
        writeln!(
            out,
            "  left out: {} items that have another ground truth in B",
            compared.different
        )?;
    }
    Ok(())
}
