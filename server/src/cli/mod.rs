//! What a person types.

pub mod transcript;
