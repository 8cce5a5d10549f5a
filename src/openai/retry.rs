//! How long to pause before the next try.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// Pauses that grow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pauses {
    pub(super) first: Duration,
    pub(super) longest: Duration,
}

impl Pauses {
    /// The pause after try number `tried` (from 1), when the server asked for `asked`; `random` is
    /// from 0 to 1000, so that many clients that failed together do not come back together.
    pub(super) fn after(self, tried: u32, asked: Option<Duration>, random: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(tried.saturating_sub(1));
        let grown = self.first.saturating_mul(doubled).min(self.longest);
        // From half of it to all of it.
        let half = grown / 2;
        let spread = half + half / 1000 * random.min(1000);
        // Never earlier than the server wants.
        let pause = match asked {
            Some(asked) => asked.saturating_add(spread),
            None => spread,
        };
        pause.min(self.longest)
    }
}

/// What the server asks for with `Retry-After`: seconds, or a date.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const PAUSES: Pauses = Pauses {
        first: Duration::from_millis(500),
        longest: Duration::from_secs(60),
    };

    fn millis(tried: u32, asked: Option<u64>, random: u32) -> u128 {
        let asked = asked.map(Duration::from_secs);
        PAUSES.after(tried, asked, random).as_millis()
    }

    #[test]
    fn pauses_double_with_each_try_up_to_the_longest() {
        let grown: Vec<u128> = (1..=9).map(|tried| millis(tried, None, 1000)).collect();
        assert_eq!(
            grown,
            [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]
        );
        assert_eq!(millis(u32::MAX, None, 1000), 60_000);
        assert_eq!(millis(3, None, 0), 1000);
        assert_eq!(millis(3, None, 500), 1500);
    }

    #[test]
    fn the_server_is_never_asked_again_before_it_wants_to_be_but_for_the_longest_pause() {
        assert_eq!(millis(1, Some(7), 0), 7250);
        assert_eq!(millis(1, Some(0), 1000), 500);
        assert_eq!(millis(1, Some(3600), 0), 60_000);
        assert_eq!(millis(1, Some(u64::MAX), 1000), 60_000);
    }

    #[test]
    fn seconds_and_dates_are_read_and_anything_else_is_no_wish() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now).map(|pause| pause.as_secs())
        };
        assert_eq!(read("120"), Some(120));
        assert_eq!(read(" 0 "), Some(0));
        // RFC 9110's example date is `now`.
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(0));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:07 GMT"), Some(30));
        assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        for text in ["", "soon", "-1", "1.5", "99999999999999999999999"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
