//! Part of the eva video agent.
