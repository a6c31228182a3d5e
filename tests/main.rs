//! One test binary: the real program, real HTTP against the simulator, a real private Postgres.

mod oracle;
mod support;
