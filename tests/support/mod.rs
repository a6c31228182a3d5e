//! What several tests need: packs, invented records, private servers.

pub mod histories;
//! What several kinds of tests need.

pub(crate) mod postgres;
