use evaluation::{datasets::Kind, read_csv, table_markdown, write_csv};
use worker::readers;

/// What was written before and is read again: a receipt, an evaluation's rows and steps, its table.
pub fn read(bytes: &[u8]) {
    let _ = (readers::receipt(bytes), readers::rows(bytes), readers::steps(bytes));
    if let Ok(rows) = read_csv(bytes) {
        let mut written = Vec::new();
        write_csv(&rows, &mut written).expect("memory takes all");
        let mut sorted = rows.clone();
        sorted.sort_by(|one, other| one.key().cmp(&other.key()));
        assert_eq!(read_csv(&written[..]).expect("was written by us"), sorted);
        let _ = table_markdown(&rows, Kind::Glas, "vit_b");
    }
}

pub fn limit(bytes: &[u8]) -> usize {
    256 * bytes.len() + (256 << 10)
}
