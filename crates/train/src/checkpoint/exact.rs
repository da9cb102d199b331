//! `#[serde(with = "vitrine_train::checkpoint::exact")]` for an f64 of a run's state: its bits, as 16 hexadecimal digits.
//!
//! Readers of JSON may return the neighbour of the number that was written (serde_json's does, as it is built here), and
//! infinity and NaN have no place in JSON.

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serializer};

/// Writes the bits.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{:016x}", value.to_bits()))
}

/// Reads them.
///
/// # Errors
/// For what is no 16 hexadecimal digits.
pub fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<f64, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = |text: &String| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bits = Some(&text).filter(|text| digits(text)).and_then(|text| u64::from_str_radix(text, 16).ok());
    bits.map(f64::from_bits)
        .ok_or_else(|| D::Error::custom("the bits of a number, 16 hexadecimal digits, are expected"))
}
