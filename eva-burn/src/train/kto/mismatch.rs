//! Mismatched pairs: a prompt with another prompt's completion.

use crate::config::ModelConfig;
use crate::train::Example;

/// Rotates the completions of a batch by one: each prompt gets the completion of the example after
/// it, the last one that of the first. A completion starts with the assistant's first turn and brings
/// its own tool responses and pictures.
///
/// Neighbours should not share a prompt, or the pair matches; a single example is its own pair.
#[must_use]
pub fn mismatched(examples: &[Example], config: &ModelConfig) -> Vec<Example> {
    let others = examples.iter().cycle().skip(1);
    examples
        .iter()
        .zip(others)
        .map(|(example, other)| join(example, other, config))
        .collect()
}

fn join(prompt: &Example, completion: &Example, config: &ModelConfig) -> Example {
    let kept = Boundary::of(prompt, config);
    let skipped = Boundary::of(completion, config);
    let moved = |at: usize| at.saturating_sub(skipped.tokens) + kept.tokens;
    let (mut patches, _) = prompt.patches.split_at(kept.pictures);
    patches.append(&completion.patches.split_at(skipped.pictures).1);
    Example {
        tokens: [
            &prompt.tokens[..kept.tokens],
            &completion.tokens[skipped.tokens..],
        ]
        .concat(),
        turns: completion
            .turns
            .iter()
            .map(|turn| moved(turn.start)..moved(turn.end))
            .collect(),
        patches,
    }
}

/// Where the completion starts.
struct Boundary {
    tokens: usize,
    pictures: usize,
}

impl Boundary {
    fn of(example: &Example, config: &ModelConfig) -> Self {
        let all = example.tokens.len();
        let tokens = example
            .turns
            .first()
            .map_or(all, |turn| turn.start.min(all));
        let prompt = example.tokens[..tokens].iter();
        let shown = prompt.filter(|token| **token == config.image_token_id);
        let mut left = shown.count();
        let merge = config.vision.spatial_merge_size;
        let pictures = example.patches.grids.iter().take_while(|grid| {
            let fits = grid.tokens(merge) <= left;
            left = left.saturating_sub(grid.tokens(merge));
            fits
        });
        Self {
            tokens,
            pictures: pictures.count(),
        }
    }
}
