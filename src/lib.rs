//! Tonle keeps a reporting database true to one or many Primero instances.

#![allow(missing_docs)]
// In reading order.
pub mod sim;
pub mod dataflow;
pub mod postgres;
pub mod web;
pub mod indicator;
pub mod report;
pub mod cli;
pub mod error;
pub mod model;
