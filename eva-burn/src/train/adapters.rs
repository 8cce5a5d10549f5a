//! Low-rank adapters (LoRA) of the decoder's linear layers, by Burn's own module.
//!
//! Burn computes `W + scale * A B` anew in each forward pass: adapters save the optimizer's memory and
//! the checkpoint's size, not time. For generating they are folded into the weights
//! ([`Trainer::model`](super::Trainer::model)).

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamGroup};
use burn::tensor::{Tensor, TensorData};
use xxhash_rust::xxh3::Xxh3;

use super::Lora;
use crate::model::Qwen25Vl;

/// The part of a parameter's path that only those of adapters have.
const NAME: &str = "lora";

/// Gives every linear layer of the decoder an adapter that changes nothing yet; only these are learnt
/// then.
pub(super) fn attach(model: Qwen25Vl, lora: &Lora) -> Qwen25Vl {
    model.device().seed(lora.seed);
    // Matrices of the decoder's layers, not its embeddings or the vision tower.
    let layers = ParamGroup::from_predicate("model.layers.");
    let adapters = burn::module::Lora::new(lora.rank, lora.alpha).set_param_group(layers);
    model.apply_lora(adapters)
}

/// A parameter's path, shape and values.
pub(super) type Values = (String, Vec<usize>, Vec<f32>);

/// All adapters.
pub(super) fn collect(model: &Qwen25Vl) -> Vec<Values> {
    let mut adapters = Vec::new();
    visit(model, |path, shape, values| {
        if is_adapter(path) {
            adapters.push((path.join("."), shape, values()));
        }
    });
    adapters
}

/// Puts values in the adapters' places, each taken by its path and shape; the first path that there
/// are none for is the error.
pub(super) fn restore(
    model: Qwen25Vl,
    values: impl FnMut(&str, &[usize]) -> Option<Vec<f32>>,
) -> Result<Qwen25Vl, String> {
    let mut restore = Restore {
        path: Vec::new(),
        values,
        missing: None,
    };
    let model = model.map(&mut restore);
    restore.missing.map_or(Ok(model), Err)
}

/// Every parameter's path and shape, in the order of the model.
pub(super) fn listing(model: &Qwen25Vl) -> Vec<(String, Vec<usize>)> {
    let mut all = Vec::new();
    visit(model, |path, shape, _| all.push((path.join("."), shape)));
    all
}

/// What the weights below the adapters are, as a number.
pub(super) fn base(model: &Qwen25Vl) -> u64 {
    let mut hash = Xxh3::new();
    visit(model, |path, _, values| {
        if !is_adapter(path) {
            for value in values() {
                hash.update(&value.to_le_bytes());
            }
        }
    });
    hash.digest()
}

fn is_adapter(path: &[String]) -> bool {
    path.iter().any(|name| name == NAME)
}

fn visit(model: &Qwen25Vl, look: impl FnMut(&[String], Vec<usize>, &dyn Fn() -> Vec<f32>)) {
    struct Visit<F> {
        path: Vec<String>,
        look: F,
    }
    impl<F: FnMut(&[String], Vec<usize>, &dyn Fn() -> Vec<f32>)> ModuleVisitor for Visit<F> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            let values = || tensor.clone().try_into_vec_as().unwrap_or_default();
            (self.look)(&self.path, tensor.dims().to_vec(), &values);
        }
    }
    let path = Vec::new();
    model.visit(&mut Visit { path, look });
}

struct Restore<F> {
    path: Vec<String>,
    values: F,
    missing: Option<String>,
}

impl<F: FnMut(&str, &[usize]) -> Option<Vec<f32>>> ModuleMapper for Restore<F> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !is_adapter(&self.path) {
            return param;
        }
        let path = self.path.join(".");
        let shape = param.val().dims();
        let Some(values) = (self.values)(&path, &shape) else {
            self.missing.get_or_insert(path);
            return param;
        };
        let (id, old, mapper) = param.consume();
        let data = TensorData::new(values, shape);
        let new = Tensor::from_data(data, (&old.device(), old.dtype()));
        Param::from_mapped_value(id, new.require_grad(), mapper)
    }
}
