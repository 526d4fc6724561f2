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

/// The first frame header (SOF) among the segments, each of which is a marker, a length that counts itself, and its content.
fn jpeg(mut segments: &[u8]) -> Option<Header> {
    while let [0xff, marker, high, low, rest @ ..] = segments {
        let is_frame_header = matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc);
        if is_frame_header && let [_, h1, h0, w1, w0, samples, ..] = *rest {
            let [width, height] = [[w1, w0], [h1, h0]].map(|bytes| u16::from_be_bytes(bytes).into());
            return Some(Header { width, height, samples: samples.into() });
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        segments = rest.get(length.checked_sub(2)?..)?;
    }
    None
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
