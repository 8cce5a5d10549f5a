//! eva

pub mod world;
