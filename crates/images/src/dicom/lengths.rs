//! A look at the lengths in a data set, before a parser makes room for what they promise.

const UNDEFINED: u32 = u32::MAX;
/// A group of its own: items and the ends of sequences.
const ITEMS: u16 = 0xfffe;
const ITEM: u16 = 0xe000;

/// The elements of the file's beginning, which says its own length in its first one, and all others. `bytes` begin after `DICM`.
pub fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = bytes.get(8..12)?.first_chunk().copied().map(u32::from_le_bytes)?;
    bytes.split_at_checked(12_usize.checked_add(length as usize)?)
}

/// Whether no element promises more bytes than follow it, where elements are with their types and their least byte first.
pub fn are_true(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut in_frames = false;
    while let Some((&[g0, g1, n0, n1, k0, k1, l0, l1], after)) = rest.split_first_chunk() {
        let (group, number, kind) = (u16::from_le_bytes([g0, g1]), u16::from_le_bytes([n0, n1]), [k0, k1]);
        let (length, content) = match (group, &kind) {
            (ITEMS, _) => (u32::from_le_bytes([k0, k1, l0, l1]), after),
            (
                _,
                b"AE" | b"AS" | b"AT" | b"CS" | b"DA" | b"DS" | b"DT" | b"FD" | b"FL" | b"IS" | b"LO" | b"LT" | b"PN" | b"SH"
                | b"SL" | b"SS" | b"ST" | b"TM" | b"UI" | b"UL" | b"US",
            ) => (u16::from_le_bytes([l0, l1]).into(), after),
            // All other types, unknown ones too, have two idle bytes and a longer length.
            _ => {
                let Some((&length, content)) = after.split_first_chunk() else { return false };
                (u32::from_le_bytes(length), content)
            }
        };
        let is_entered = match group {
            ITEMS => number != ITEM || !in_frames,
            _ => &kind == b"SQ" || length == UNDEFINED,
        };
        // The frames of compressed pixels are items of bytes, all others of elements.
        in_frames =
            if group == ITEMS { in_frames && number == ITEM } else { length == UNDEFINED && &kind != b"SQ" && &kind != b"UN" };
        let skipped = if is_entered { 0 } else { length as usize };
        let Some(next) = content.get(skipped..) else { return false };
        rest = next;
    }
    true
}
