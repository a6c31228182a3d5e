//! The tests that look at the program from outside; one binary, so that they share one Postgres.

mod support;
mod tidy;
