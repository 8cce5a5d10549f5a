//! What the agent costs: instructions and stack. The one place with unsafe code.

use cortex_m::Peripherals;
use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;

/// Bytes below the stack pointer that are watched.
const WATCHED: usize = 64 * 1024;
const PAINT: u32 = 0x5AFE_57AC;
/// The counter has 24 bits.
const COUNTER: u32 = 0x00FF_FFFF;

/// Counts instructions with the system timer.
///
/// QEMU has no cycle counter, but with `-icount` its clock moves by a fixed time each instruction,
/// so that the timer counts them, in a unit that is found out once.
pub struct Meter {
    /// Ticks of the timer in 1000 instructions.
    ticks: u32,
}

impl Meter {
    pub fn new() -> Option<Self> {
        let mut timer = Peripherals::take()?.SYST;
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(COUNTER);
        timer.clear_current();
        timer.enable_counter();
        let mut meter = Self { ticks: 1000 };
        // The second time, the loop is translated and in QEMU's cache.
        let (_, _) = meter.count(thousand_instructions);
        let (_, ticks) = meter.count(thousand_instructions);
        meter.ticks = ticks;
        Some(meter)
    }

    /// What `work` gives, and how many instructions it took. Right up to some ten million.
    pub fn count<T>(&self, work: impl FnOnce() -> T) -> (T, u32) {
        let before = SYST::get_current();
        let result = work();
        let ticks = before.wrapping_sub(SYST::get_current()) & COUNTER;
        let instructions = (u64::from(ticks) * 1000).checked_div(u64::from(self.ticks));
        (result, instructions.map_or(u32::MAX, |count| count as u32))
    }
}

fn thousand_instructions() {
    // SAFETY: counts a register down, nothing else.
    unsafe {
        core::arch::asm!(
            "1: subs {n}, {n}, #1",
            "bne 1b",
            n = inout(reg) 500 => _,
            options(nomem, nostack),
        );
    }
}

/// How many bytes of stack `work` needs at most.
#[inline(never)]
pub fn stack_of(work: impl FnOnce()) -> usize {
    let top = cortex_m::register::msp::read() as usize;
    let bottom = top.saturating_sub(WATCHED);
    for address in (bottom..top).step_by(4) {
        // SAFETY: aligned RAM between the static data, which ends far below, and the stack pointer:
        // nothing else is there. Interrupts, which would push there, are never enabled.
        unsafe { core::ptr::write_volatile(address as *mut u32, PAINT) };
    }
    work();
    let painted = |address: &usize| {
        // SAFETY: as above; it is only read.
        let word = unsafe { core::ptr::read_volatile(*address as *const u32) };
        word == PAINT
    };
    let lowest = (bottom..top).step_by(4).find(|address| !painted(address));
    lowest.map_or(0, |lowest| top - lowest)
}
