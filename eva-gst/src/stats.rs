//! What a source has done: [`Stats`].

/// The work of a [`GstSource`](crate::GstSource) since it was opened.
///
/// All but [`cached_bytes`](Self::cached_bytes) only grow: the difference between two readings is
/// the work between them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Compressed pictures read from the container.
    pub packets_read: u64,
    /// Compressed pictures given to a decoder.
    pub packets_decoded: u64,
    /// How often the container was sought in or begun again.
    pub seeks: u64,
    /// Frames delivered.
    pub frames: u64,
    /// Those of them that were answered without reading or decoding anything.
    pub cache_hits: u64,
    /// Bytes of pictures that are held for later calls now.
    pub cached_bytes: u64,
}
