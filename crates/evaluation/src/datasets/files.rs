use std::{
    fs,
    io::Read as _,
    path::{Component, Path, PathBuf},
};

/// The files of a data set, wherever they lie. A name is relative to the data set's root, its folders separated by `/`.
pub trait Files {
    /// Every file's name, at any depth.
    fn list(&self) -> Result<Vec<String>, FilesError>;
    /// A file's bytes.
    fn read(&self, name: &str) -> Result<Vec<u8>, FilesError>;
}

/// A file or a listing that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{place} cannot be read: {reason}")]
pub struct FilesError {
    /// Which file, or where the listing was made.
    pub place: String,
    /// What stood in the way.
    pub reason: String,
}

/// A data set in a folder of this machine. Links to files are followed, links to folders are not, for they may go round in circles.
#[derive(Debug, Clone)]
pub struct LocalFolder {
    root: PathBuf,
    /// In bytes.
    largest_file: u64,
}

impl LocalFolder {
    /// The folder's path, which is looked at when it is listed, and the largest file that is read, in bytes.
    pub fn new(root: impl Into<PathBuf>, largest_file: u64) -> Self {
        Self { root: root.into(), largest_file }
    }

    fn list_into(&self, prefix: &str, names: &mut Vec<String>) -> Result<(), FilesError> {
        let folder = if prefix.is_empty() { self.root.clone() } else { self.root.join(prefix) };
        let unreadable = |error: std::io::Error| FilesError { place: folder.display().to_string(), reason: error.to_string() };
        for entry in fs::read_dir(&folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            // A name that is no text can be named by no manifest and is none of a data set's.
            let Ok(file_name) = entry.file_name().into_string() else { continue };
            let name = if prefix.is_empty() { file_name } else { format!("{prefix}/{file_name}") };
            if entry.file_type().map_err(unreadable)?.is_dir() {
                self.list_into(&name, names)?;
            } else if self.root.join(&name).is_file() {
                names.push(name);
            }
        }
        Ok(())
    }
}

impl Files for LocalFolder {
    fn list(&self) -> Result<Vec<String>, FilesError> {
        let mut names = Vec::new();
        self.list_into("", &mut names)?;
        names.sort();
        Ok(names)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, FilesError> {
        let unreadable = |reason: String| FilesError { place: self.root.join(name).display().to_string(), reason };
        if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(unreadable("the name leads out of the data set".into()));
        }
        let (path, most) = (self.root.join(name), self.largest_file);
        let file = fs::File::open(&path).map_err(|error| unreadable(error.to_string()))?;
        let mut bytes = Vec::new();
        // One more than it may have, whatever its length is said to be.
        file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| unreadable(error.to_string()))?;
        if bytes.len() as u64 > most {
            return Err(unreadable(format!("it has more than {most} bytes; crop it or compress it")));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_files_at_any_depth_and_reads_them() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("b/c")).unwrap();
        for name in ["z.png", "b/c/a.png", "b/a.png"] {
            fs::write(root.path().join(name), name).unwrap();
        }
        std::os::unix::fs::symlink(root.path(), root.path().join("b/round")).unwrap();
        std::os::unix::fs::symlink(root.path().join("z.png"), root.path().join("b/y.png")).unwrap();
        let files = LocalFolder::new(root.path(), 9);
        assert_eq!(files.list().unwrap(), ["b/a.png", "b/c/a.png", "b/y.png", "z.png"]);
        assert_eq!(files.read("b/c/a.png").unwrap(), b"b/c/a.png");
        fs::File::create(root.path().join("z.png")).unwrap().set_len(1 << 40).unwrap();
        let error = files.read("z.png").unwrap_err().to_string();
        assert!(error.ends_with("z.png cannot be read: it has more than 9 bytes; crop it or compress it"), "{error}");
    }

    #[test]
    fn names_what_cannot_be_read() {
        let files = LocalFolder::new("/nowhere", 9);
        assert!(files.list().unwrap_err().to_string().starts_with("/nowhere cannot be read: No such file"));
        assert!(files.read("../etc/passwd").unwrap_err().to_string().contains("leads out of the data set"));
        assert!(files.read("/etc/passwd").is_err());
    }
}
