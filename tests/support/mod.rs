//! What several tests need: packs, invented records, private servers.

pub(crate) mod histories;
pub(crate) mod postgres;
