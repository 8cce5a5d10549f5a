//! ROUGE-1, ROUGE-2 and ROUGE-L as Google's `rouge-score` package computes them (Lin, 2004).
//!
//! Without its optional stemmer (NLTK's variant of Porter's), which is off there by default too.

use std::collections::HashMap;

/// F-measures of a candidate text against a reference, each from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rouge {
    /// ROUGE-1: shared words.
    pub one: f64,
    /// ROUGE-2: shared pairs of neighbouring words.
    pub two: f64,
    /// ROUGE-L: the longest common subsequence of words.
    pub longest: f64,
}

impl Rouge {
    /// Compares two texts. Words are runs of ASCII letters and digits, in lower case.
    #[must_use]
    pub fn new(reference: &str, candidate: &str) -> Self {
        let (reference, candidate) = (words(reference), words(candidate));
        let shared = longest_common_subsequence(&reference, &candidate);
        Self {
            one: ngrams(&reference, &candidate, 1),
            two: ngrams(&reference, &candidate, 2),
            longest: f_measure(shared, reference.len(), candidate.len()),
        }
    }

    /// The mean of the three: the paper's reward of an open-ended answer.
    #[must_use]
    pub fn mean(self) -> f64 {
        (self.one + self.two + self.longest) / 3.0
    }
}

/// All of the text is put in lower case first: two characters outside ASCII (the Kelvin sign and
/// the dotted capital I) become ASCII letters then.
fn words(text: &str) -> Vec<String> {
    let lower: String = text.chars().flat_map(char::to_lowercase).collect();
    lower
        .split(|character: char| !character.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

fn ngrams(reference: &[String], candidate: &[String], n: usize) -> f64 {
    let mut unmatched: HashMap<&[String], usize> = HashMap::new();
    for ngram in reference.windows(n) {
        *unmatched.entry(ngram).or_default() += 1;
    }
    let mut shared = 0;
    for ngram in candidate.windows(n) {
        if let Some(count) = unmatched.get_mut(ngram).filter(|count| **count > 0) {
            *count -= 1;
            shared += 1;
        }
    }
    let count = |words: &[String]| words.windows(n).len();
    f_measure(shared, count(reference), count(candidate))
}

fn longest_common_subsequence(a: &[String], b: &[String]) -> usize {
    // The length for the prefix of `a` so far and each prefix of `b`.
    let mut row = vec![0; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        for (index, other) in b.iter().enumerate() {
            let above = row[index + 1];
            row[index + 1] = if word == other {
                diagonal + 1
            } else {
                above.max(row[index])
            };
            diagonal = above;
        }
    }
    row[b.len()]
}

fn f_measure(shared: usize, reference: usize, candidate: usize) -> f64 {
    let precision = shared as f64 / candidate.max(1) as f64;
    let recall = shared as f64 / reference.max(1) as f64;
    if precision + recall > 0.0 {
        2.0 * precision * recall / (precision + recall)
    } else {
        0.0
    }
}
