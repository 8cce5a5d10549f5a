//! An application's own model: rules that read pixels find the second in which a card comes up.
//!
//!     cargo run --release --example custom_policy

use std::fmt::{self, Write};
use std::sync::{Arc, atomic::AtomicBool, atomic::Ordering};
use std::time::{Duration, Instant};

use eva::core::{Message, Part};
use eva::world::{Colour, World, WorldSource, clock};
use eva::{Frame, Pixels, Policy, Selection, Session, Usage, Watch};

/// Scans the video for a colour, then looks at each second before the first sight of it.
struct Finder(Colour);

fn sees(colour: Colour, picture: &impl Pixels) -> bool {
    let near = |p: &&[u8]| p.iter().zip(colour.rgb()).all(|(a, b)| a.abs_diff(b) < 30);
    picture.rgb().chunks_exact(3).filter(near).count() * 150 > picture.rgb().len() // 2%
}

impl<P: Pixels> Policy<P> for Finder {
    type Error = fmt::Error;
    fn generate(&mut self, read: &[Message<P>], out: &mut dyn Write) -> Result<Usage, fmt::Error> {
        let parts = read.last().map_or(&[][..], |message| message.parts);
        let (mut before, mut found) = (0, None);
        for pair in parts.windows(2) {
            // "Frame 3 at [01:20]: ", and behind it the picture.
            if let ([Part::Text(label), Part::Image(picture)], None) = (pair, found) {
                let second = numbers(label).skip(1).fold(0, |sum, part| sum * 60 + part);
                found = sees(self.0, *picture).then_some((before, second));
                before = second;
            }
        }
        out.write_str(&match (read.len(), found, parts) {
            // "Video Length: 305 seconds. ..."
            (2, _, [Part::Text(text), ..]) => look(0, numbers(text).next().unwrap_or(1), 16),
            (4, Some((before, at)), _) => look(before, at, at - before + 1),
            (_, Some((_, at)), _) => format!("<answer>{}</answer>", clock(at)),
            _ => "<answer>never</answer>".to_owned(),
        })?;
        Ok(Usage::default())
    }
}

fn look(start: u32, end: u32, nframes: u32) -> String {
    format!(
        r#"<tool_call>{{"tool": "frame_select", "arguments": {{"start_time": {start}, "end_time": {end}, "nframes": {nframes}, "resize": 0.2}}}}</tool_call>"#
    )
}

fn numbers(text: &str) -> impl Iterator<Item = u32> {
    text.split(|c: char| !c.is_numeric()).flat_map(str::parse)
}

struct Show;
impl<P> Watch<P> for Show {
    fn on_text(&mut self, piece: &str) {
        println!("{piece}");
    }
    fn on_frames(&mut self, _: &Selection, frames: &[Frame<P>]) {
        println!("[{} frames]", frames.len());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let world = Arc::new(World::new(7));
    let card = world.cards()[1];
    let stop = Arc::new(AtomicBool::new(false)); // any thread may set it
    let (flag, end) = (Arc::clone(&stop), Instant::now() + Duration::from_secs(60));
    let mut session = Session::new(WorldSource::new(world), Finder(card.colour))
        .with_watch(Show)
        .with_cancel(move || flag.load(Ordering::Relaxed))
        .with_deadline(move || Instant::now() >= end);
    println!("The {} card comes up at {:.1} s.", card.colour, card.start);
    session.ask("When does it come up?")?;
    stop.store(true, Ordering::Relaxed);
    println!("Called off: {}", session.ask("Again?")?.stop_reason());
    Ok(())
}
