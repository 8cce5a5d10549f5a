//! Runs that wait for a free worker: [`Ahead`].
//!
//! Workers that decode side by side are all done at about the same time if the longest runs of the
//! last few are begun first. Before it is known which are the last, runs go out in order, so that
//! their frames need not wait for those of earlier ones.

use crate::planner::Run;

/// Compressed bytes that may wait.
const BYTES: usize = 64 << 20;

/// Targets of runs that may wait: their frames may have to wait for those of a run begun later.
const TARGETS: usize = 64;

/// A run on its way to a worker.
pub(crate) struct Job {
    /// Where its answers stand among those of the others.
    pub(crate) place: usize,
    pub(crate) run: Run,
    pub(crate) targets: Vec<i64>,
    /// How many packets it has decoded.
    weight: usize,
}

impl Job {
    pub(crate) fn new(place: usize, run: Run, targets: Vec<i64>) -> Self {
        Self {
            weight: run.needed().count(),
            place,
            run,
            targets,
        }
    }
}

/// Jobs in order.
pub(crate) struct Ahead {
    jobs: Vec<Job>,
    most: usize,
    /// All jobs there are have come.
    pub(crate) complete: bool,
}

impl Ahead {
    /// At most `most` jobs wait.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            jobs: Vec::new(),
            most,
            complete: false,
        }
    }

    /// Whether there is room for another job. There always is for one.
    pub(crate) fn has_room(&self) -> bool {
        let bytes = |job: &Job| {
            job.run
                .packets
                .iter()
                .map(|p| p.buffer.size())
                .sum::<usize>()
        };
        let targets = |job: &Job| job.targets.len();
        self.jobs.is_empty()
            || self.jobs.len() < self.most
                && self.jobs.iter().map(bytes).sum::<usize>() < BYTES
                && self.jobs.iter().map(targets).sum::<usize>() < TARGETS
    }

    pub(crate) fn push(&mut self, job: Job) {
        self.jobs.push(job);
    }

    /// The job to be done next.
    pub(crate) fn pop(&mut self) -> Option<Job> {
        if self.jobs.is_empty() {
            return None;
        }
        let weights = self.jobs.iter().map(|job| job.weight).enumerate();
        // The first of the longest.
        let longest = weights.rev().max_by_key(|(_, weight)| *weight);
        let index = longest
            .filter(|_| self.complete)
            .map_or(0, |(index, _)| index);
        Some(self.jobs.remove(index))
    }

    /// Takes back a job that nobody could take.
    pub(crate) fn put_back(&mut self, job: Job) {
        let index = self.jobs.partition_point(|other| other.place < job.place);
        self.jobs.insert(index, job);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn job(place: usize, weight: usize, targets: usize) -> Job {
        let mut job = Job::new(place, Run::default(), vec![0; targets]);
        job.weight = weight;
        job
    }

    #[test]
    fn jobs_go_out_in_order_until_the_last_are_known_then_the_longest_first() {
        let mut ahead = Ahead::new(10);
        for (place, weight) in [3, 9, 4, 9, 5].into_iter().enumerate() {
            ahead.push(job(place, weight, 1));
        }
        assert_eq!(ahead.pop().unwrap().place, 0);
        let second = ahead.pop().unwrap();
        assert_eq!(second.place, 1);
        ahead.put_back(second);
        ahead.complete = true;
        let order: Vec<usize> = std::iter::from_fn(|| ahead.pop())
            .map(|job| job.place)
            .collect();
        assert_eq!(order, [1, 3, 4, 2]);
    }

    #[test]
    fn there_is_room_for_one_job_of_any_size_and_for_a_few_small_ones() {
        let mut ahead = Ahead::new(3);
        ahead.push(job(0, 1, 1));
        ahead.push(job(1, 1, 1));
        assert!(ahead.has_room());
        ahead.push(job(2, 1, 1));
        assert!(!ahead.has_room());
        let mut ahead = Ahead::new(3);
        assert!(ahead.has_room());
        ahead.push(job(0, 1, TARGETS));
        assert!(!ahead.has_room());
    }
}
