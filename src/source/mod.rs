//! What changed in Primero: asks, strips, and hands on coded cases. Nothing else knows HTTP or Primero's JSON.

mod decode;
mod moment;
mod plan;
mod pseudonym;
mod reader;
mod value;
