//! Files that grow by a line of JSON at a time and survive the end of whoever writes them.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    path::Path,
};

use anyhow::{Context, bail};
use serde::{Serialize, de::DeserializeOwned};

/// A file open for its next line; nobody else can open it the same way meanwhile.
pub struct Lines {
    file: File,
    shown: String,
}

impl Lines {
    /// Opens the file, made if it is not there, and reads what it holds. A last line that was not written to its end is cut off.
    pub fn open<T: DeserializeOwned>(path: &Path) -> anyhow::Result<(Self, Vec<T>)> {
        let shown = path.display().to_string();
        let cannot = || format!("cannot write {shown}");
        let file = OpenOptions::new().create(true).append(true).open(path).with_context(cannot)?;
        if file.try_lock().is_err() {
            bail!("another process is writing {shown}; let it end, or give each process a --shard of its own");
        }
        let text = whole_lines(path)?;
        file.set_len(text.len() as u64).with_context(cannot)?;
        let lines = parse(path, &text)?;
        Ok((Self { file, shown }, lines))
    }

    /// Adds a line, in one write: whatever ends this process afterwards, the line is there.
    pub fn add<T: Serialize>(&mut self, line: &T) -> anyhow::Result<()> {
        let mut text = serde_json::to_string(line).context("cannot write as JSON")?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", self.shown))
    }
}

/// Every whole line of the file; none where there is no file.
pub fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<T>> {
    parse(path, &whole_lines(path)?)
}

fn whole_lines(path: &Path) -> anyhow::Result<String> {
    match fs::read(path) {
        Ok(bytes) => whole(path, bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Without a last line that was not written to its end.
pub fn whole(path: &Path, mut bytes: Vec<u8>) -> anyhow::Result<String> {
    let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    bytes.truncate(end);
    String::from_utf8(bytes).with_context(|| format!("{} is not a file of lines of JSON", path.display()))
}

/// A value a line.
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> anyhow::Result<Vec<T>> {
    let line = |(number, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| format!("{}, line {number}, was not written by this program", path.display()))
    };
    (1..).zip(text.lines()).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_torn_by_the_end_of_its_writer_is_dropped_and_the_next_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        fs::write(&path, "[1]\n[2]\n[3").unwrap();
        let (mut lines, read_back) = Lines::open::<[u32; 1]>(&path).unwrap();
        assert_eq!(read_back, [[1], [2]]);
        lines.add(&[4]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "[1]\n[2]\n[4]\n");
    }

    #[test]
    fn refuses_a_second_writer_and_a_line_of_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        let (first, _) = Lines::open::<u32>(&path).unwrap();
        assert!(Lines::open::<u32>(&path).err().unwrap().to_string().contains("another process"));
        drop(first);
        fs::write(&path, "1\nDear colleague\n").unwrap();
        assert!(Lines::open::<u32>(&path).err().unwrap().to_string().contains("line 2"));
    }

    #[test]
    fn a_file_that_is_not_there_has_no_lines() {
        assert_eq!(read::<u32>(Path::new("/nowhere/rows.jsonl")).unwrap(), [0_u32; 0]);
    }
}
