//! Whole episodes of the agent on a Cortex-M4: no operating system, no allocator.
//!
//! Run by scripts/no_std.sh under QEMU. Checks results, prints what the agent costs, and ends QEMU
//! with a status through semihosting. A check that fails prints itself and ends the run; there is no
//! `panic!` and no `assert!`, so that any panic in the program is one that the agent brought in.
#![no_std]
#![no_main]

mod episodes;
mod host;
mod meter;

use core::panic::PanicInfo;

use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprintln};
use eva_core::{Agent, Rules};
use host::Cost;
use meter::Meter;

/// The bar: what an agent may take of a microcontroller's memory.
const MAX_AGENT: usize = 512;

#[entry]
fn main() -> ! {
    let Some(meter) = Meter::new() else {
        fail("the timer is taken", line!())
    };
    let mut cost = Cost::default();
    let mut played = 0;
    let stack_of_all = meter::stack_of(|| played = episodes::play_all(&meter, &mut cost));
    let mut agent = Agent::new(Rules::published(), host::VIDEO).with_other_tools();
    let stack_of_handle = meter::stack_of(|| episodes::handle_the_worst(&mut agent));

    hprintln!("episodes                   {}", played);
    hprintln!("size of Agent              {} bytes", size_of::<Agent>());
    hprintln!("stack of Agent::handle     {} bytes", stack_of_handle);
    hprintln!(
        "stack of the episodes      {} bytes, texts included",
        stack_of_all
    );
    hprintln!("calls of handle            {}", cost.handled);
    hprintln!("most instructions of one   {} for a reply", cost.generated);
    hprintln!("                           {} for frames", cost.selected);
    hprintln!(
        "                           {} for another tool",
        cost.returned
    );
    if size_of::<Agent>() > MAX_AGENT {
        fail("an agent is too large", line!());
    }
    exit(debug::EXIT_SUCCESS)
}

/// Ends the program as failed unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr) => {
        if !$condition {
            $crate::fail(stringify!($condition), line!());
        }
    };
}

#[inline(never)]
fn fail(what: &str, line: u32) -> ! {
    hprintln!("FAILED in line {}: {}", line, what);
    exit(debug::EXIT_FAILURE)
}

fn exit(status: debug::ExitStatus) -> ! {
    loop {
        debug::exit(status);
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let place = info
        .location()
        .map_or(("?", 0), |at| (at.file(), at.line()));
    hprintln!("PANIC at {}:{}", place.0, place.1);
    exit(debug::EXIT_FAILURE)
}
