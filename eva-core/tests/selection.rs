//! The visual budget, the window, the times and the labels of a selection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use eva_core::prompt::Label;
use eva_core::reply::{Argument, FrameSelect};
use eva_core::selection::PATCH;
use eva_core::{Rules, Selection, SelectionError, VideoInfo};
use proptest::prelude::*;

const HD: VideoInfo = VideoInfo {
    duration: 600.0,
    width: 1280,
    height: 720,
    fps: 25.0,
};

fn call(start: f64, end: f64, nframes: u32, resize: f64) -> FrameSelect {
    FrameSelect {
        start_time: Argument::float(start),
        end_time: Argument::float(end),
        nframes: Argument::whole(nframes),
        resize: Argument::float(resize),
    }
}

fn plan(info: &VideoInfo, call: &FrameSelect) -> Selection {
    Selection::plan(call, info, &Rules::published()).unwrap()
}

#[test]
fn sides_are_rounded_to_patches_halves_to_even() {
    let side = |pixels: u32| {
        let info = VideoInfo {
            width: pixels,
            height: 28,
            ..HD
        };
        plan(&info, &call(0.0, 9.0, 1, 1.0)).width / PATCH
    };
    // 0.5, 1.5, 2.5, 3.5 patches.
    assert_eq!([14, 42, 70, 98].map(side), [1, 2, 2, 4]);
    assert_eq!([1, 13, 15, 41, 43].map(side), [1, 1, 1, 1, 2]);
}

#[test]
fn a_call_within_the_budget_is_left_alone() {
    let scan = plan(&HD, &call(0.0, 600.0, 64, 0.1));
    assert_eq!((scan.nframes, scan.width, scan.height), (64, 140, 84));
    assert_eq!(scan.visual_tokens(), 64 * 5 * 3);
    // 10 * 26 * 46 = 11960.
    assert_eq!(
        plan(&HD, &call(0.0, 600.0, 10, 1.0)).visual_tokens(),
        11_960
    );
    // Enlarging is allowed while it fits.
    assert_eq!(plan(&HD, &call(0.0, 600.0, 1, 2.0)).width, 91 * PATCH);
}

#[test]
fn exactly_the_budget_is_not_over_it() {
    let rules = Rules::published().with_max_visual_tokens(11_960);
    let at = Selection::plan(&call(0.0, 600.0, 10, 1.0), &HD, &rules).unwrap();
    assert_eq!((at.nframes, at.visual_tokens()), (10, 11_960));
    let rules = rules.with_max_visual_tokens(11_959);
    let over = Selection::plan(&call(0.0, 600.0, 10, 1.0), &HD, &rules).unwrap();
    assert_eq!(over.nframes, 9);
}

#[test]
fn the_first_stage_brings_the_shorter_side_to_720() {
    let uhd = VideoInfo {
        width: 3840,
        height: 2160,
        ..HD
    };
    // 8 * 77 * 137 tokens are over; at a third of the size, 8 * 26 * 46 are not.
    let reduced = plan(&uhd, &call(0.0, 600.0, 8, 1.0));
    assert_eq!(
        (reduced.nframes, reduced.width, reduced.height),
        (8, 46 * 28, 26 * 28)
    );
    assert_eq!(reduced.visual_tokens(), 9568);
}

#[test]
fn the_second_stage_takes_the_cube_root_from_number_and_size() {
    // 64 * 26 * 46 = 76544; (12000 / 76544)^(1/3) = 0.5393: 34 frames at 0.5393.
    let reduced = plan(&HD, &call(0.0, 600.0, 64, 1.0));
    assert_eq!(
        (reduced.nframes, reduced.width, reduced.height),
        (34, 25 * 28, 14 * 28)
    );
    assert_eq!(reduced.visual_tokens(), 34 * 25 * 14);
}

#[test]
fn the_second_stage_is_not_repeated_when_it_falls_short() {
    let square = VideoInfo {
        width: 28,
        height: 28,
        ..HD
    };
    // One patch can't shrink: only the number of frames comes down, by the cube root once.
    let reduced = plan(&square, &call(0.0, 600.0, 96_000, 1.0));
    assert_eq!(
        reduced.visual_tokens(),
        12_000,
        "held by the limit on frames"
    );
    let rules = Rules::published().with_max_frames(u32::MAX);
    let reduced = Selection::plan(&call(0.0, 600.0, 96_000, 1.0), &square, &rules).unwrap();
    assert_eq!(reduced.visual_tokens(), 48_000);
}

#[test]
fn windows_are_clamped_to_the_video() {
    let window = |start, end| {
        let s = plan(&HD, &call(start, end, 2, 0.1));
        assert_eq!((s.requested_start, s.requested_end), (start, end));
        (s.start, s.end)
    };
    assert_eq!(window(10.0, 20.0), (10.0, 20.0));
    assert_eq!(window(-5.0, 20.0), (0.0, 20.0));
    assert_eq!(window(590.0, 900.0), (590.0, 600.0));
    assert_eq!(window(-1.0, 1e300), (0.0, 600.0));
    // Nothing left: the whole video.
    assert_eq!(window(20.0, 20.0), (0.0, 600.0));
    assert_eq!(window(20.0, 10.0), (0.0, 600.0));
    assert_eq!(window(700.0, 800.0), (0.0, 600.0));
    assert_eq!(window(-20.0, -10.0), (0.0, 600.0));
}

#[test]
fn one_frame_is_the_middle_of_the_window_and_labelled_with_its_start() {
    let one = plan(&HD, &call(100.0, 200.0, 1, 1.0));
    assert_eq!(one.times().collect::<Vec<_>>(), [150.0]);
    assert_eq!(one.label_seconds(0), 100);
}

#[test]
fn several_frames_spread_from_the_start_to_just_before_the_end() {
    let times: Vec<f64> = plan(&HD, &call(0.0, 600.0, 3, 0.1)).times().collect();
    assert_eq!(times, [0.0, 299.9995, 599.999]);
    // A window of 4 ms: eps is a quarter of the mean distance.
    let times: Vec<f64> = plan(&HD, &call(0.0, 0.004, 2, 0.1)).times().collect();
    assert_eq!(times, [0.0, 0.0035]);
}

#[test]
fn labels_spread_over_the_requested_window_to_its_very_end() {
    let s = plan(&HD, &call(590.0, 5_000.0, 3, 0.1));
    assert_eq!([0, 1, 2].map(|i| s.label_seconds(i)), [590, 2795, 5000]);
    let s = plan(&HD, &call(-5.9, 20.0, 2, 0.1));
    assert_eq!([0, 1].map(|i| s.label_seconds(i)), [-5, 20]);
    let uniform = Selection::uniform(0.0, 60.0, 4, 28, 28);
    assert_eq!(
        [0, 1, 2, 3].map(|i| uniform.label_seconds(i)),
        [0, 20, 40, 60]
    );
}

#[test]
fn minutes_of_labels_are_unbounded() {
    let label = |seconds| Label(seconds).to_string();
    assert_eq!(label(0), "00:00");
    assert_eq!(label(61), "01:01");
    assert_eq!(label(4503), "75:03");
    assert_eq!(label(600_000), "10000:00");
    assert_eq!(label(-5), "-1:55");
}

#[test]
fn calls_that_the_published_code_fails_on_are_told_apart() {
    let good = call(0.0, 9.0, 4, 1.0);
    let error = |call: FrameSelect| Selection::plan(&call, &HD, &Rules::published()).unwrap_err();
    let frames = |nframes| error(FrameSelect { nframes, ..good });
    let size = |resize| error(FrameSelect { resize, ..good });
    let start = |start_time| error(FrameSelect { start_time, ..good });

    assert_eq!(frames(Argument::whole(0)), SelectionError::FrameCount(0.0));
    assert_eq!(
        frames(Argument::float(-3.0)),
        SelectionError::FrameCount(-3.0)
    );
    assert_eq!(
        frames(Argument::float(8.0)),
        SelectionError::FrameCount(8.0)
    );
    assert!(!frames(Argument::float(f64::NAN)).ends_the_run());
    assert_eq!(frames(Argument::NotANumber), SelectionError::Nframes);
    assert_eq!(
        frames(Argument::float(f64::INFINITY)),
        SelectionError::Nframes
    );
    assert_eq!(size(Argument::NotANumber), SelectionError::Resize);
    assert_eq!(size(Argument::float(f64::NAN)), SelectionError::Resize);
    assert_eq!(size(Argument::float(1e308)), SelectionError::Resize);
    assert_eq!(start(Argument::NotANumber), SelectionError::Time);
    assert_eq!(
        start(Argument::float(f64::NAN)),
        SelectionError::TimeNotFinite
    );
    // The labels are counted before the frames are.
    for (start, end) in [(0.0, f64::INFINITY), (f64::NAN, 9.0)] {
        let none = FrameSelect {
            start_time: Argument::float(start),
            end_time: Argument::float(end),
            nframes: Argument::whole(0),
            ..good
        };
        assert_eq!(error(none), SelectionError::TimeNotFinite);
    }
    // Both ends are finite, the way between them is not.
    let long = FrameSelect {
        start_time: Argument::float(-1e308),
        end_time: Argument::float(1e308),
        ..good
    };
    assert_eq!(error(long), SelectionError::TimeNotFinite);
    assert!(frames(Argument::NotANumber).ends_the_run());
    assert!(size(Argument::NotANumber).ends_the_run());
    assert!(start(Argument::float(f64::INFINITY)).ends_the_run());
    assert!(!start(Argument::NotANumber).ends_the_run());
}

#[test]
fn a_fraction_of_frames_is_made_whole_by_the_budget_alone() {
    let many = FrameSelect {
        nframes: Argument::float(64.5),
        ..call(0.0, 9.0, 1, 1.0)
    };
    assert_eq!(plan(&HD, &many).nframes, 34);
}

#[test]
fn a_size_of_nothing_is_one_patch() {
    for resize in [0.0, -1.0, 1e-300] {
        let s = plan(&HD, &call(0.0, 9.0, 4, resize));
        assert_eq!(
            (s.width, s.height, s.visual_tokens()),
            (28, 28, 4),
            "{resize}"
        );
    }
}

#[test]
fn a_video_without_length_or_size_is_still_planned() {
    for duration in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let info = VideoInfo {
            duration,
            width: 0,
            height: 0,
            fps: 0.0,
        };
        let s = plan(&info, &call(3.0, 9.0, 1_000_000, 1.0));
        assert_eq!(
            (s.start, s.end, s.width, s.height),
            (0.0, 0.0, 28, 28),
            "{duration}"
        );
        assert!(s.nframes <= 12_000);
        assert!(s.times().all(|time| time == 0.0));
    }
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        -10.0..700.0,
        any::<f64>(),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::MAX),
        Just(f64::MIN_POSITIVE),
    ]
}

fn argument() -> impl Strategy<Value = Argument> {
    prop_oneof![
        number().prop_map(Argument::float),
        any::<u32>().prop_map(Argument::whole),
        (0u32..300).prop_map(Argument::whole),
        Just(Argument::NotANumber),
    ]
}

/// So many cases, unless `PROPTEST_CASES` says otherwise.
fn cases(count: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(count),
    }
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn any_call_on_any_video_gives_times_within_it(
        times in (argument(), argument()),
        amount in (argument(), argument()),
        duration in number(),
        size in (prop_oneof![0u32..4000, any::<u32>()], prop_oneof![0u32..4000, any::<u32>()]),
        limits in (any::<u32>(), any::<u32>(), any::<u32>()),
    ) {
        let call = FrameSelect {
            start_time: times.0, end_time: times.1, nframes: amount.0, resize: amount.1,
        };
        let info = VideoInfo { duration, width: size.0, height: size.1, fps: 0.0 };
        let rules = Rules {
            max_visual_tokens: limits.0, reduced_side: limits.1, max_frames: limits.2,
            ..Rules::published()
        };
        for rules in [rules, Rules::published()] {
            if let Ok(s) = Selection::plan(&call, &info, &rules) {
                prop_assert!(s.nframes >= 1 && s.nframes <= rules.max_frames.max(1));
                prop_assert!(s.width >= PATCH && s.width % PATCH == 0);
                prop_assert!(s.height >= PATCH && s.height % PATCH == 0);
                prop_assert!(s.visual_tokens() >= u64::from(s.nframes));
                let end = info.usable_duration();
                for index in [0, s.nframes / 2, s.nframes - 1] {
                    let time = s.time(index);
                    prop_assert!(time >= 0.0 && time <= end, "{time} of {end}");
                    let _ = Label(s.label_seconds(index)).to_string();
                }
            }
        }
    }

    #[test]
    fn any_window_whatsoever_has_times_and_labels(
        window in (number(), number()),
        nframes: u32,
        size in (any::<u32>(), any::<u32>()),
        index: u32,
    ) {
        let s = Selection::uniform(window.0, window.1, nframes, size.0, size.1);
        prop_assert!(s.nframes >= 1);
        prop_assert_eq!(s.times().len(), s.nframes as usize);
        prop_assert!(s.visual_tokens() >= 1);
        let time = s.time(index);
        // As `Selection::plan` has them; beyond, differences and products leave the `f64`s.
        let believed = 0.0..=VideoInfo::MAX_DURATION;
        if believed.contains(&s.start) && believed.contains(&s.end) && s.start <= s.end {
            prop_assert!(index >= s.nframes || time >= s.start && time <= s.end, "{time}");
        }
        let _ = Label(s.label_seconds(index)).to_string();
    }

    #[test]
    fn ordinary_calls_come_out_within_the_budget(
        nframes in 1u32..600, resize in 0.02f64..1.0, height in 240u32..2160,
    ) {
        let info = VideoInfo { width: height * 16 / 9, height, ..HD };
        let s = plan(&info, &call(0.0, 600.0, nframes, resize));
        // The reduction is made once and sides are rounded, so a small excess can remain.
        prop_assert!(s.visual_tokens() <= 12_000 * 3 / 2, "{} tokens", s.visual_tokens());
    }
}

#[test]
fn the_last_frame_of_a_short_window_is_a_part_of_its_own_length_before_its_end() {
    // Far from the beginning, where the length is small beside both ends.
    let selection = Selection::uniform(100.0, 100.001, 2, 28, 28);
    let eps = 100.001 - selection.time(1);
    assert!((eps - 0.001 / 8.0).abs() < 1e-9, "{eps}");
    let selection = Selection::uniform(100.0, 200.0, 2, 28, 28);
    assert!((200.0 - selection.time(1) - 1e-3).abs() < 1e-9);
}
