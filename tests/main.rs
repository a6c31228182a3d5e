//! One test binary: the real program, real HTTP against the simulator, a real private Postgres.

#![allow(clippy::unwrap_used)]

mod cli;
mod config;
mod contract_sim;
mod contract_source;
mod crash;
mod faults;
mod figures;
mod freeze;
mod malformed;
mod oracle;
mod packs;
mod parity;
mod path;
mod privacy;
mod sink;
mod state;
mod support;
mod tidy;
mod views;
mod worked_example;
