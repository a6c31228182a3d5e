//! Tonle keeps a reporting database true to one or many Primero instances.

#![allow(missing_docs)]
// In reading order.
pub mod sim;
pub mod state;
pub mod indicator;
pub mod error;
pub mod model;
