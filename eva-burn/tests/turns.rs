//! Turns of the bundled model: several conversations together, what is kept between turns, in how much
//! memory, and what is left of a turn that was called off.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt;

use eva_burn::sample::{Sampler, Sampling};
use eva_burn::weights::Precision;
use eva_burn::{BurnPolicy, Device, GenerateError, kv_bytes_per_token};
use eva_core::{Continuation, Message, Part, Policy, RgbImage, Role, Usage};

/// A conversation: in each message a text, then pictures.
#[derive(Clone, Default)]
struct Talk(Vec<(Role, String, Vec<RgbImage>)>);

impl Talk {
    fn new(question: &str, shades: &[u8]) -> Self {
        Self::default()
            .then(
                Role::System,
                "You are a helpful assistant that watches videos.",
                &[],
            )
            .then(Role::User, question, shades)
    }

    fn then(mut self, role: Role, text: &str, shades: &[u8]) -> Self {
        let pictures = shades.iter().map(|shade| picture(*shade));
        self.0.push((role, text.to_owned(), pictures.collect()));
        self
    }

    fn parts(&self) -> Vec<(Role, Vec<Part<'_, RgbImage>>)> {
        self.0
            .iter()
            .map(|(role, text, pictures)| {
                let text = std::iter::once(Part::Text(text.as_str()));
                (
                    *role,
                    text.chain(pictures.iter().map(Part::Image)).collect(),
                )
            })
            .collect()
    }
}

fn messages<'a>(parts: &'a [(Role, Vec<Part<'a, RgbImage>>)]) -> Vec<Message<'a, RgbImage>> {
    let message =
        |(role, parts): &'a (Role, Vec<Part<'a, RgbImage>>)| Message { role: *role, parts };
    parts.iter().map(message).collect()
}

fn policy() -> BurnPolicy {
    BurnPolicy::tiny(&Device::flex())
        .unwrap()
        .with_max_new_tokens(40)
}

fn picture(shade: u8) -> RgbImage {
    let (width, height) = (84 + 28 * u32::from(shade % 3), 56);
    let rgb = (0..width * height * 3).map(|at| shade.wrapping_mul(37) ^ (at % 251) as u8);
    RgbImage::new(width, height, rgb.collect()).unwrap()
}

fn alone(policy: &mut BurnPolicy, talk: &Talk) -> Result<(String, Usage), GenerateError> {
    let mut reply = String::new();
    let usage = policy.generate(&messages(&talk.parts()), &mut reply)?;
    Ok((reply, usage))
}

type Ended = Vec<(String, Option<Result<Usage, GenerateError>>)>;

/// Each reply, and how its turn ended.
fn together(policy: &mut BurnPolicy, talks: &[Talk], samplers: Option<&mut [Sampler]>) -> Ended {
    let mut replies = vec![String::new(); talks.len()];
    let parts: Vec<_> = talks.iter().map(Talk::parts).collect();
    let conversations: Vec<_> = parts.iter().map(|parts| messages(parts)).collect();
    let turns = conversations.iter().zip(&mut replies);
    let mut turns: Vec<_> = turns
        .map(|(conversation, reply)| Continuation {
            conversation,
            reply,
        })
        .collect();
    let mut results: Vec<_> = talks.iter().map(|_| None).collect();
    let mut done = |place: usize, ended| {
        assert!(results[place].is_none(), "{place} ended twice");
        results[place] = Some(ended);
    };
    match samplers {
        Some(samplers) => policy.generate_with(&mut turns, samplers, &mut done),
        None => policy.generate_batch(&mut turns, &mut done),
    }
    replies.into_iter().zip(results).collect()
}

fn usage(ended: &Option<Result<Usage, GenerateError>>) -> Usage {
    *ended.as_ref().unwrap().as_ref().unwrap()
}

fn error(ended: &Option<Result<Usage, GenerateError>>) -> &GenerateError {
    ended.as_ref().unwrap().as_ref().unwrap_err()
}

/// Different questions, lengths and numbers of pictures.
fn talks() -> Vec<Talk> {
    vec![
        Talk::new("What digit is on the red card?", &[]),
        Talk::new(
            "Which colour is the second picture, and why is that so?",
            &[1, 2, 3],
        ),
        Talk::new("Count.", &[4]),
        Talk::new(&"A long question about many cards. ".repeat(12), &[5, 6]),
        Talk::new("When does the blue card appear?", &[7, 8, 9, 10, 11]),
    ]
}

/// Refuses all but the first pieces of text.
struct Refuses(usize);

impl fmt::Write for Refuses {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        self.0 = self.0.checked_sub(1).ok_or(fmt::Error)?;
        Ok(())
    }
}

#[test]
fn a_batch_says_what_each_says_alone_over_several_rounds() {
    let mut batch = policy();
    let mut talks = talks();
    for round in 0..3 {
        let ended = together(&mut batch, &talks, None);
        for (talk, (reply, result)) in talks.iter().zip(&ended) {
            let (expected, fresh) = alone(&mut policy(), talk).unwrap();
            assert_eq!(*reply, expected, "round {round}");
            let usage = usage(result);
            assert_eq!(
                (usage.prompt, usage.completion),
                (fresh.prompt, fresh.completion)
            );
            // All but the new message, and the end of the reply before it.
            let new = if round == 0 { fresh.prompt } else { 60 };
            assert!(
                usage.cached + new >= usage.prompt,
                "round {round}: {usage:?}"
            );
        }
        for ((index, talk), (reply, _)) in talks.iter_mut().enumerate().zip(&ended) {
            *talk = talk.clone().then(Role::Assistant, reply, &[]).then(
                Role::Tool,
                "Frame 0 at [00:10]: ",
                &[round * 8 + index as u8],
            );
        }
        // The next round finds its contexts whatever the order, and with a conversation less.
        talks.rotate_left(2);
        if round == 1 {
            talks.pop();
        }
    }
}

#[test]
fn one_that_is_too_long_or_called_off_does_not_touch_the_others() {
    let talks = talks();
    let long = Talk::new(&"too long ".repeat(20_000), &[]);
    let parts: Vec<_> = [&talks[0], &long, &talks[1], &talks[2]]
        .map(Talk::parts)
        .into();
    let conversations: Vec<_> = parts.iter().map(|parts| messages(parts)).collect();
    let (mut first, mut unread, mut called_off, mut last) =
        (String::new(), String::new(), Refuses(3), String::new());
    let sinks: [&mut dyn fmt::Write; 4] = [&mut first, &mut unread, &mut called_off, &mut last];
    let mut turns: Vec<_> = conversations
        .iter()
        .zip(sinks)
        .map(|(conversation, reply)| Continuation {
            conversation,
            reply,
        })
        .collect();
    let mut results = [const { None }; 4];
    let mut policy_ = policy();
    policy_.generate_batch(&mut turns, &mut |place, ended| results[place] = Some(ended));
    drop(turns);
    assert!(matches!(
        error(&results[1]),
        GenerateError::TooLong { limit: 16_384, tokens } if *tokens > 16_384
    ));
    assert!(matches!(error(&results[2]), GenerateError::Write(_)));
    for (reply, talk) in [(&first, &talks[0]), (&last, &talks[2])] {
        assert_eq!(*reply, alone(&mut policy(), talk).unwrap().0);
    }
    // The one that was called off goes on from what it had.
    let (reply, usage) = alone(&mut policy_, &talks[1]).unwrap();
    assert_eq!(reply, alone(&mut policy(), &talks[1]).unwrap().0);
    assert_eq!(usage.cached + 1, usage.prompt);
}

#[test]
fn draws_are_those_of_each_seed_alone_and_a_group_reads_its_prompt_once() {
    let talk = &talks()[1];
    let sampling = |seed| Sampling::Random {
        temperature: 1.5,
        top_k: 0,
        top_p: 1.0,
        seed,
    };
    let mut samplers: Vec<Sampler> = (0..6)
        .map(|seed| Sampler::new(sampling(seed), 1.0 + 0.05 * seed as f32))
        .collect();
    let group = vec![talk.clone(); samplers.len()];
    let ended = together(&mut policy(), &group, Some(&mut samplers));
    for (seed, (reply, result)) in ended.iter().enumerate() {
        let mut alone_ = policy().with_sampling(sampling(seed as u64), 1.0 + 0.05 * seed as f32);
        assert_eq!(*reply, alone(&mut alone_, talk).unwrap().0, "seed {seed}");
        let usage = usage(result);
        let cached = if seed == 0 { 0 } else { usage.prompt - 1 };
        assert_eq!(usage.cached, cached, "seed {seed}");
    }
    assert_ne!(ended[0].0, ended[1].0);

    // Without samplers of their own they differ too, and repeat with the policy's seed.
    let draw = || together(&mut policy().with_sampling(sampling(9), 1.0), &group, None);
    let (first, again) = (draw(), draw());
    assert_ne!(first[0].0, first[1].0);
    for (first, again) in first.iter().zip(&again) {
        assert_eq!(first.0, again.0);
    }
}

#[test]
fn what_was_called_off_leaves_a_policy_as_good_as_new() {
    let talks = talks();
    for pieces in [0, 1, 5] {
        for next in [&talks[1], &talks[4], &talks[0]] {
            let mut used = policy();
            let parts = talks[1].parts();
            let refused = used.generate(&messages(&parts), &mut Refuses(pieces));
            assert!(matches!(refused, Err(GenerateError::Write(_))));
            let (expected, _) = alone(&mut policy(), next).unwrap();
            for _ in 0..2 {
                assert_eq!(alone(&mut used, next).unwrap().0, expected, "{pieces}");
            }
            // And the one that was called off, some turns later.
            let later = talks[1]
                .clone()
                .then(Role::Assistant, "A reply.", &[])
                .then(Role::Tool, "More: ", &[12]);
            let (expected, _) = alone(&mut policy(), &later).unwrap();
            assert_eq!(alone(&mut used, &later).unwrap().0, expected, "{pieces}");
        }
    }
}

#[test]
fn keys_and_values_stay_within_their_limit() {
    let talks = talks();
    let expected: Vec<_> = talks
        .iter()
        .map(|talk| alone(&mut policy(), talk).unwrap())
        .collect();
    let per_token = kv_bytes_per_token(policy().config(), Precision::F32);
    assert_eq!(per_token, 4 * 2 * 2 * 32 * 4);
    let needs: Vec<u64> = expected
        .iter()
        .map(|(_, usage)| (u64::from(usage.prompt) + 40) * per_token)
        .collect();
    let most = *needs.iter().max().unwrap();

    // As much as the longest needs: all of them run, some of them alone.
    let mut limited = policy().with_kv_limit(most);
    for _ in 0..2 {
        let ended = together(&mut limited, &talks, None);
        for ((reply, _), (ours, result)) in expected.iter().zip(&ended) {
            assert_eq!(ours, reply);
            usage(result);
        }
        assert!(limited.kv_bytes() <= most);
        assert!(limited.kv_bytes() > 0);
    }

    // A byte less, and the longest is told so before anything is computed.
    let mut limited = policy().with_kv_limit(most - 1);
    let ended = together(&mut limited, &talks, None);
    for ((need, (reply, _)), (ours, result)) in needs.iter().zip(&expected).zip(&ended) {
        if need == &most {
            let error = error(result);
            assert!(
                matches!(error, GenerateError::Memory { reply: 40, bytes, limit, .. }
                    if *bytes == most && *limit == most - 1)
            );
            assert!(error.to_string().contains("with_kv_limit"), "{error}");
            assert_eq!(ours, "");
        } else {
            assert_eq!(ours, reply);
        }
    }
    limited.forget();
    assert_eq!(limited.kv_bytes(), 0);
    let refused = alone(&mut policy().with_kv_limit(0), &talks[2]).unwrap_err();
    assert!(matches!(refused, GenerateError::Memory { limit: 0, .. }));
}

#[test]
fn a_host_that_takes_turns_keeps_several_conversations() {
    let talks = talks();
    let mut one = policy();
    let mut two = policy().with_kept_conversations(2);
    for policy in [&mut one, &mut two] {
        alone(policy, &talks[1]).unwrap();
        alone(policy, &talks[3]).unwrap();
    }
    let of_one = alone(&mut one, &talks[1]).unwrap();
    let of_two = alone(&mut two, &talks[1]).unwrap();
    assert_eq!(of_one.0, of_two.0);
    assert_eq!(of_two.1.cached + 1, of_two.1.prompt);
    assert!(of_one.1.cached < of_two.1.cached);
    // A third one takes the place of the one that was used the longest ago.
    alone(&mut two, &talks[4]).unwrap();
    let (_, usage) = alone(&mut two, &talks[1]).unwrap();
    assert_eq!(usage.cached + 1, usage.prompt);
}

#[test]
fn a_text_that_changed_before_the_pictures_changes_no_more_than_it_should() {
    let (first, changed) = (
        Talk::new("What is this?", &[1, 2, 3]),
        Talk::new("And which is the third?", &[1, 2, 3, 2]),
    );
    let expected = alone(&mut policy(), &changed).unwrap();
    for bytes in [0, 20_000, eva_burn::FEATURE_CACHE_BYTES] {
        let mut policy = policy().with_feature_cache(bytes);
        alone(&mut policy, &first).unwrap();
        assert_eq!(alone(&mut policy, &changed).unwrap().0, expected.0);
    }
}
