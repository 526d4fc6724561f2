use std::{fmt, str::FromStr};

use crate::{S3Uri, UriError};

/// A folder of a bucket, or a whole bucket: `s3://bucket/folder/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Folder {
    bucket: String,
    /// Empty, or a key that ends with a slash: `s3://scans/a` is no prefix of `s3://scans/ab/x.png`.
    prefix: String,
}

impl S3Folder {
    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What the keys in it begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What the key of an object in it goes on with; none where the object is elsewhere.
    pub fn within<'uri>(&self, uri: &'uri S3Uri) -> Option<&'uri str> {
        uri.key().strip_prefix(&self.prefix).filter(|rest| uri.bucket() == self.bucket && !rest.is_empty())
    }
}

impl FromStr for S3Folder {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        // An object in the folder, of which only the folder is kept: what makes a key bad makes a folder bad.
        let uri: S3Uri = format!("{}/x", text.strip_suffix('/').unwrap_or(text)).parse()?;
        let prefix = uri.key().strip_suffix('x').unwrap_or_default();
        Ok(Self { bucket: uri.bucket().into(), prefix: prefix.into() })
    }
}

impl fmt::Display for S3Folder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "s3://{}/{}", self.bucket, self.prefix)
    }
}

/// What the requests of a project may read. Whatever is not named is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowList(Vec<Allowed>);

/// An entry of an [`AllowList`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// `s3://*`: all that the workers' credentials open.
    Everything,
    /// A folder or a bucket.
    Folder(S3Folder),
}

impl AllowList {
    /// Of these entries; an empty list allows nothing.
    pub fn new(entries: Vec<Allowed>) -> Self {
        Self(entries)
    }

    /// Its entries.
    pub fn entries(&self) -> &[Allowed] {
        &self.0
    }

    /// Whether the object may be read.
    pub fn allows(&self, uri: &S3Uri) -> bool {
        self.0.iter().any(|entry| match entry {
            Allowed::Everything => true,
            Allowed::Folder(folder) => folder.within(uri).is_some(),
        })
    }
}

impl FromStr for Allowed {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        if text == "s3://*" { Ok(Self::Everything) } else { text.parse().map(Self::Folder) }
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => formatter.write_str("s3://*"),
            Self::Folder(folder) => folder.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> AllowList {
        AllowList::new(entries.iter().map(|entry| entry.parse().expect("valid")).collect())
    }

    #[test]
    fn allows_what_lies_in_a_folder_it_names_and_nothing_beside_it() {
        let list = list(&["s3://scans/study-1", "s3://open"]);
        for (uri, expected) in [
            ("s3://scans/study-1/a.png", true),
            ("s3://scans/study-1/deep/er/a.png", true),
            ("s3://open/a.png", true),
            // Neither the folder's own name, nor names that begin like it.
            ("s3://scans/study-1", false),
            ("s3://scans/study-10/a.png", false),
            ("s3://scans/study-1%2fa.png", false),
            ("s3://scans/STUDY-1/a.png", false),
            ("s3://scans/a.png", false),
            ("s3://scans2/study-1/a.png", false),
            ("s3://open2/a.png", false),
        ] {
            assert_eq!(list.allows(&uri.parse().expect(uri)), expected, "{uri}");
        }
    }

    #[test]
    fn allows_nothing_where_it_is_empty_and_everything_only_where_that_is_said() {
        let uri = "s3://scans/a.png".parse().expect("valid");
        assert!(!list(&[]).allows(&uri));
        assert!(list(&["s3://*"]).allows(&uri));
    }

    #[test]
    fn an_entry_is_written_as_it_is_read() {
        for (text, written) in [
            ("s3://*", "s3://*"),
            ("s3://open", "s3://open/"),
            ("s3://open/", "s3://open/"),
            ("s3://scans/a b/ü", "s3://scans/a b/ü/"),
        ] {
            let entry: Allowed = text.parse().expect(text);
            assert_eq!(entry.to_string(), written);
            assert_eq!(written.parse::<Allowed>().expect(written), entry);
        }
    }

    #[test]
    fn refuses_what_is_no_folder() {
        for text in ["", "*", "s3://", "s3:///", "s3://*/a", "s3://s*", "scans/a", "https://scans/a", "s3://A/x", "s3://scans/\n"]
        {
            assert!(text.parse::<Allowed>().is_err(), "{text}");
        }
    }
}
