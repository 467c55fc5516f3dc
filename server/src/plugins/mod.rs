//! The built-in plugins, a file each.
