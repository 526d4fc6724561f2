//! Postgres' text format for COPY: columns between tabs, rows between newlines, a backslash before what would be taken for them.

/// Adds a column to the row.
pub(crate) fn column(row: &mut Vec<u8>, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'\\' => row.extend(br"\\"),
            b'\t' => row.extend(br"\t"),
            b'\n' => row.extend(br"\n"),
            b'\r' => row.extend(br"\r"),
            other => row.push(other),
        }
    }
    row.push(b'\t');
}

/// Ends the row after its last column.
pub(crate) fn end(row: &mut [u8]) {
    *row.last_mut().expect("a row has a column") = b'\n';
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_copy_would_take_for_its_own() {
        let mut row = Vec::new();
        column(&mut row, "a\tb\nc\rd\\e\\N");
        column(&mut row, "ü\"'");
        end(&mut row);
        assert_eq!(String::from_utf8(row).expect("text"), "a\\tb\\nc\\rd\\\\e\\\\N\tü\"'\n");
    }
}
