//! How fast the river flows.

fn main() {}
