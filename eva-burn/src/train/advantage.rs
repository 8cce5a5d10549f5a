//! Group-relative advantages: `A = (R - mean) / (std + 1e-4)` (paper, section on GRPO; DeepSeekMath).

/// Added to the standard deviation, so that a group of almost equal rewards does not explode.
pub const EPSILON: f64 = 1e-4;

/// What the difference to the group's mean is divided by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scale {
    /// The standard deviation of all rewards of the batch: hard and easy prompts keep their weight.
    Batch,
    /// The standard deviation of the group's rewards (the paper's).
    #[default]
    Group,
    /// Nothing (Dr. GRPO).
    None,
}

/// The advantages of a batch of groups.
#[derive(Debug, Clone, PartialEq)]
pub struct Advantages {
    /// One value for each reward, group by group.
    pub groups: Vec<Vec<f64>>,
    /// Groups whose rewards are all equal: their advantages are exactly 0.
    pub equal: usize,
}

/// Why advantages cannot be computed.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("reward {index} of group {group} is {value}; every reward must be finite")]
pub struct NotFinite {
    /// Number of the group, from 0.
    pub group: usize,
    /// Number of the reward within the group, from 0.
    pub index: usize,
    /// The reward.
    pub value: f64,
}

/// The advantages of rollouts; a group holds the rewards of one prompt's rollouts.
///
/// Standard deviations are those of a sample (divided by n - 1), as in the implementations that use
/// this epsilon.
///
/// # Errors
/// [`NotFinite`] names the first reward that isn't finite: one would spoil all weights.
pub fn advantages(groups: &[Vec<f64>], scale: Scale) -> Result<Advantages, NotFinite> {
    for (group, rewards) in groups.iter().enumerate() {
        if let Some(index) = rewards.iter().position(|reward| !reward.is_finite()) {
            let value = rewards[index];
            return Err(NotFinite {
                group,
                index,
                value,
            });
        }
    }
    let batch = match scale {
        Scale::Batch => deviation(&groups.concat()),
        Scale::Group | Scale::None => 0.0,
    };
    let mut equal = 0;
    let relative = |rewards: &Vec<f64>| {
        // Compared, not subtracted: the rounded mean of equal rewards can differ from them.
        if rewards.windows(2).all(|pair| pair[0] == pair[1]) {
            equal += 1;
            return vec![0.0; rewards.len()];
        }
        let mean = mean(rewards);
        let divisor = match scale {
            Scale::Batch => batch + EPSILON,
            Scale::Group => deviation(rewards) + EPSILON,
            Scale::None => 1.0,
        };
        let differences = rewards.iter().map(|reward| (reward - mean) / divisor);
        differences.collect()
    };
    let groups = groups.iter().map(relative).collect();
    Ok(Advantages { groups, equal })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Standard deviation of a sample; 0 for fewer than two values.
fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares = values.iter().map(|value| (value - mean).powi(2));
    (squares.sum::<f64>() / values.len().saturating_sub(1).max(1) as f64).sqrt()
}
