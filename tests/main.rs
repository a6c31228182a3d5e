//! One test binary: the program's parts against the real things they talk to.

mod support;

mod sink;
