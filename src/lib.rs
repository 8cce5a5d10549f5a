//! eva
