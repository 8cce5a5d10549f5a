//! The allocator of programs that run a model on the processor.

/// The system's gives the buffers of a long prompt or of a training step back after each use and gets them
/// anew, zeroed: a tenth of a prompt's CPU time. With `MIMALLOC_PURGE_DELAY=-1` this one keeps them, which
/// `.cargo/config.toml` sets for `cargo run`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
