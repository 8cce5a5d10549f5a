//! What the tests of the examples share.

use std::path::PathBuf;

/// The built example `name`. Cargo builds examples before it runs all tests, but not for one test
/// alone.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/test");
    let program = profile
        .join("examples")
        .join(name)
        .with_extension(std::env::consts::EXE_EXTENSION);
    assert!(
        program.exists(),
        "{program:?} is not built: run `cargo build --examples` with the profile and features of \
         this test first, or all tests at once"
    );
    program
}
