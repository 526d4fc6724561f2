//! What a compressed frame says of its size.

/// As a frame's own header has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub width: u32,
    pub height: u32,
    pub samples: u32,
}

/// Of a JPEG or a JPEG 2000 codestream.
pub fn header(frame: &[u8]) -> Option<Header> {
    match frame {
        [0xff, 0xd8, segments @ ..] => jpeg(segments),
        [0xff, 0x4f, 0xff, 0x51, _, _, _, _, size @ ..] => jpeg_2000(size),
        _ => None,
    }
}

/// The frame header (SOF), before which nothing lies but tables and comments.
///
/// Decoders take `ff` before a marker for filling, know markers without a length, and read on in scans: where they and this walk could part, there
/// is no header.
fn jpeg(mut segments: &[u8]) -> Option<Header> {
    loop {
        let (marker, content, rest) = segment(segments)?;
        if is_table_or_comment(marker) {
            segments = rest;
            continue;
        }
        let is_frame_header = matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc8 | 0xcc);
        let [_, h1, h0, w1, w0, samples, ..] = *content else { return None };
        let [width, height] = [[w1, w0], [h1, h0]].map(|bytes| u16::from_be_bytes(bytes).into());
        return is_frame_header.then(|| Header { width, height, samples: samples.into() });
    }
}

/// Whether a JPEG stream holds tables and comments alone, as what several share must: what else it had would come before their own headers.
pub fn has_tables_alone(stream: &[u8]) -> bool {
    let Some(mut segments) = stream.strip_prefix(&[0xff, 0xd8]) else { return false };
    loop {
        match segment(segments) {
            Some((marker, _, rest)) if is_table_or_comment(marker) => segments = rest,
            _ => return segments == [0xff, 0xd9],
        }
    }
}

/// A marker and its content, which has a length that counts itself; and what comes next.
fn segment(segments: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [0xff, marker, high, low, rest @ ..] = segments else { return None };
    let length = usize::from(u16::from_be_bytes([*high, *low])).checked_sub(2)?;
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*marker, content, rest))
}

/// Tables for decoding, application data, comments.
fn is_table_or_comment(marker: u8) -> bool {
    matches!(marker, 0xc4 | 0xdb | 0xdd | 0xe0..=0xef | 0xfe)
}

/// The size segment (SIZ) from the reference grid's size on: its end, and then its offset from the image's beginning.
fn jpeg_2000(size: &[u8]) -> Option<Header> {
    let number = |offset: usize| size.get(offset..)?.first_chunk().copied().map(u32::from_be_bytes);
    let samples = size.get(32..)?.first_chunk().copied().map(u16::from_be_bytes)?;
    Some(Header {
        width: number(0)?.checked_sub(number(8)?)?,
        height: number(4)?.checked_sub(number(12)?)?,
        samples: samples.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment with its marker and length.
    fn part(marker: u8, content: &[u8]) -> Vec<u8> {
        [&[0xff, marker][..], &(content.len() as u16 + 2).to_be_bytes(), content].concat()
    }

    fn sof(width: u16, height: u16) -> Vec<u8> {
        part(0xc0, &[&[8][..], &height.to_be_bytes(), &width.to_be_bytes(), &[1, 1, 0x11, 0]].concat())
    }

    fn stream(parts: &[&[u8]]) -> Vec<u8> {
        [&[0xff, 0xd8], &parts.concat()[..]].concat()
    }

    #[test]
    fn takes_a_jpegs_size_from_behind_tables_and_comments() {
        let found = header(&stream(&[&part(0xe0, b"JFIF"), &part(0xdb, &[0; 65]), &part(0xfe, &sof(9, 9)), &sof(300, 200)]));
        assert_eq!(found, Some(Header { width: 300, height: 200, samples: 1 }));
    }

    #[test]
    fn has_no_size_where_a_decoder_may_find_another() {
        let (huge, small) = (sof(65_535, 65_535), sof(8, 8));
        for (what, parts) in [
            ("filling before the marker, taken for a marker whose content hides the real one", vec![&[0xff][..], &huge, &small]),
            ("a marker without a length", vec![&[0xff, 0x01], &huge, &small]),
            ("another one", vec![&[0xff, 0xd0], &huge, &small]),
            ("the end", vec![&[0xff, 0xd9], &huge, &small]),
            ("a scan, in which a decoder reads on", vec![&[0xff, 0xda, 0, 2], &huge, &small]),
            ("no marker", vec![&[0, 0], &huge, &small]),
            ("a header that is cut short", vec![&huge[..8]]),
        ] {
            assert_eq!(header(&stream(&parts)), None, "{what}");
        }
    }

    #[test]
    fn knows_tables_that_are_no_more_than_tables() {
        let end = [0xff, 0xd9];
        let (quantisation, huffman) = (part(0xdb, &[0; 65]), part(0xc4, &[0; 17]));
        assert!(has_tables_alone(&stream(&[&quantisation, &huffman, &end])));
        let (header, scan) = (sof(65_535, 65_535), part(0xda, &[1]));
        for parts in [vec![&quantisation[..], &header, &end], vec![&scan, &end], vec![&quantisation], vec![&end, &end], vec![]] {
            assert!(!has_tables_alone(&stream(&parts)), "{parts:?}");
        }
    }
}
