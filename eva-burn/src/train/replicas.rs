//! [`Replicas`]: one model on several devices.

use burn::module::Module as _;
use burn::tensor::Device;

use crate::model::Qwen25Vl;

/// One model on each of the devices that shards are spread over.
#[derive(Debug, Clone)]
pub struct Replicas(Vec<Qwen25Vl>);

impl Replicas {
    /// The model itself, and a copy on each other device.
    pub(super) fn new(model: &Qwen25Vl, others: &[Device]) -> Self {
        let copies = others.iter().map(|device| model.clone().to_device(device));
        Self(std::iter::once(model.clone()).chain(copies).collect())
    }

    /// The one on the device that works on the shard of this number.
    #[must_use]
    pub fn of(&self, index: usize) -> &Qwen25Vl {
        &self.0[index % self.0.len()]
    }
}
