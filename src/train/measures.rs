//! What the steps of a stage measure: [`Measures`].

use std::collections::BTreeMap;

use eva_burn::train::Effort;

/// Weighted means by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measures(BTreeMap<String, Mean>);

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Measures {
    /// Counts a value once.
    pub fn add(&mut self, name: &str, value: f64) {
        self.count(name, value, 1.0);
    }

    /// Counts `part` of `all`, for example right answers: the mean is the share of them.
    pub fn add_share(&mut self, name: &str, part: usize, all: usize) {
        self.count(name, part as f64, all as f64);
    }

    /// Counts what a step cost.
    pub fn effort(&mut self, effort: &Effort) {
        self.add("gradient_norm", effort.gradient_norm);
        self.add("rate", effort.rate);
        self.add("tokens", effort.tokens as f64);
    }

    fn count(&mut self, name: &str, sum: f64, weight: f64) {
        // No name is made twice: this is called for every token.
        let mean = match self.0.get_mut(name) {
            Some(mean) => mean,
            None => self.0.entry(name.to_owned()).or_default(),
        };
        mean.sum += sum;
        mean.weight += weight;
    }

    /// The mean of a name; `None` when nothing was counted.
    #[must_use]
    pub fn mean(&self, name: &str) -> Option<f64> {
        self.0.get(name).and_then(Mean::value)
    }

    /// All means by name.
    #[must_use]
    pub fn means(&self) -> BTreeMap<String, f64> {
        let means = self.0.iter();
        means
            .filter_map(|(name, mean)| Some((name.clone(), mean.value()?)))
            .collect()
    }
}

impl Mean {
    fn value(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn means_are_of_values_and_of_shares() {
        let mut measures = Measures::default();
        measures.add("loss", 1.0);
        measures.add("loss", 3.0);
        measures.add_share("right", 3, 4);
        measures.add_share("right", 0, 2);
        measures.add_share("none", 0, 0);
        assert_eq!(measures.mean("loss"), Some(2.0));
        assert_eq!(measures.mean("right"), Some(0.5));
        assert_eq!(measures.mean("none"), None);
        assert_eq!(measures.means().len(), 2);
    }
}
