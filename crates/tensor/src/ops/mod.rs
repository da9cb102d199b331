//! The operations, one file each: formula, public function, CPU loops forward and backward.

pub mod attention;
pub mod cast;
