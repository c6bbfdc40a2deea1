//! Numbers that results count from 1 and programs from 0, for serde's `with`.

use serde::{Deserialize, Deserializer, Serializer};

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(crate) fn serialize<S: Serializer>(number: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::from(*number) + 1)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let number = u32::deserialize(deserializer)?;
    number.checked_sub(1).ok_or_else(|| serde::de::Error::custom("it is 0; they count from 1"))
}
