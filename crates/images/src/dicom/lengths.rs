//! A look at the lengths in a data set, before a parser makes room for what they promise.
//!
//! The parser takes every length at its word, and goes one call deeper for every sequence. So this walks as the parser does, and refuses
//! what would let the two part ways.

use dicom_core::{
    Tag, VR,
    dictionary::{DataDictionary as _, DataDictionaryEntry as _},
};
use dicom_object::StandardDataDictionary;

const UNDEFINED: u32 = u32::MAX;
/// A group of its own: items and the ends of items and sequences.
const ITEMS: u16 = 0xfffe;
const ITEM: Tag = Tag(ITEMS, 0xe000);
const END_OF_ITEM: Tag = Tag(ITEMS, 0xe00d);
const END_OF_SEQUENCE: Tag = Tag(ITEMS, 0xe0dd);
const PIXEL_DATA: Tag = Tag(0x7fe0, 0x0010);
/// Sequences, and items in them, within each other; structured reports have about ten.
const MOST_LEVELS: usize = 64;

/// How elements are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// With their types, the least byte first.
    Explicit,
    /// With their types, the greatest byte first.
    ExplicitBig,
    /// Without types, which a dictionary says; the least byte first.
    Implicit,
}

/// The elements of the file's beginning, which says its own length in its first one, and all others. `bytes` begin after `DICM`.
pub fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = bytes.get(8..12)?.first_chunk().copied().map(u32::from_le_bytes)?;
    bytes.split_at_checked(12_usize.checked_add(length as usize)?)
}

/// What the walk is in.
#[derive(Debug, Clone, Copy)]
struct Level {
    holds: Holds,
    /// Where it ends, if it says so and has no mark at its end.
    end: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Elements,
    Items,
    /// Items of bytes, of which the first is a table of offsets.
    Frames {
        has_table: bool,
    },
}

/// Whether no element promises more bytes than follow it in what it is in, and sequences do not lie too deep in each other.
pub fn are_true(elements: &[u8], encoding: Encoding) -> bool {
    left_over(elements, encoding).is_some()
}

/// The same of the file's beginning, which must have no byte left after its last element: the parser would read on behind it.
pub fn are_true_at_the_beginning(elements: &[u8]) -> bool {
    left_over(elements, Encoding::Explicit) == Some(0)
}

/// How many bytes are left after the last element; none where a length is untrue.
fn left_over(bytes: &[u8], encoding: Encoding) -> Option<usize> {
    let mut levels = vec![Level { holds: Holds::Elements, end: Some(bytes.len()) }];
    let mut place = 0;
    while let Some(&Level { holds, end }) = levels.last() {
        if end == Some(place) {
            levels.pop();
            continue;
        }
        // What is shorter than the shortest element is none, and has no length to believe.
        if bytes.len() - place < 8 {
            return Some(bytes.len() - place);
        }
        let Element { tag, vr, length, header } = Element::read(&bytes[place..], encoding)?;
        place += header;
        let room = levels.iter().rev().find_map(|level| level.end).unwrap_or(bytes.len());
        if place > room {
            return None;
        }
        let inner = match (holds, tag) {
            (Holds::Elements, END_OF_ITEM) | (Holds::Items | Holds::Frames { .. }, END_OF_SEQUENCE) if end.is_none() => {
                levels.pop();
                continue;
            }
            (Holds::Items, ITEM) => Some(Holds::Elements),
            (Holds::Frames { .. }, ITEM) => None,
            (Holds::Items | Holds::Frames { .. }, _) | (Holds::Elements, Tag(ITEMS, _)) => return None,
            (Holds::Elements, PIXEL_DATA) if length == UNDEFINED && vr != VR::SQ => Some(Holds::Frames { has_table: false }),
            (Holds::Elements, _) => (vr == VR::SQ || length == UNDEFINED).then_some(Holds::Items),
        };
        let number_bytes = if holds == (Holds::Frames { has_table: false }) { 4 } else { number_bytes(vr) };
        let next = place + length as usize;
        match inner {
            Some(holds) if length == UNDEFINED => levels.push(Level { holds, end: None }),
            // The parser leaves behind what is no whole number, and takes it for the next element's beginning.
            _ if next > room || !length.is_multiple_of(number_bytes) => return None,
            Some(holds) => levels.push(Level { holds, end: Some(next) }),
            None => {
                place = next;
                if let Some(Level { holds: Holds::Frames { has_table }, .. }) = levels.last_mut() {
                    *has_table = true;
                }
            }
        }
        if levels.len() > MOST_LEVELS {
            return None;
        }
    }
    Some(bytes.len() - place)
}

struct Element {
    tag: Tag,
    vr: VR,
    length: u32,
    /// How long all of this is.
    header: usize,
}

impl Element {
    fn read(bytes: &[u8], encoding: Encoding) -> Option<Self> {
        let is_big = encoding == Encoding::ExplicitBig;
        let short = |pair: [u8; 2]| if is_big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) };
        let long = |four: [u8; 4]| if is_big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) };
        let (&[g0, g1, n0, n1, k0, k1, l0, l1], after) = bytes.split_first_chunk()?;
        let tag = Tag(short([g0, g1]), short([n0, n1]));
        if tag.group() == ITEMS {
            return Some(Self { tag, vr: VR::UN, length: long([k0, k1, l0, l1]), header: 8 });
        }
        if encoding == Encoding::Implicit {
            return Some(Self { tag, vr: in_dictionary(tag), length: long([k0, k1, l0, l1]), header: 8 });
        }
        let vr = VR::from_binary([k0, k1]).unwrap_or(VR::UN);
        match &[k0, k1] {
            b"AE" | b"AS" | b"AT" | b"CS" | b"DA" | b"DS" | b"DT" | b"FD" | b"FL" | b"IS" | b"LO" | b"LT" | b"PN" | b"SH"
            | b"SL" | b"SS" | b"ST" | b"TM" | b"UI" | b"UL" | b"US" => {
                Some(Self { tag, vr, length: short([l0, l1]).into(), header: 8 })
            }
            // All other types, unknown ones too, have two idle bytes and a longer length.
            _ => after.first_chunk().map(|&length| Self { tag, vr, length: long(length), header: 12 }),
        }
    }
}

/// As the parser has it, whose dictionary this is.
fn in_dictionary(tag: Tag) -> VR {
    let is_overlay = tag.group() >> 8 == 0x60 && tag.element() == 0x3000;
    if tag == PIXEL_DATA || is_overlay {
        return VR::OW;
    }
    StandardDataDictionary.by_tag(tag).map_or(VR::UN, |entry| entry.vr().relaxed())
}

/// Of one number.
fn number_bytes(vr: VR) -> u32 {
    match vr {
        VR::OW | VR::SS | VR::US => 2,
        VR::AT | VR::FL | VR::OF | VR::OL | VR::SL | VR::UL => 4,
        VR::FD | VR::OD | VR::OV | VR::SV | VR::UV => 8,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An item of a sequence, over and over, to such a depth.
    fn nested(depth: usize) -> Vec<u8> {
        b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff".repeat(depth)
    }

    #[test]
    fn refuses_sequences_that_would_exhaust_the_stack() {
        assert!(are_true(&nested(10), Encoding::Explicit));
        assert!(!are_true(&nested(100_000), Encoding::Explicit));
    }

    #[test]
    fn refuses_an_element_longer_than_the_sequence_it_is_in() {
        let element = b"\x28\0\x04\0CS\x02\0XY";
        let item = |length: u8| [b"\xfe\xff\0\xe0", &[length, 0, 0, 0][..], element].concat();
        let sequence = |length: u8, item: &[u8]| [b"\x08\0\x40\x11SQ\0\0", &[length, 0, 0, 0][..], item, element].concat();
        assert!(are_true(&sequence(18, &item(10)), Encoding::Explicit));
        assert!(!are_true(&sequence(18, &item(12)), Encoding::Explicit));
        assert!(!are_true(&sequence(17, &item(10)), Encoding::Explicit));
    }

    #[test]
    fn refuses_a_length_that_is_a_lie_in_every_encoding() {
        for (encoding, whole) in [
            (Encoding::Explicit, &b"\x28\0\x10\0US\x02\0\x07\0"[..]),
            (Encoding::ExplicitBig, b"\0\x28\0\x10US\0\x02\0\x07"),
            (Encoding::Implicit, b"\x28\0\x10\0\x02\0\0\0\x07\0"),
        ] {
            assert!(are_true(whole, encoding), "{encoding:?}");
            assert!(!are_true(&whole[..9], encoding), "{encoding:?}");
        }
        // Half a number.
        assert!(!are_true(b"\x28\0\x10\0US\x01\0\x07", Encoding::Explicit));
    }
}
