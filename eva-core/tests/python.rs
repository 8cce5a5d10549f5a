//! Replies and calls as Python itself reads and reckons them: see `python/make.py`.
//!
//! The cases are made here as they are made there, from the same seeds and the same grammar; what is
//! kept of them is a checksum a block. When one differs, the block is written to a file, and the
//! failure says how to see which case it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::fmt::Write;

use eva_core::prompt::Label;
use eva_core::reply::{self, FrameSelect};
use eva_core::{CallError, Rules, Selection, VideoInfo};
use serde_json::Value;

/// splitmix64
struct Random<'a> {
    state: u64,
    grammar: &'a HashMap<String, Vec<Value>>,
}

impl<'a> Random<'a> {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    fn value(&mut self, name: &str) -> &'a Value {
        let all = &self.grammar[name];
        &all[self.below(all.len() as u64) as usize]
    }

    fn pick(&mut self, name: &str) -> &'a str {
        self.value(name).as_str().unwrap()
    }

    fn count(&mut self, name: &str) -> u64 {
        self.value(name).as_u64().unwrap()
    }

    fn decimal(&mut self, end: u64) -> String {
        let whole = self.below(end);
        let digits = 1 + self.below(6) as usize;
        let fraction = self.below(10_u64.pow(digits as u32));
        format!("{whole}.{fraction:0digits$}")
    }

    fn number(&mut self) -> String {
        match self.below(4) {
            0 => self.below(4000).to_string(),
            1 => self.decimal(4000),
            2 => format!("-{}", self.decimal(20)),
            _ => self.pick("numbers").to_string(),
        }
    }

    fn arguments(&mut self) -> String {
        let start = self.below(600);
        let end = start + self.below(700);
        let start = match self.one_in(3) {
            true => self.decimal(600),
            false => start.to_string(),
        };
        let end = match self.one_in(3) {
            true => self.decimal(900),
            false => end.to_string(),
        };
        let nframes = match self.one_in(2) {
            true => (1 + self.below(300)).to_string(),
            false => self.pick("counts").to_string(),
        };
        let resize = match self.one_in(3) {
            true => self.decimal(2),
            false => self.pick("ratios").to_string(),
        };
        let mut members = Vec::new();
        for (name, mut value) in [
            ("start_time", start),
            ("end_time", end),
            ("nframes", nframes),
            ("resize", resize),
        ] {
            match self.below(40) {
                0 => continue,
                1 | 2 => value = self.number(),
                _ => {}
            }
            let colon = if self.one_in(12) {
                self.pick("colons")
            } else {
                ": "
            };
            members.push(format!("\"{name}\"{colon}{value}"));
        }
        if self.one_in(6) {
            members.push(self.pick("extras").to_string());
        }
        if self.one_in(60) {
            let depth = 1 + self.below(100) as usize;
            members.push(format!(
                "\"deep\": {}{}",
                "[".repeat(depth),
                "]".repeat(depth)
            ));
        }
        for i in (1..members.len()).rev() {
            let j = self.below(i as u64 + 1) as usize;
            members.swap(i, j);
        }
        let join = if self.one_in(12) {
            self.pick("joins")
        } else {
            ", "
        };
        format!("{{{}}}", members.join(join))
    }

    fn call(&mut self) -> String {
        let mut text = String::from("{");
        for name in ["spaces", "tools", "spaces"] {
            text += self.pick(name);
        }
        write!(text, "\"{}\",", self.pick("names")).unwrap();
        for name in ["spaces", "keys", "spaces"] {
            text += self.pick(name);
        }
        text += &self.arguments();
        text + self.pick("spaces") + self.pick("closes")
    }

    fn words(&mut self) -> String {
        (0..self.below(15)).map(|_| self.pick("words")).collect()
    }
}

trait Case: Sized {
    /// Its name in the golden file.
    const KIND: &str;
    /// Which stream of random numbers it is made from.
    const STREAM: u64;
    /// How many there are.
    const COUNT: u64;
    fn random(random: &mut Random<'_>) -> Self;
    /// The case in one line, as `make.py` shows it, with what we make of it.
    fn shown(&self) -> String;
}

struct Plan {
    info: VideoInfo,
    budget: u32,
    side: u32,
    arguments: String,
}

const MOST: u32 = 12_000;

impl Case for Plan {
    const KIND: &str = "plans";
    const STREAM: u64 = 1;
    const COUNT: u64 = 200_000;

    fn random(random: &mut Random<'_>) -> Self {
        let info = |width, height, duration| VideoInfo {
            duration,
            width,
            height,
            fps: 25.0,
        };
        let (width, height) = match random.below(6) {
            0 => {
                let (columns, rows) = (1 + random.below(25) as u32, 1 + random.below(25) as u32);
                let (cube, frames) = ((2 + random.below(9)).pow(3), 1 + random.below(12));
                let nframes = cube * frames;
                return Self {
                    info: info(columns * 28, rows * 28, 600.0),
                    budget: columns * rows * frames as u32,
                    side: 720,
                    arguments: format!(
                        "{{\"start_time\": 0, \"end_time\": 60, \"nframes\": {nframes}}}"
                    ),
                };
            }
            1 => {
                let width = 14 * (1 + random.below(280) as u32);
                (width, 14 * (1 + random.below(160) as u32))
            }
            2 => {
                let width = 1 + random.below(4096) as u32;
                (width, 1 + random.below(2304) as u32)
            }
            _ => {
                let size = random.value("sizes");
                let side = |index: usize| size[index].as_u64().unwrap() as u32;
                (side(0), side(1))
            }
        };
        let duration = match random.one_in(2) {
            true => random.decimal(5000),
            false => random.pick("durations").to_string(),
        };
        Self {
            info: info(width, height, duration.parse().unwrap()),
            budget: random.count("budgets") as u32,
            side: random.count("sides") as u32,
            arguments: random.arguments(),
        }
    }

    fn shown(&self) -> String {
        let VideoInfo { width, height, .. } = self.info;
        let mut rules = Rules::published()
            .with_max_visual_tokens(self.budget)
            .with_max_frames(MOST);
        rules.reduced_side = self.side;
        let planned = FrameSelect::parse(&self.arguments).map_err(CallError::as_str);
        let planned = planned.and_then(|call| {
            Selection::plan(&call, &self.info, &rules).map_err(|error| {
                if error.ends_the_run() {
                    "exception"
                } else {
                    CallError::FrameSelectFailed.as_str()
                }
            })
        });
        let result = planned.map(|selection| {
            let times = [selection.start, selection.end].map(|time| (time + 0.0).to_bits());
            let mut text = format!(
                "{} {} {} {} {:016x} {:016x}",
                selection.nframes,
                selection.width,
                selection.height,
                selection.visual_tokens(),
                times[0],
                times[1]
            );
            let far = selection.requested_start.abs();
            let far = far.max(selection.requested_end.abs()) >= 1e15;
            for index in [0, selection.nframes / 2, selection.nframes - 1] {
                if far {
                    text += " -";
                } else {
                    write!(text, " {}", Label(selection.label_seconds(index))).unwrap();
                }
            }
            text
        });
        format!(
            "{width}x{height} {} {} {MOST} {:016x} {} => {}",
            self.budget,
            self.side,
            self.info.duration.to_bits(),
            quoted(&self.arguments),
            result.unwrap_or_else(str::to_string)
        )
    }
}

struct Reply(String);

impl Case for Reply {
    const KIND: &str = "replies";
    const STREAM: u64 = 2;
    const COUNT: u64 = 60_000;

    fn random(random: &mut Random<'_>) -> Self {
        let mut text = String::new();
        match random.below(4) {
            0 => {
                for name in ["leads", "asks", "separators", "letters", "tails"] {
                    text += random.pick(name);
                }
                let filler = random.pick("fillers");
                text += &filler.repeat(random.count("lengths") as usize);
            }
            1 => return Self(random.words()),
            2 => text = format!("<tool_call>{}</tool_call>", random.words()),
            _ => {
                text = format!("{}<tool_call>", random.pick("thoughts"));
                for _ in 0..1 + random.below(3) {
                    text += random.pick("spaces");
                    text += &random.call();
                }
                text += random.pick("spaces");
                text += "</tool_call>";
                if random.one_in(4) {
                    text += "<answer>";
                    for name in ["spaces", "letters", "spaces"] {
                        text += random.pick(name);
                    }
                    text += "</answer>";
                }
            }
        }
        text += random.pick("endings");
        Self(text)
    }

    fn shown(&self) -> String {
        let text = &self.0;
        let answer = reply::answer(text).map(|span| span.of(text).unwrap());
        let answer = answer.map_or("null".to_string(), quoted);
        let mut shown = format!("{} => {answer}", quoted(text));
        let Some(calls) = reply::tool_calls(text) else {
            return shown + " none";
        };
        for call in calls.clone() {
            let arguments = call.arguments.of(text).unwrap();
            let verdict = FrameSelect::parse(arguments).map_or_else(CallError::as_str, |_| "ok");
            write!(shown, " {} {verdict}", quoted(arguments)).unwrap();
        }
        write!(shown, " {}", calls.count()).unwrap();
        shown
    }
}

/// As Python's `json.dumps` writes a text: in ASCII.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").unwrap();
                }
            }
        }
    }
    out + "\""
}

/// The checksum of zlib, carried on from `crc`.
fn crc32(crc: u32, bytes: &[u8]) -> u32 {
    let mut crc = !crc;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0xEDB8_8320
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

fn agrees_with_python<C: Case>() {
    let golden: Value = serde_json::from_str(include_str!("python/golden.json")).unwrap();
    let grammar = serde_json::from_str(include_str!("python/grammar.json")).unwrap();
    let (seed, size) = (&golden["seed"], &golden["block"]);
    let golden = &golden[C::KIND];
    let size = size.as_u64().unwrap();
    let block = |number: u64| -> Vec<String> {
        let state = (seed.as_u64().unwrap() << 32) + (C::STREAM << 24) + number;
        let mut random = Random {
            state,
            grammar: &grammar,
        };
        (0..size).map(|_| C::random(&mut random).shown()).collect()
    };

    let first = golden["first"].as_array().unwrap();
    assert!(!first.is_empty());
    for (ours, theirs) in block(0).iter().zip(first) {
        assert_eq!(Some(ours.as_str()), theirs.as_str());
    }
    let checksums = golden["checksums"].as_str().unwrap();
    let checksums: Vec<&str> = checksums.split(' ').collect();
    assert_eq!(checksums.len() as u64 * size, C::COUNT);
    // For slow ways to run tests; all of them otherwise.
    let blocks = std::env::var("EVA_PYTHON_BLOCKS").map(|count| count.parse().unwrap());
    let mut wrong = Vec::new();
    for (number, theirs) in (0..blocks.unwrap_or(u64::MAX)).zip(checksums) {
        let crc = block(number)
            .iter()
            .fold(0, |crc, case| crc32(crc32(crc, case.as_bytes()), b"\n"));
        if format!("{crc:08x}") != theirs {
            wrong.push(number);
        }
    }
    if let Some(&number) = wrong.first() {
        let file = format!("{}/{}-{number}", env!("CARGO_TARGET_TMPDIR"), C::KIND);
        std::fs::write(&file, block(number).join("\n") + "\n").unwrap();
        panic!(
            "{} blocks differ: {wrong:?}; to see the cases of the first, in tests/python: \
             python3 make.py --show {} {number} | diff {file} -",
            wrong.len(),
            C::KIND
        );
    }
}

#[test]
fn answers_and_calls_of_60_000_replies_are_those_that_python_finds() {
    agrees_with_python::<Reply>();
}

#[test]
fn plans_of_200_000_calls_are_those_that_python_reckons() {
    agrees_with_python::<Plan>();
}
