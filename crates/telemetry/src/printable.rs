use std::fmt::{self, Write};

/// A text from outside, for a line of a log or of a terminal: shown so that it cannot end the line, move the cursor, change colours or turn the
/// reading direction. What could is written as Rust would: `\n`, `\u{1b}`.
#[derive(Debug, Clone, Copy)]
pub struct Printable<T>(pub T);

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if formatter.alternate() { write!(Escaped(formatter), "{:#}", self.0) } else { write!(Escaped(formatter), "{}", self.0) }
    }
}

/// Writes printable characters as they are and the others escaped.
pub(crate) struct Escaped<'a, W>(pub &'a mut W);

impl<W: Write> Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_unprintable) {
            self.0.write_str(&rest[..at])?;
            let character = rest[at..].chars().next().unwrap_or_default();
            write!(self.0, "{}", character.escape_default())?;
            rest = &rest[at + character.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// Controls of the terminal and of the text's direction, and what some programs take for the end of a line.
pub(crate) fn is_unprintable(character: char) -> bool {
    let is_direction =
        matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || is_direction || matches!(character, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_acts_on_a_terminal_and_leaves_the_rest() {
        assert_eq!(Printable("a \"b\" 'c' \\ Zürich 患者 😀").to_string(), "a \"b\" 'c' \\ Zürich 患者 😀");
        let hostile = "a\nb\rc\td\0\u{1b}[31m\u{7f}\u{85}\u{9b}2J\u{2028}\u{202e}z";
        assert_eq!(Printable(hostile).to_string(), r"a\nb\rc\td\u{0}\u{1b}[31m\u{7f}\u{85}\u{9b}2J\u{2028}\u{202e}z");
    }
}
