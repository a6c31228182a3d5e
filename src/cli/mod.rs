//! The commands: one file each, each one call into the library.

/// `tonle sim`
pub mod sim;
