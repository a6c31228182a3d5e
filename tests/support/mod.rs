//! What several tests need: packs, invented records, private servers, the running program.

pub(crate) mod first_sight;
pub(crate) mod gate;
pub(crate) mod histories;
pub(crate) mod line;
pub(crate) mod packs;
pub(crate) mod postgres;
pub(crate) mod program;
pub(crate) mod replay;
pub(crate) mod schema;
