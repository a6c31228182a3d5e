//! One test binary.

mod state;
