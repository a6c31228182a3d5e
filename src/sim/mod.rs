//! The simulated Primero.
