use std::io;

use aws_sdk_s3::{
    config::{Builder, ResponseChecksumValidation},
    operation::get_object::GetObjectOutput,
    primitives::ByteStream,
};
use request::S3Uri;
use sha2::{Digest as _, Sha256};
use tokio::{
    fs::File,
    io::{AsyncSeekExt as _, AsyncWriteExt as _},
};

use crate::{
    Objects, ObjectsError,
    client::{ATTEMPTS, not_read_within, too_large},
    errors::describe,
};

/// A file that an object is read into piece by piece, for objects too large for memory; its SHA-256 is taken on the way. What is there
/// when the store breaks off is not read again.
pub struct Download {
    file: File,
    sha256: Sha256,
    bytes: u64,
    /// Tells whether what follows is of the same content as what is there.
    etag: Option<String>,
}

/// Why an object is not in its file.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The store did not give it.
    #[error(transparent)]
    Store(#[from] ObjectsError),
    /// The file did not take it.
    #[error("cannot write the file: {0}")]
    File(#[from] io::Error),
}

impl Download {
    /// Into an empty file.
    pub fn new(file: File) -> Self {
        Self { file, sha256: Sha256::new(), bytes: 0, etag: None }
    }

    /// Has the system write the file to its disk; the file's SHA-256 in lower-case hexadecimal.
    pub async fn finish(mut self) -> io::Result<String> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        Ok(hex::encode(self.sha256.finalize()))
    }

    async fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.sha256.update(piece);
        self.file.write_all(piece).await?;
        self.bytes += piece.len() as u64;
        Ok(())
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.set_len(0).await?;
        self.file.rewind().await?;
        (self.sha256, self.bytes, self.etag) = (Sha256::new(), 0, None);
        Ok(())
    }
}

impl Objects {
    /// Reads an object of at most `limit_bytes` bytes. After a transient error the next call with the same `download` goes on where this
    /// one ended. `on_progress` is told how many bytes are there, and how many there will be if the store says so.
    pub async fn download(
        &self,
        uri: &S3Uri,
        download: &mut Download,
        limit_bytes: u64,
        on_progress: &mut (dyn FnMut(u64, Option<u64>) + Send),
    ) -> Result<(), DownloadError> {
        let (mut attempt, mut furthest) = (1, download.bytes);
        loop {
            let (body, whole) = self.continued(uri, download, limit_bytes).await?;
            match self.pour(uri, body, download, limit_bytes, &mut |bytes| on_progress(bytes, whole)).await {
                // An object that is replaced all the time gets nowhere, however many bytes it gives.
                Err(DownloadError::Store(error)) if error.is_transient() && download.bytes > furthest => {
                    (attempt, furthest) = (1, download.bytes);
                }
                Err(DownloadError::Store(error)) if error.is_transient() && attempt < ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    /// What is missing of the object, and the length of the whole. Where the store can give the whole only, or another one by now,
    /// `download` begins anew.
    async fn continued(
        &self,
        uri: &S3Uri,
        download: &mut Download,
        limit_bytes: u64,
    ) -> Result<(ByteStream, Option<u64>), DownloadError> {
        if download.bytes > 0 {
            let range = format!("bytes={}-", download.bytes);
            let answer = self.ask(uri, Some(&range)).await;
            match answer {
                Ok(part) if part.content_range.as_deref().is_some_and(|range| begins_at(range, download.bytes)) => {
                    let whole = length(&part).map(|length| length + download.bytes);
                    if part.e_tag == download.etag && download.etag.is_some() {
                        return Ok((part.body, whole));
                    }
                }
                // No such range: it is shorter by now.
                Ok(_) | Err(ObjectsError::Refused { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            download.restart().await?;
        }
        let whole = self.ask(uri, None).await?;
        let announced = length(&whole);
        if announced.is_some_and(|length| length > limit_bytes) {
            return Err(too_large(uri, limit_bytes).into());
        }
        download.etag = whole.e_tag;
        Ok((whole.body, announced))
    }

    async fn ask(&self, uri: &S3Uri, range: Option<&str>) -> Result<GetObjectOutput, ObjectsError> {
        let request = self.client.get_object().bucket(uri.bucket()).key(uri.key()).set_range(range.map(Into::into));
        // The checksum of the whole would be compared with a part.
        let plain = Builder::new().response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        request.customize().config_override(plain).send().await.map_err(|error| ObjectsError::object(uri, error))
    }

    async fn pour(
        &self,
        uri: &S3Uri,
        mut body: ByteStream,
        download: &mut Download,
        limit_bytes: u64,
        on_progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), DownloadError> {
        let silence = self.read_timeout;
        while let Some(piece) = tokio::time::timeout(silence, body.next()).await.map_err(|_| not_read_within(uri, silence))? {
            let piece = piece.map_err(|error| ObjectsError::Unavailable { place: uri.to_string(), reason: describe(&error) })?;
            if download.bytes + piece.len() as u64 > limit_bytes {
                return Err(too_large(uri, limit_bytes).into());
            }
            download.write(&piece).await?;
            on_progress(download.bytes);
        }
        Ok(download.file.flush().await?)
    }
}

fn length(object: &GetObjectOutput) -> Option<u64> {
    object.content_length.and_then(|length| length.try_into().ok())
}

/// Of a Content-Range such as `bytes 5-9/10`.
fn begins_at(range: &str, offset: u64) -> bool {
    range.strip_prefix("bytes ").and_then(|range| range.split('-').next()).is_some_and(|first| first.parse() == Ok(offset))
}
