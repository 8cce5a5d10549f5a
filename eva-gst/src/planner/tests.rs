//! The planner on made-up streams, against the plain definition of what is on display.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use gstreamer as gst;

const SECOND: i64 = 1_000_000_000;
const FRAME: i64 = SECOND / 25;

/// A stream in memory that counts what is asked of it.
struct Tape {
    packets: Vec<Packet>,
    place: usize,
    seekable: bool,
    seeks: usize,
}

impl Packets for Tape {
    fn next(&mut self) -> Result<Option<Packet>, GstError> {
        self.place += 1;
        Ok(self.packets.get(self.place - 1).cloned())
    }

    fn seek(&mut self, time: i64) -> Result<(), GstError> {
        self.seeks += 1;
        let before = |packet: &Packet| packet.sync && packet.time <= time;
        self.place = self.packets.iter().rposition(before).unwrap_or(0);
        Ok(())
    }

    fn restart(&mut self) -> Result<(), GstError> {
        self.place = 0;
        Ok(())
    }

    fn seekable(&self) -> bool {
        self.seekable
    }

    fn arrived(&mut self) {}

    fn costs(&self) -> Costs {
        Costs::default()
    }
}

/// A stream of closed GOPs: each anchor is followed by `between` pictures shown before it.
fn tape(gops: &[usize], between: usize, with_dts: bool) -> Tape {
    gst::init().unwrap();
    let mut packets: Vec<Packet> = Vec::new();
    let mut base = 0;
    for gop in gops {
        let mut shown: Vec<(usize, bool)> = vec![(0, true)];
        let mut anchor = 0;
        while anchor + 1 < *gop {
            let next = (anchor + between + 1).min(gop - 1);
            shown.push((next, true));
            shown.extend((anchor + 1..next).map(|place| (place, false)));
            anchor = next;
        }
        for (place, reference) in shown {
            let decoded = packets.len() as i64;
            packets.push(Packet {
                time: (base + place) as i64 * FRAME,
                dts: with_dts.then_some((decoded - 2) * FRAME),
                duration: Some(FRAME),
                stop: None,
                key: place == 0,
                recovery: None,
                sync: place == 0,
                reference,
                buffer: gst::Buffer::with_size(10).unwrap(),
                caps: gst::Caps::new_empty_simple("video/x-test"),
            });
        }
        base += gop;
    }
    Tape {
        packets,
        place: 0,
        seekable: true,
        seeks: 0,
    }
}

/// Runs the planner over `targets` and a perfect decoder behind it. Returns the answers, and the
/// packets fed in all.
fn answers(planner: &mut Planner, tape: &mut Tape, targets: &[i64]) -> (Vec<i64>, Vec<i64>) {
    let (mut answers, mut fed) = (Vec::new(), Vec::new());
    let mut decoded: Vec<i64> = Vec::new();
    let mut rest = targets;
    while !rest.is_empty() {
        let run = planner.gather(tape, rest).unwrap();
        if !run.resumed {
            decoded.clear();
            assert!(run.packets[0].key, "a run starts where decoding can start");
        }
        decoded.extend(run.needed().map(|packet| packet.time));
        fed.extend(run.needed().map(|packet| packet.time));
        assert!(
            run.covered > 0 || run.unfinished,
            "every run gets somewhere"
        );
        for target in &rest[..run.covered] {
            let shown = decoded.iter().filter(|time| *time <= target);
            answers.push(*shown.max().unwrap());
        }
        rest = &rest[run.covered..];
    }
    (answers, fed)
}

fn displayed(tape: &Tape, targets: &[i64]) -> Vec<i64> {
    let on_display = |target: &i64| {
        let shown = tape.packets.iter().map(|packet| packet.time);
        shown.filter(|time| time <= target).max().unwrap()
    };
    targets.iter().map(on_display).collect()
}

/// A small deterministic generator.
fn dice(seed: &mut u64, limit: i64) -> i64 {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) as i64 % limit
}

#[test]
fn every_target_gets_what_is_on_display_and_nothing_is_decoded_twice() {
    let mut seed = 1;
    for round in 0..300 {
        let gops: Vec<usize> = (0..1 + dice(&mut seed, 12))
            .map(|_| 1 + dice(&mut seed, 200) as usize)
            .collect();
        let mut tape = tape(&gops, round % 4, round % 3 > 0);
        tape.seekable = round % 5 > 0;
        let mut planner = Planner::default();
        let end = tape.packets.len() as i64 * FRAME;
        for _ in 0..3 {
            let mut targets: Vec<i64> = (0..1 + dice(&mut seed, 30))
                .map(|_| dice(&mut seed, end))
                .collect();
            targets.sort_unstable();
            let (answers, mut fed) = answers(&mut planner, &mut tape, &targets);
            assert_eq!(answers, displayed(&tape, &targets), "round {round}");
            let all = fed.len();
            fed.sort_unstable();
            fed.dedup();
            assert_eq!(fed.len(), all, "round {round}: something was decoded twice");
        }
    }
}

#[test]
fn pictures_that_nothing_refers_to_are_left_out() {
    let mut tape = tape(&[90], 2, true);
    let target = 60 * FRAME + 1;
    let (answers, fed) = answers(&mut Planner::default(), &mut tape, &[target]);
    assert_eq!(answers, [60 * FRAME]);
    // Anchors 0, 3, ..., 60.
    assert_eq!(fed.len(), 21);
}

#[test]
fn neighbouring_targets_are_read_up_to_and_far_ones_sought() {
    let mut near = tape(&[25; 20], 0, true);
    answers(
        &mut Planner::default(),
        &mut near,
        &[0, 2 * SECOND, 4 * SECOND],
    );
    assert_eq!(near.seeks, 1);
    let mut far = tape(&[25; 40], 0, true);
    answers(
        &mut Planner::default(),
        &mut far,
        &[0, 10 * SECOND, 30 * SECOND],
    );
    assert_eq!(far.seeks, 3);
    assert!(far.place < 800);
}

#[test]
fn a_gop_too_large_to_hold_is_decoded_in_pieces() {
    let mut tape = tape(&[3000, 10], 2, true);
    let targets = [50 * SECOND, 100 * SECOND, 119 * SECOND];
    let mut planner = Planner::default();
    let first = planner.gather(&mut tape, &targets).unwrap();
    assert!(first.unfinished);
    planner.reset();
    let (found, _) = answers(&mut planner, &mut tape, &targets);
    assert_eq!(found, displayed(&tape, &targets));
}

#[test]
fn an_open_gop_is_entered_well_before_its_target() {
    // Keyframes of the container that are no clean places to start, as in open-GOP H.264.
    let mut tape = tape(&[50; 30], 2, true);
    for packet in &mut tape.packets {
        packet.key = packet.time == 0;
        packet.buffer = gst::Buffer::new();
    }
    let target = 40 * SECOND;
    let run = Planner::default().gather(&mut tape, &[target]).unwrap();
    let begin = run.packets[0].time;
    assert!(begin > 0 && begin <= target - OPEN_GOP, "{begin}");
    assert_eq!(run.wanted, [target]);
}

#[test]
fn a_retry_begins_one_gop_earlier() {
    let mut tape = tape(&[25; 10], 0, true);
    let mut planner = Planner::default();
    let target = 5 * SECOND + 10;
    let run = planner.gather(&mut tape, &[target]).unwrap();
    assert_eq!(run.packets[0].time, 5 * SECOND);
    planner.retry_before(5 * SECOND);
    let run = planner.gather(&mut tape, &[target]).unwrap();
    assert_eq!(run.packets[0].time, 4 * SECOND);
    assert_eq!(run.packets.last().unwrap().time, 5 * SECOND);
}

/// All pictures of the GOPs that hold a displayed one, each up to the last of those: what decoding
/// them in order would take.
fn in_order(tape: &Tape, targets: &[i64]) -> usize {
    let shown = displayed(tape, targets);
    let mut total = 0;
    let mut gop: Vec<i64> = Vec::new();
    let mut close = |gop: &mut Vec<i64>| {
        let last = gop.iter().rposition(|time| shown.contains(time));
        total += last.map_or(0, |last| last + 1);
        gop.clear();
    };
    for packet in &tape.packets {
        if packet.key {
            close(&mut gop);
        }
        gop.push(packet.time);
    }
    close(&mut gop);
    total
}

#[test]
fn no_more_is_decoded_than_the_touched_gops_in_order_and_the_plan_is_always_the_same() {
    let mut seed = 99;
    for round in 0..300 {
        let gops: Vec<usize> = (0..1 + dice(&mut seed, 12))
            .map(|_| 1 + dice(&mut seed, 90) as usize)
            .collect();
        let mut tape = tape(&gops, round % 4, round % 3 > 0);
        tape.seekable = round % 5 > 0;
        let end = tape.packets.len() as i64 * FRAME;
        let mut targets: Vec<i64> = (0..1 + dice(&mut seed, 30))
            .map(|_| dice(&mut seed, end))
            .collect();
        targets.sort_unstable();
        let limit = in_order(&tape, &targets);
        let (found, fed) = answers(&mut Planner::default(), &mut tape, &targets);
        assert_eq!(found, displayed(&tape, &targets), "round {round}");
        assert!(
            fed.len() <= limit,
            "round {round}: {} of {limit}",
            fed.len()
        );
        let seeks = tape.seeks;
        (tape.place, tape.seeks) = (0, 0);
        let again = answers(&mut Planner::default(), &mut tape, &targets);
        assert_eq!((again.1, tape.seeks), (fed, seeks), "round {round}");
    }
}
