//! Several requests at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use eva_core::Usage;

use super::OpenAiError;
use super::http::Http;
use super::response::Output;

/// Is given the place of a request, the text that came, and how it ended.
type Done<'a> = &'a mut dyn FnMut(usize, String, Result<Usage, OpenAiError>);

/// Sends requests, as many at a time as the configuration says, and hands over each reply as it ends.
pub(super) fn ask(http: &Http, bodies: Vec<(usize, Vec<u8>)>, done: Done<'_>) {
    let config = &http.config;
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (sender, receiver) = channel();
        for _ in 0..config.concurrency.min(bodies.len()).max(1) {
            let (sender, next, bodies) = (sender.clone(), &next, &bodies);
            scope.spawn(move || {
                while let Some((place, body)) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut text = String::new();
                    let mut output = Output::new(&mut text, config.stream, config.max_reply);
                    let result = http.chat(body.clone(), &mut output);
                    if sender.send((*place, text, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (place, text, result) in receiver {
            done(place, text, result);
        }
    });
}
