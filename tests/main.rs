//! One test binary: the program's parts against the real things they talk to.

#![allow(clippy::unwrap_used)]

mod support;

mod sink;
