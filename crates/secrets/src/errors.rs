use std::{io, path::PathBuf};

/// Why there is no secret. The text names the variable and never repeats what it holds.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Neither of the two variables.
    #[error("{name} is not set; set it, or {name}_FILE to the path of a file that holds it")]
    Missing {
        /// The variable.
        name: &'static str,
    },
    /// Both of them.
    #[error("{name} is set, and {name}_FILE (or its flag) too; give one of them")]
    Twice {
        /// The variable.
        name: &'static str,
    },
    /// The file cannot be read.
    #[error("cannot read {}, which {name}_FILE (or its flag) names: {source}", path.display())]
    File {
        /// The variable, without `_FILE`.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing, several lines, or bytes that are no text.
    #[error("{} does not hold one line of text", holder(name, file.as_ref()))]
    NotOneLine {
        /// The variable, without `_FILE`.
        name: &'static str,
        /// Where it was read from, if not from the variable itself.
        file: Option<PathBuf>,
    },
}

fn holder(name: &str, file: Option<&PathBuf>) -> String {
    file.map_or_else(|| name.to_owned(), |file| format!("{}, which {name}_FILE (or its flag) names,", file.display()))
}
