//! Any bytes as a state file and as an export, as they are and with right checksums: refused or read, never a panic.
//!
//! `cargo +nightly fuzz run state -- -max_len=65536`, in the directory of the repository. What it finds
//! goes into `fuzz/corpus/state`, which `make test` replays.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tonle::state::fuzz::{decode, unpack};

fuzz_target!(|bytes: &[u8]| {
    decode(bytes, false);
    decode(bytes, true);
    unpack(bytes, false);
    unpack(bytes, true);
});
