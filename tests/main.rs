//! One test binary: the real program, real HTTP against the simulator, a real private Postgres.

mod oracle;
mod support;
//! The tests that look at the program from outside; one binary, so that they share one Postgres.

mod support;
mod tidy;
//! All integration tests in one binary.

#![allow(clippy::unwrap_used)]

mod contract_sim;
