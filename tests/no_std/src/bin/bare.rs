//! The agent and nothing else: what it takes of the flash is what an application must have left.
//!
//! Never run. The compiler is told nothing of the replies, which a driver would bring, and nothing of
//! where the text for the model goes.
#![no_std]
#![no_main]

use core::fmt;
use core::hint::black_box;

use cortex_m_rt::entry;
use eva_core::prompt::{self, ToolResponse};
use eva_core::{Agent, Input, Rules, Step, ToolFailure, Usage, VideoInfo};

/// Where replies are found. To the compiler it could hold anything, see `black_box` below.
static INBOX: [u8; 1] = [0];

struct Outbox;

impl fmt::Write for Outbox {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        black_box(text);
        Ok(())
    }
}

fn run() -> fmt::Result {
    let video = VideoInfo {
        duration: 600.0,
        width: 1280,
        height: 720,
        fps: 25.0,
    };
    let mut agent = Agent::new(Rules::published(), video).with_other_tools();
    prompt::write_question(&mut Outbox, &video, "Who wins?")?;
    loop {
        let input = match agent.step() {
            Step::Generate => Input::Generated {
                reply: core::str::from_utf8(black_box(INBOX.as_slice())).unwrap_or_default(),
                usage: Usage::default(),
            },
            Step::SelectFrames(selection) => {
                let mut response = ToolResponse::new();
                for index in 0..selection.nframes {
                    response.frame(&mut Outbox, selection, index)?;
                }
                response.close(&mut Outbox, "Who wins?")?;
                Input::Selected(Ok(selection.nframes))
            }
            Step::CallTool(_) => Input::Returned(Err(ToolFailure::Unknown)),
            Step::Done(outcome) => {
                return fmt::write(&mut Outbox, format_args!("{}", outcome.stop_reason));
            }
        };
        agent.handle(input).map_err(|_| fmt::Error)?;
    }
}

#[entry]
fn main() -> ! {
    loop {
        if run().is_err() {
            cortex_m::asm::bkpt();
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        cortex_m::asm::bkpt();
    }
}
