//! What holds of every plan, on streams of any shape.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

const FRAME: i64 = 40_000_000;

/// A stream in decode order, with decode times where the container gives them.
#[derive(Debug, Clone)]
struct Stream {
    units: Vec<Unit>,
    decoded: Option<Vec<i64>>,
}

/// What is asked of it, and how much of it is known.
#[derive(Debug, Clone)]
struct Case {
    stream: Stream,
    targets: Vec<i64>,
    read: usize,
    seekable: bool,
    costs: Costs,
}

/// GOPs of some pictures each, of which up to `between` in a row refer to their neighbours and are
/// referred to by none; `steps` are how long the pictures are shown.
fn stream(gops: &[usize], between: usize, steps: &[i64], with_decode_times: bool) -> Stream {
    let all: usize = gops.iter().sum();
    let mut shown = vec![0; all];
    for i in 1..all {
        shown[i] = shown[i - 1] + steps[i % steps.len()];
    }
    let mut places: Vec<(usize, bool, bool)> = Vec::new();
    let mut base = 0;
    for gop in gops {
        places.push((base, true, true));
        let mut anchor = 0;
        while anchor + 1 < *gop {
            let next = (anchor + between + 1).min(gop - 1);
            places.push((base + next, false, true));
            places.extend((anchor + 1..next).map(|place| (base + place, false, false)));
            anchor = next;
        }
        base += gop;
    }
    let unit = |(place, key, reference): (usize, bool, bool)| Unit {
        time: shown[place],
        key,
        reference,
    };
    // A picture is decoded at the latest when it is shown, and one behind another.
    let delay = 2 * steps.iter().max().unwrap();
    Stream {
        units: places.iter().copied().map(unit).collect(),
        decoded: with_decode_times.then(|| shown.iter().map(|time| time - delay).collect()),
    }
}

impl Stream {
    fn known(&self, read: usize, seekable: bool) -> Known<'_> {
        let units = &self.units[..read];
        Known {
            units,
            position: units.iter().map(|unit| unit.time).max(),
            decode_position: self.decoded.as_ref().map(|times| times[read - 1]),
            ended: read == self.units.len(),
            early: false,
            seekable,
        }
    }

    /// By definition: the last picture that is not shown after the time.
    fn displayed(&self, target: i64) -> i64 {
        let shown = self.units.iter().map(|unit| unit.time);
        shown.filter(|time| *time <= target).max().unwrap()
    }

    fn whole(&self) -> Known<'_> {
        self.known(self.units.len(), true)
    }
}

fn case() -> impl Strategy<Value = Case> {
    let shape = (
        prop::collection::vec(1..40_usize, 1..8),
        0..4_usize,
        prop::collection::vec(1..100_i64, 1..6),
        any::<bool>(),
    );
    let costs = (0.0..1e6, 0.0..1e8, 1.0..1e9, 1.0..1e10);
    let targets = prop::collection::vec(any::<prop::sample::Index>(), 1..40);
    let read = any::<prop::sample::Index>();
    (shape, targets, read, any::<bool>(), costs).prop_map(
        |(shape, targets, read, seekable, costs)| {
            let steps: Vec<i64> = shape.2.iter().map(|step| step * FRAME / 25).collect();
            let stream = stream(&shape.0, shape.1, &steps, shape.3);
            let end = stream.displayed(i64::MAX) + FRAME;
            Case {
                targets: targets
                    .iter()
                    .map(|at| at.index(end as usize) as i64)
                    .collect(),
                read: read.index(stream.units.len()) + 1,
                seekable,
                costs: Costs {
                    read: costs.0,
                    seek: costs.1,
                    frame: costs.2,
                    gop: costs.3,
                },
                stream,
            }
        },
    )
}

/// The units that a part has decoded.
fn needed<'a>(known: &'a Known<'_>, part: &'a Part) -> impl Iterator<Item = Unit> + 'a {
    let units = &known.units[part.begin..part.end];
    let begin = units.first().map_or(i64::MIN, |unit| unit.time);
    let is_needed = move |unit: &Unit| unit.is_needed(begin, &part.wanted);
    units.iter().copied().filter(is_needed)
}

/// How many units decoding in order takes: of each GOP that holds a displayed picture, all up to
/// the last of those.
fn in_order(stream: &Stream, targets: &[i64]) -> usize {
    let shown: Vec<i64> = targets
        .iter()
        .map(|target| stream.displayed(*target))
        .collect();
    let mut total = 0;
    for gop in stream.units.chunk_by(|_, next| !next.key) {
        let last = gop.iter().rposition(|unit| shown.contains(&unit.time));
        total += last.map_or(0, |last| last + 1);
    }
    total
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_target_is_answered_by_the_picture_on_display(case in case()) {
        let known = case.stream.whole();
        let found = plan(&known, &case.targets, &case.costs);
        prop_assert_eq!(found.next, Next::Done);
        let mut targets = case.targets.clone();
        targets.sort_unstable();
        let mut answered = targets.iter();
        for part in &found.parts {
            let decoded: Vec<i64> = needed(&known, part).map(|unit| unit.time).collect();
            for (shown, target) in part.shown.iter().zip(answered.by_ref()) {
                let expected = case.stream.displayed(*target);
                let (from, until) = shown.unwrap();
                prop_assert_eq!(from, expected);
                prop_assert!(decoded.contains(&expected) && part.wanted.contains(&expected));
                // It stays on display for as long as is claimed.
                prop_assert!(until >= *target);
                prop_assert_eq!(case.stream.displayed(until), expected);
            }
        }
        prop_assert_eq!(answered.next(), None);
    }

    #[test]
    fn what_is_decoded_can_be(case in case()) {
        let known = case.stream.whole();
        for part in plan(&known, &case.targets, &case.costs).parts {
            let units = &known.units[part.begin..part.end];
            prop_assert!(units[0].key);
            // All that others refer to is decoded, back to the place to start.
            let references = units.iter().filter(|unit| unit.reference).count();
            prop_assert_eq!(needed(&known, &part).filter(|unit| unit.reference).count(), references);
        }
    }

    #[test]
    fn no_more_is_decoded_than_in_order_and_nothing_twice(case in case()) {
        let known = case.stream.whole();
        let found = plan(&known, &case.targets, &case.costs);
        let total: usize = found.parts.iter().map(|part| needed(&known, part).count()).sum();
        prop_assert!(total <= in_order(&case.stream, &case.targets));
        for pair in found.parts.windows(2) {
            prop_assert!(pair[0].end <= pair[1].begin);
        }
    }

    #[test]
    fn neither_order_nor_repetition_of_targets_nor_another_go_changes_a_plan(
        case in case(),
        seed in any::<prop::sample::Index>(),
    ) {
        let known = case.stream.known(case.read, case.seekable);
        let found = plan(&known, &case.targets, &case.costs);
        prop_assert_eq!(&plan(&known, &case.targets, &case.costs), &found);
        let mut turned = case.targets.clone();
        let by = seed.index(turned.len());
        turned.rotate_left(by);
        prop_assert_eq!(&plan(&known, &turned, &case.costs), &found);
        turned.reverse();
        prop_assert_eq!(&plan(&known, &turned, &case.costs), &found);
        let twice: Vec<i64> = case.targets.iter().chain(&turned).copied().collect();
        let again = plan(&known, &twice, &case.costs);
        prop_assert_eq!(again.next, found.next);
        let ranges = |plan: &Plan| -> Vec<(usize, usize, Vec<i64>)> {
            let range = |part: &Part| (part.begin, part.end, part.wanted.clone());
            plan.parts.iter().map(range).collect()
        };
        prop_assert_eq!(ranges(&again), ranges(&found));
    }

    /// Whatever is claimed of a part of the stream stays true when the rest is known.
    #[test]
    fn knowing_more_only_adds_to_a_plan(case in case()) {
        let part = case.stream.known(case.read, case.seekable);
        let whole = case.stream.whole();
        let early = plan(&part, &case.targets, &case.costs);
        let late = plan(&whole, &case.targets, &case.costs);
        let shown = |plan: &Plan| -> Vec<Option<i64>> {
            let parts = plan.parts.iter().flat_map(|part| &part.shown);
            parts.map(|shown| shown.map(|(from, _)| from)).collect()
        };
        let (early_shown, late_shown) = (shown(&early), shown(&late));
        prop_assert_eq!(&late_shown[..early_shown.len()], &early_shown[..]);
        for shown in early.parts.iter().flat_map(|part| &part.shown) {
            let (from, until) = shown.unwrap();
            prop_assert_eq!(case.stream.displayed(until), from);
        }
        // All but the last part, which may grow, are as they will be.
        if let Some((_, complete)) = early.parts.split_last() {
            prop_assert_eq!(&late.parts[..complete.len()], complete);
        }
        if early.next == Next::Split {
            let last = early.parts.len() - 1;
            prop_assert_eq!(&late.parts[last].wanted, &early.parts[last].wanted);
        }
    }

    #[test]
    fn what_is_missing_is_asked_for(case in case()) {
        let known = case.stream.known(case.read, case.seekable);
        let found = plan(&known, &case.targets, &case.costs);
        let answered: usize = found.parts.iter().map(|part| part.shown.len()).sum();
        let mut targets = case.targets.clone();
        targets.sort_unstable();
        match found.next {
            Next::Done => prop_assert_eq!(answered, targets.len()),
            Next::Split => prop_assert!(answered > 0 && answered < targets.len()),
            Next::Read(target) => prop_assert_eq!(target, targets[answered]),
            Next::Seek(target) => {
                prop_assert_eq!(target, targets[answered]);
                prop_assert!(case.seekable && answered > 0);
            }
        }
    }

    /// Any numbers at all, as damaged files give them.
    #[test]
    fn no_stream_is_too_strange(
        units in prop::collection::vec((any::<i64>(), any::<bool>(), any::<bool>()), 0..40),
        targets in prop::collection::vec(any::<i64>(), 0..20),
        decode_position in any::<Option<i64>>(),
        [ended, early, seekable] in any::<[bool; 3]>(),
    ) {
        let unit = |(time, key, reference)| Unit { time, key, reference };
        let units: Vec<Unit> = units.into_iter().map(unit).collect();
        let known = Known {
            units: &units,
            position: units.iter().map(|unit| unit.time).max(),
            decode_position,
            ended,
            early,
            seekable,
        };
        let found = plan(&known, &targets, &Costs::default());
        for part in &found.parts {
            prop_assert!(part.begin <= part.end && part.end <= units.len());
        }
    }
}
