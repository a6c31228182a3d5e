//! One test binary: the real program, real HTTP against the simulator, a real private Postgres.

#![allow(clippy::unwrap_used)]

mod contract_sim;
mod faults;
mod oracle;
mod path;
mod sink;
mod state;
mod support;
mod tidy;
