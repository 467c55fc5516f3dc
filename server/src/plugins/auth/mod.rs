//! The plugins that know who somebody is.

pub mod auth_flat_file;
