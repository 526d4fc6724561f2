//! Passwords and tokens: out of a variable of the environment or out of a file, never out of an argument, which every user of the
//! machine can read; and never into text.

mod errors;
mod url;

use std::{
    env,
    ffi::OsString,
    fmt,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

pub use errors::SecretError;
pub use url::{check_url, names_user};

/// No URL and no token is as long, in bytes; a file that is was named by mistake.
const LONGEST: u64 = 64 << 10;

/// A text that is shown to nobody. It has no `Display`, and its `Debug` is `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// What the variable `name` holds or, in its place, this file, of which the last line's end is left out. `file` is what the flag or the
    /// variable `<name>_FILE` says. An empty variable is one that is not set.
    pub fn required(name: &'static str, file: Option<&Path>) -> Result<Self, SecretError> {
        Self::optional(name, file)?.ok_or(SecretError::Missing { name })
    }

    /// The same, where there may be none.
    pub fn optional(name: &'static str, file: Option<&Path>) -> Result<Option<Self>, SecretError> {
        read(name, env::var_os(name), file)
    }

    /// The text, for the call that needs it: keep it in no other place.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

fn read(name: &'static str, variable: Option<OsString>, file: Option<&Path>) -> Result<Option<Secret>, SecretError> {
    let not_one_line = || SecretError::NotOneLine { name, file: file.map(Path::to_owned) };
    let text = match (variable.filter(|value| !value.is_empty()), file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(SecretError::Twice { name }),
        (Some(value), None) => value.into_string().map_err(|_| not_one_line())?,
        (None, Some(path)) => read_file(path).map_err(|source| SecretError::File { name, path: path.to_owned(), source })?,
    };
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.chars().any(char::is_control) {
        return Err(not_one_line());
    }
    Ok(Some(Secret(line.into())))
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {LONGEST} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    fn given(variable: Option<&str>, file: Option<&Path>) -> Result<Option<Secret>, SecretError> {
        read("AMQP_URL", variable.map(Into::into), file)
    }

    #[test]
    fn comes_from_a_variable_or_from_a_file_without_its_lines_end() {
        let folder = tempfile::tempdir().expect("made");
        let file = folder.path().join("url");
        assert_eq!(given(Some("amqp://a:b@c"), None).expect("valid"), Some(Secret("amqp://a:b@c".into())));
        assert_eq!(given(Some(""), None).expect("valid"), None);
        for (content, expected) in [("pass word", "pass word"), ("pass\n", "pass"), ("pass\r\n", "pass")] {
            fs::write(&file, content).expect("written");
            let secret = given(Some(""), Some(&file)).expect("valid").expect("there");
            assert_eq!(secret.expose(), expected);
        }
    }

    #[test]
    fn refuses_what_is_no_secret_and_says_which_variable_without_what_it_holds() {
        let folder = tempfile::tempdir().expect("made");
        let written = |name: &str, content: &str| -> PathBuf {
            let path = folder.path().join(name);
            fs::write(&path, content).expect("written");
            path
        };
        let two_lines = written("two", "hunter2\nhunter3\n");
        let empty = written("empty", "\n");
        let long = written("long", &"hunter2".repeat(10_000));
        let missing = folder.path().join("missing");
        for (variable, file, expected) in [
            (Some("hunter2"), Some(&empty), "AMQP_URL is set, and AMQP_URL_FILE (or its flag) too"),
            (Some("hunter2\nhunter3"), None, "AMQP_URL does not hold one line of text"),
            (None, Some(&two_lines), "two, which AMQP_URL_FILE (or its flag) names, does not hold one line of text"),
            (None, Some(&empty), "empty, which AMQP_URL_FILE (or its flag) names, does not hold one line of text"),
            (None, Some(&long), "larger than 65536 bytes"),
            (None, Some(&missing), "missing, which AMQP_URL_FILE (or its flag) names: No such file"),
        ] {
            let error = given(variable, file.map(PathBuf::as_path)).expect_err(expected).to_string();
            assert!(error.contains(expected) && !error.contains("hunter"), "{error}");
        }
        let missing = Secret::required("DOTMASK_NO_SUCH_SECRET", None).expect_err("not set").to_string();
        assert!(missing.starts_with("DOTMASK_NO_SUCH_SECRET is not set; set it, or DOTMASK_NO_SUCH_SECRET_FILE"), "{missing}");
    }

    #[test]
    fn is_not_shown_by_debug() {
        let shown = format!("{:?} {:#?}", Some(Secret("hunter2".into())), Secret("hunter2".into()));
        assert_eq!(shown, "Some([redacted]) [redacted]");
    }
}
