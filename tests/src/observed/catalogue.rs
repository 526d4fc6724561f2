use std::{collections::BTreeSet, process::Command};

use anyhow::ensure;
use servers::Program;

/// The metrics that the programs themselves say they have.
pub struct Catalogue(BTreeSet<String>);

impl Catalogue {
    /// As `dispatcher metrics` and `worker metrics` print it.
    pub fn read() -> anyhow::Result<Self> {
        let mut names = BTreeSet::new();
        for program in ["dispatcher", "worker"] {
            let output = Command::new(Program::path(program)?).arg("metrics").output()?;
            ensure!(output.status.success(), "{program} metrics: {}", String::from_utf8_lossy(&output.stderr));
            let rows = String::from_utf8(output.stdout)?;
            let of_rows = rows.lines().filter_map(|row| {
                let name = row.strip_prefix("| `")?.split(['`', '{']).next()?;
                Some(name.to_owned())
            });
            names.extend(of_rows);
        }
        ensure!(names.iter().any(|name| name.starts_with("dotmask_")), "no metric in what the programs print: {names:?}");
        Ok(Self(names))
    }

    /// The metric of a series: a histogram has three.
    pub fn metric<'a>(&'a self, series: &str) -> Option<&'a str> {
        let stems = ["_bucket", "_sum", "_count"].into_iter().filter_map(|suffix| series.strip_suffix(suffix));
        [series].into_iter().chain(stems).find_map(|name| self.0.get(name)).map(String::as_str)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// The names in a text that look like metrics of dotmask.
pub fn named_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("dotmask_") && word.len() > "dotmask_".len()).collect()
}
