//! What `worker bench` is made of: a picture, clocks, and the figures that are made of their readings.

pub mod clock;
pub mod figures;
pub mod picture;
pub mod table;
