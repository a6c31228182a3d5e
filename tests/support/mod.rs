//! What several tests need: packs, invented records, private servers.

pub mod histories;
