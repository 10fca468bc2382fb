//! Extended attributes in one metadata value: base64 (values are bytes, headers are not) of
//! `name length (u8), value length (u16, big endian), name, value` for each.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

pub(super) fn encode(xattrs: &BTreeMap<String, Vec<u8>>) -> String {
    let mut bytes = Vec::new();
    for (name, value) in xattrs {
        // Longer ones exceed an object's metadata anyway: cut lengths still make the sum too large.
        bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        bytes.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend(name.as_bytes());
        bytes.extend(value);
    }
    STANDARD_NO_PAD.encode(bytes)
}

/// `None` when the value is not one that we wrote.
pub(super) fn decode(value: &str) -> Option<BTreeMap<String, Vec<u8>>> {
    let bytes = STANDARD_NO_PAD.decode(value).ok()?;
    let mut rest = bytes.as_slice();
    let mut xattrs = BTreeMap::new();
    while !rest.is_empty() {
        let (&[name_len, high, low], tail) = rest.split_first_chunk::<3>()?;
        let (name, tail) = tail.split_at_checked(usize::from(name_len))?;
        let (value, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        xattrs.insert(String::from_utf8(name.to_vec()).ok()?, value.to_vec());
        rest = tail;
    }
    Some(xattrs)
}
