use bytes::{Buf, Bytes, BytesMut};

/// Cuts a stream of chunks into lines, holding no more than one line of `limit` bytes beside the chunk at hand.
///
/// A longer line is skipped to its end and only its length is kept: a gigabyte without a newline costs no memory.
#[derive(Debug)]
pub struct Lines {
    limit: usize,
    chunk: Bytes,
    /// The beginning of a line whose end has not come yet, as far as it fits.
    partial: BytesMut,
    /// How long that beginning is, whether it fits or not.
    partial_length: usize,
    number: u64,
}

/// A line without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// From 1.
    pub number: u64,
    /// Its bytes, or how many there are where they are more than the limit.
    pub content: Result<Bytes, usize>,
}

impl Lines {
    /// For lines of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, chunk: Bytes::new(), partial: BytesMut::new(), partial_length: 0, number: 0 }
    }

    /// Adds a chunk; call [`Self::next_line`] until it has no more before the next one.
    pub fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "every line of the last chunk is taken");
        self.chunk = chunk;
    }

    /// The next line that ends in the chunk at hand.
    pub fn next_line(&mut self) -> Option<Line> {
        let Some(end) = self.chunk.iter().position(|&byte| byte == b'\n') else {
            let rest = std::mem::take(&mut self.chunk);
            self.keep(&rest);
            return None;
        };
        let tail = self.chunk.split_to(end);
        self.chunk.advance(1);
        if self.partial_length == 0 && tail.len() <= self.limit {
            self.number += 1;
            return Some(Line { number: self.number, content: Ok(tail) });
        }
        self.keep(&tail);
        Some(self.take_partial())
    }

    /// What stands after the last newline, if anything does. Call it once, after the last chunk.
    pub fn last_line(&mut self) -> Option<Line> {
        (self.partial_length > 0).then(|| self.take_partial())
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.partial_length += bytes.len();
        if self.partial_length <= self.limit {
            self.partial.extend_from_slice(bytes);
        } else {
            self.partial.clear();
        }
    }

    fn take_partial(&mut self) -> Line {
        self.number += 1;
        let length = std::mem::take(&mut self.partial_length);
        let bytes = self.partial.split().freeze();
        Line { number: self.number, content: if length <= self.limit { Ok(bytes) } else { Err(length) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &[u8], limit: usize, chunk_size: usize) -> Vec<Line> {
        let mut lines = Lines::new(limit);
        let mut found = Vec::new();
        for chunk in text.chunks(chunk_size) {
            lines.push(Bytes::copy_from_slice(chunk));
            found.extend(std::iter::from_fn(|| lines.next_line()));
        }
        found.extend(lines.last_line());
        found
    }

    #[test]
    fn finds_the_same_lines_however_the_text_is_cut() {
        let text = b"one\n\ntwo two\r\n\xff\xfe\nlong line here\nfour\n\nlast";
        let expected: Vec<Line> = text
            .split(|&byte| byte == b'\n')
            .zip(1..)
            .map(|(line, number)| Line {
                number,
                content: if line.len() > 9 { Err(line.len()) } else { Ok(Bytes::copy_from_slice(line)) },
            })
            .collect();
        for chunk_size in 1..=text.len() {
            assert_eq!(split(text, 9, chunk_size), expected, "in chunks of {chunk_size}");
        }
    }

    #[test]
    fn sees_no_line_after_the_last_newline() {
        assert_eq!(split(b"", 9, 1), []);
        assert_eq!(split(b"a\n", 9, 2).len(), 1);
        assert_eq!(split(b"a\n\n", 9, 3).len(), 2);
    }

    #[test]
    fn keeps_nothing_of_a_line_that_is_too_long() {
        let mut lines = Lines::new(1_000);
        for _ in 0..10_000 {
            lines.push(Bytes::from_static(&[b'x'; 1_000]));
            assert_eq!(lines.next_line(), None);
            assert!(lines.partial.capacity() <= 4_000, "{}", lines.partial.capacity());
        }
        lines.push(Bytes::from_static(b"x\nshort\n"));
        assert_eq!(lines.next_line(), Some(Line { number: 1, content: Err(10_000_001) }));
        assert_eq!(lines.next_line(), Some(Line { number: 2, content: Ok(Bytes::from_static(b"short")) }));
        assert_eq!(lines.next_line(), None);
        assert_eq!(lines.last_line(), None);
    }
}
