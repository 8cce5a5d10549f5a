//! Our kernels against the processor.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::attention::{Reach, attend_padded};
use crate::device::DeviceChoice;
use burn::tensor::activation::silu;
use burn::tensor::{Bool, Distribution, Int, TensorData};

/// As in the tests of whole models: `EVA_DEVICE`, or what is compiled in.
pub(crate) fn gpu() -> Device {
    let choice = match std::env::var("EVA_DEVICE") {
        Ok(name) => name.parse().unwrap(),
        Err(_) if cfg!(feature = "wgpu") => DeviceChoice::Wgpu,
        Err(_) => DeviceChoice::Cuda(0),
    };
    choice.open().unwrap()
}

pub(crate) fn normal<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
}

pub(crate) fn to<const D: usize>(device: &Device, x: &Tensor<D>) -> Tensor<D> {
    Tensor::from_data(x.to_data(), device)
}

fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.try_into_vec_as().unwrap()
}

/// What our own kernels may be off by, of the largest number.
pub(crate) const EXACT: f32 = 1e-5;

/// What Burn's products may be off by: on CUDA they round what they multiply to 10 bits (TF32).
pub(crate) fn burns_product() -> f32 {
    let cuda = std::env::var("EVA_DEVICE").is_ok_and(|name| name.starts_with("cuda"));
    if cuda { 2e-3 } else { EXACT }
}

/// What steps in 16 bits may be off by.
const HALVES: f32 = 4e-3;

#[track_caller]
fn assert_close<const D: usize>(found: Tensor<D>, expected: Tensor<D>) {
    assert_within(EXACT, found, expected);
}

#[track_caller]
fn assert_within<const D: usize>(room: f32, found: Tensor<D>, expected: Tensor<D>) {
    assert_eq!(found.dims(), expected.dims());
    let (found, expected) = (numbers(found), numbers(expected));
    let size = expected.iter().fold(1e-6f32, |most, x| most.max(x.abs()));
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() <= room * size, "{a} for {b}");
    }
}

#[test]
fn normalisation_is_that_of_the_processor() {
    let gpu = gpu();
    for (rows, width) in [(1, 896), (7, 2100), (300, 63), (3, 2)] {
        let (x, weight) = (normal([rows, width]), normal([width]));
        let scale = (x.clone().square().mean_dim(1) + 1e-6).sqrt().recip();
        let expected = x.clone() * scale * weight.clone().unsqueeze();
        assert_close(normed(to(&gpu, &x), to(&gpu, &weight), 1e-6), expected);
    }
}

#[test]
fn products_are_those_of_the_processor_however_the_matrix_lies() {
    let gpu = gpu();
    // Rows in whole groups and not; numbers that are read four at a time, and that are not.
    for (rows, columns) in [(1, 4), (64, 64), (70, 200), (5, 33), (300, 1088)] {
        for count in [1, 3, FEW] {
            let x = normal([1, count, columns]);
            let [matrix, other] = [(); 2].map(|()| normal([rows, columns]));
            let (bias, rest) = (normal([rows]), normal([count * rows]));
            let (expected, up) = (
                x.clone().matmul(matrix.clone().transpose().unsqueeze()),
                x.clone().matmul(other.clone().transpose().unsqueeze()),
            );
            let on_gpu = to(&gpu, &x);
            let sides = |x: &Tensor<2>| to(&gpu, x).transpose();
            let apart = |x: &Tensor<2>| to(&gpu, &x.clone().transpose());
            // Rows whose numbers lie side by side are our kernel's, if they are read four at a time.
            let ours = if columns % WIDTH == 0 {
                EXACT
            } else {
                burns_product()
            };
            for (room, [matrix, other]) in [
                (ours, [sides(&matrix), sides(&other)]),
                (burns_product(), [apart(&matrix), apart(&other)]),
            ] {
                let product =
                    |more: Option<Tensor<1>>| product(on_gpu.clone(), matrix.clone(), more);
                assert_within(room, product(None), expected.clone());
                assert_within(
                    room,
                    product(Some(to(&gpu, &bias))),
                    expected.clone() + bias.clone().unsqueeze(),
                );
                assert_within(
                    room,
                    product(Some(to(&gpu, &rest))),
                    expected.clone() + rest.clone().reshape([1, count, rows]),
                );
                assert_within(
                    room,
                    gated(on_gpu.clone(), matrix.clone(), other),
                    silu(expected.clone()) * up.clone(),
                );
            }
        }
    }
}

#[test]
fn gates_are_those_of_the_processor() {
    let gpu = gpu();
    // Numbers that are read four, two and one at a time, and more than a cube has.
    for (rows, columns) in [(1, 1), (3, 6), (7, 45), (300, 1088)] {
        let (gate, up) = (normal([rows, columns]), normal([rows, columns]));
        let expected = silu(gate.clone()) * up.clone();
        let on_gpu = || (to(&gpu, &gate), to(&gpu, &up));
        let (gate, up) = on_gpu();
        assert_close(super::gate(gate, up), expected.clone());
        let (gate, up) = on_gpu();
        let found = super::gate(gate.cast(DType::F16), up.cast(DType::F16));
        assert_within(HALVES, found.cast(DType::F32), expected);
    }
}

#[test]
fn rotations_are_those_of_the_processor_however_the_heads_lie() {
    let gpu = gpu();
    for (sequences, angles, heads, tokens, width) in
        [(1, 1, 2, 5, 8), (3, 3, 4, 1, 16), (2, 1, 3, 70, 40)]
    {
        let x = normal([sequences, tokens, heads + 1, width]);
        let angles = normal([angles, 1, tokens, width / 2]);
        let (cos, sin) = (angles.clone().cos(), angles.sin());
        // As a product has them, and some of them alone.
        let heads_of = |x: Tensor<4>| x.swap_dims(1, 2).narrow(1, 1, heads);
        let expected = crate::cpu::rotated(heads_of(x.clone()), cos.clone(), sin.clone());
        let found = rotated(heads_of(to(&gpu, &x)), to(&gpu, &cos), to(&gpu, &sin));
        assert_close(found, expected);
    }
}

#[test]
fn shares_are_those_of_the_processor() {
    let gpu = gpu();
    // Fewer keys than a cube has units, as many, and more; a group of heads, and one.
    for (batch, heads, group, queries, keys) in [
        (1, 1, 1, 1, 1),
        (2, 3, 2, 5, 9),
        (1, 2, 1, 64, 64),
        (1, 1, 7, 3, 257),
        (1, 2, 2, 40, 1000),
    ] {
        let scores = normal([batch, heads, group * queries, keys]) * 5.0;
        for causal in [false, true] {
            let seen = crate::cpu::Seen {
                starts: &[],
                queries,
                causal,
            };
            let expected = crate::cpu::shares(scores.clone(), 1.0, &seen);
            assert_close(shares(to(&gpu, &scores), queries, causal), expected);
        }
    }
    let halves = |x: Tensor<4>| x.cast(DType::F16);
    let scores = normal([1, 2, 6, 70]);
    let seen = crate::cpu::Seen {
        starts: &[],
        queries: 6,
        causal: true,
    };
    let expected = crate::cpu::shares(scores.clone(), 1.0, &seen);
    let found = shares(halves(to(&gpu, &scores)), 6, true);
    assert_within(HALVES, found.cast(DType::F32), expected);
    let nothing = Tensor::<4>::from_floats([[[[1.0, f32::NAN, 2.0]]]], &gpu);
    assert!(
        numbers(shares(nothing, 1, false))
            .iter()
            .all(|x| x.is_nan())
    );
}

#[test]
fn gates_and_shares_leave_what_lies_between_rows() {
    let gpu = gpu();
    let (x, y) = (normal([1, 2, 5, 64]), normal([1, 2, 5, 64]));
    // Rows with gaps, as CUDA has them; and columns with gaps, which are copied together.
    let narrow = |x: Tensor<4>| x.narrow(3, 0, 48);
    let turned = |x: Tensor<4>| x.swap_dims(2, 3);
    let seen = crate::cpu::Seen {
        starts: &[],
        queries: 1,
        causal: false,
    };
    for view in [narrow, turned] {
        let expected = silu(view(x.clone())) * view(y.clone());
        let found = gate(view(to(&gpu, &x)), view(to(&gpu, &y)));
        assert_close(found, expected);
        let expected = crate::cpu::shares(view(x.clone()), 1.0, &seen);
        assert_close(shares(view(to(&gpu, &x)), 1, false), expected);
    }
}

#[test]
fn attention_in_several_blocks_is_that_of_the_processor() {
    let gpu = gpu();
    let query = normal([1, 16, 700, 16]);
    let [keys, values] = [(); 2].map(|()| normal([1, 4, 1501, 16]));
    for reach in [Reach::Causal, Reach::Everything] {
        let expected = attend_padded(query.clone(), keys.clone(), values.clone(), reach, None);
        let [q, k, v] = [&query, &keys, &values].map(|x| to(&gpu, x));
        let found = attend_padded(q, k, v, reach, None);
        assert_within(burns_product(), found, expected);
    }
}

#[test]
fn what_is_held_elsewhere_is_not_changed_by_gates_and_shares() {
    let gpu = gpu();
    let x = normal([1, 1, 3, 40]);
    let on_gpu = to(&gpu, &x);
    let _ = gate(on_gpu.clone(), on_gpu.clone());
    let _ = shares(on_gpu.clone(), 3, true);
    assert_close(on_gpu, x);
}

/// Query, key or value heads: a token's, and as [`attend_padded`] has them.
fn heads(x: &Tensor<3>, heads: usize) -> Tensor<4> {
    let [sequences, _, numbers] = x.dims();
    x.clone().reshape([sequences, heads, 1, numbers / heads])
}

#[test]
fn attention_from_the_cache_is_that_of_the_processor() {
    attention_from_the_cache(DType::F32);
}

#[test]
fn keys_and_values_of_16_bits_are_read_and_appended_to_beside_activations_of_32() {
    if gpu().supports_dtype(DType::F16) {
        attention_from_the_cache(DType::F16);
    } else {
        eprintln!("this GPU has no f16: left out");
    }
}

/// - dtype: of keys and values that are kept
fn attention_from_the_cache(dtype: DType) {
    let gpu = gpu();
    let kept_as = |x: Tensor<4>| x.cast(dtype).cast(DType::F32);
    // A number that is rotated elsewhere may become the next one of 16 bits.
    let room = if dtype == DType::F32 { EXACT } else { 1e-3 };
    // (query heads, key heads, head width), then sequences with the tokens before their first, and the
    // tokens that are there already: less than a part of the keys, whole parts, and more.
    for (all, kv, width) in [(4, 2, 16), (7, 1, 64), (2, 2, 128), (6, 3, 40)] {
        assert!(fits(all / kv, width));
        for (starts, len) in [
            (vec![0], 0),
            (vec![0], 127),
            (vec![0, 5, 300], 300),
            (vec![2, 0], 128),
        ] {
            let count = starts.len();
            let capacity = len + 3;
            let [keys, values] = [(); 2].map(|()| kept_as(normal([count, kv, capacity, width])));
            let query = normal([count, 1, all * width]);
            let [new_keys, new_values] = [(); 2].map(|()| normal([count, 1, kv * width]));
            let angles = normal([count, 1, 1, width / 2]);
            let (cos, sin) = (angles.clone().cos(), angles.sin());

            let rotated = |x: Tensor<4>| {
                let half = width / 2;
                let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
                Tensor::cat(
                    vec![
                        a.clone() * cos.clone() - b.clone() * sin.clone(),
                        b * cos.clone() + a * sin.clone(),
                    ],
                    3,
                )
            };
            let place = |kept: &Tensor<4>, new: Tensor<4>| {
                let range = [0..count, 0..kv, len..len + 1, 0..width];
                kept.clone().slice_assign(range, new)
            };
            let all_keys = place(&keys, kept_as(rotated(heads(&new_keys, kv))));
            let all_values = place(&values, kept_as(heads(&new_values, kv)));
            let padding: Vec<bool> = starts
                .iter()
                .flat_map(|start| (0..=len).map(move |key| key < *start))
                .collect();
            let padding = TensorData::new(padding, [count, 1, 1, len + 1]);
            let expected = attend_padded(
                rotated(heads(&query, all)),
                all_keys.clone().narrow(2, 0, len + 1),
                all_values.clone().narrow(2, 0, len + 1),
                Reach::Causal,
                Some(Tensor::<4, Bool>::from_data(padding, &Device::flex())),
            );

            let rotary = (to(&gpu, &cos), to(&gpu, &sin));
            let kept = append(
                (to(&gpu, &keys).cast(dtype), to(&gpu, &values).cast(dtype)),
                (to(&gpu, &new_keys), to(&gpu, &new_values)),
                rotary.clone(),
                len,
            );
            assert_eq!((kept.0.dtype(), kept.1.dtype()), (dtype, dtype));
            assert_within(room, kept.0.clone(), all_keys);
            assert_within(room, kept.1.clone(), all_values);
            let starts: Vec<i32> = starts.iter().map(|start| *start as i32).collect();
            let starts = TensorData::new(starts, [count]);
            let starts = Tensor::<1, Int>::from_data(starts, (&gpu, DType::I32));
            let mixed = attend(to(&gpu, &query), kept, rotary, starts, len + 1);
            assert_within(room, mixed, expected.reshape([count, 1, all * width]));
        }
    }
}

#[test]
fn what_is_held_elsewhere_is_not_appended_to() {
    let gpu = gpu();
    let (keys, new) = (normal([1, 1, 2, 16]), normal([1, 1, 16]));
    let on_gpu = to(&gpu, &keys);
    let angles = Tensor::zeros([1, 1, 1, 8], &gpu);
    let _ = append(
        (on_gpu.clone(), on_gpu.clone()),
        (to(&gpu, &new), to(&gpu, &new)),
        (angles.clone(), angles),
        0,
    );
    assert_close(on_gpu, keys);
}

#[test]
fn heads_that_need_more_shared_memory_than_there_is_are_left_to_burn() {
    assert!(fits(7, 128) && fits(8, 128));
    assert!(!fits(16, 128) && !fits(1, 20) && !fits(1, 1024));
}
