//! Tonle keeps a reporting database true to one or many Primero instances.
//!
//! ```text
//! Primero ──▶ source ──deltas──▶ dataflow ──changed rows──▶ sink ──▶ Postgres
//!  (1..n)     strip, code         anonymize, count           one transaction per epoch
//!                │ log                                          │ epoch fence
//!                └──────────────── state (checkpoint) ◀─────────┘
//! ```
//!
//! In reading order:
//!
//! 1. [`source`] asks each Primero what changed, strips every identifier and codes what is left,
//! 2. [`dataflow`] turns new versions of cases into changed cells and changed anonymized rows,
//! 3. [`sink`] writes exactly those to Postgres, one epoch per transaction,
//!
//! with `state` beside them, remembering where each one stopped. [`indicator`] is what a pack means;
//! [`model`] holds the nouns. The rest stands beside the path: [`sim`] is a simulated Primero, [`postgres`] a
//! throw-away cluster for demo and tests, [`web`] health and metrics, [`cli`] the commands.

pub mod source;
pub mod dataflow;
pub mod sink;
pub mod state;

pub mod indicator;
pub mod model;
pub mod report;
pub mod error;
pub mod crash;

pub mod sim;
pub mod postgres;
pub mod web;
pub mod pipeline;
pub mod config;
pub mod cli;
