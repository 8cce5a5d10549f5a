//! What a caller may choose: [`GstOptions`], [`FrameRule`].

use core::time::Duration;

use crate::CancelHandle;

/// Which frame answers a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FrameRule {
    /// The frame on display at that time: the last one whose presentation time is not after it.
    #[default]
    Displayed,
    /// The frame whose index is `round(time * average frame rate)`, halves to even.
    ///
    /// This is what the published evaluation code takes. It differs from [`Displayed`] wherever the
    /// time lies in the second half of a frame's display, and everywhere in a video of variable
    /// frame rate. Opening a source with this rule reads the whole file once, without decoding, to
    /// number its frames.
    ///
    /// [`Displayed`]: FrameRule::Displayed
    Published,
}

/// How a [`GstSource`](crate::GstSource) behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GstOptions {
    /// The longest wait without any progress before [`GstError::Timeout`](crate::GstError::Timeout);
    /// 30 seconds by default.
    pub timeout: Duration,
    /// Which frame answers a time.
    pub rule: FrameRule,
    /// Stops calls of the source, its opening included; by default the source makes its own.
    pub cancel: Option<CancelHandle>,
}

impl Default for GstOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            rule: FrameRule::default(),
            cancel: None,
        }
    }
}

impl GstOptions {
    /// The defaults: 30 seconds without progress, the frame on display.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the longest wait without any progress.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets which frame answers a time.
    #[must_use]
    pub fn with_rule(mut self, rule: FrameRule) -> Self {
        self.rule = rule;
        self
    }

    /// Lets `cancel` stop calls of the source, its opening included.
    #[must_use]
    pub fn with_cancel(mut self, cancel: &CancelHandle) -> Self {
        self.cancel = Some(cancel.clone());
        self
    }
}
