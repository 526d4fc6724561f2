use std::{fs, path::Path};

use crate::{Collector, QuickWorker, System};

/// All that programs have written, by place: their logs, every row of Postgres, the objects in the store whose keys begin with a prefix,
/// spans and metrics.
pub struct Written(Vec<(String, String)>);

impl Written {
    /// What is there now.
    pub async fn of(system: &System, prefix: &str, collector: &Collector, worker: &QuickWorker) -> anyhow::Result<Self> {
        let mut places = vec![
            ("the logs".to_owned(), system.logs()),
            ("Postgres".to_owned(), system.value("SELECT database_to_xml(true, true, '')::text").await?),
            ("the spans".to_owned(), format!("{:?}", collector.spans())),
            ("the worker's metrics".to_owned(), worker.get("/metrics").await?),
            ("the worker's state".to_owned(), worker.get("/readyz").await?),
        ];
        // reqwest is built without a TLS provider of its own; one that is installed already will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        for path in ["/metrics", "/readyz"] {
            let answer = reqwest::get(format!("http://{}{path}", system.dispatcher_metrics_address())).await?;
            places.push((format!("the dispatcher's {path}"), answer.text().await?));
        }
        add_files(&system.stack.objects.dir().join(prefix), &mut places)?;
        Ok(Self(places))
    }

    /// What a program printed.
    pub fn add(&mut self, place: &str, bytes: &[u8]) {
        self.0.push((place.into(), String::from_utf8_lossy(bytes).into_owned()));
    }

    /// Whether a place whose name has `place` in it has this text: looking for secrets where nothing is finds none.
    pub fn has(&self, place: &str, text: &str) -> bool {
        self.0.iter().any(|(name, written)| name.contains(place) && written.contains(text))
    }

    /// # Panics
    /// Where one of these is in any of it, in a form that can be read back.
    pub fn assert_without(&self, secrets: &[&str]) {
        for secret in secrets {
            for form in forms(secret) {
                for (place, written) in &self.0 {
                    if let Some(at) = written.find(&form) {
                        let line = written[..at].rfind('\n').map_or(0, |end| end + 1);
                        let from = written.floor_char_boundary(line.max(at.saturating_sub(300)));
                        let to = written.ceil_char_boundary((at + form.len() + 100).min(written.len()));
                        panic!("{place} hold {secret:?} as {form:?}: {}", &written[from..to]);
                    }
                }
            }
        }
    }
}

fn add_files(folder: &Path, places: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            add_files(&path, places)?;
        } else {
            places.push((path.display().to_string(), String::from_utf8_lossy(&fs::read(&path)?).into_owned()));
        }
    }
    Ok(())
}

/// As it is, in hexadecimal, in Base64 wherever it begins in what was encoded, and as Rust shows bytes.
fn forms(secret: &str) -> Vec<String> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes = secret.as_bytes();
    let base64 = |shift: usize| {
        // Whole groups of three bytes: their four digits do not depend on what is around.
        let groups = bytes[(3 - shift) % 3..].chunks_exact(3).map(|group| {
            let bits = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
            [18, 12, 6, 0].map(|by| char::from(DIGITS[(bits >> by & 63) as usize]))
        });
        groups.flatten().collect::<String>()
    };
    let decimal: Vec<String> = bytes.iter().map(ToString::to_string).collect();
    let mut forms = vec![secret.to_owned(), hex::encode(secret), decimal.join(", ")];
    // Fewer would be found by chance.
    forms.extend([0, 1, 2].map(base64).into_iter().filter(|digits| digits.len() >= 8));
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_secret_in_every_form() {
        let with = |text: &str| Written(vec![("here".into(), text.into())]);
        let is_found = |text: &str| {
            let written = with(text);
            std::panic::catch_unwind(|| written.assert_without(&["hunter2-of-ours"])).is_err()
        };
        for text in [
            "the password hunter2-of-ours is",
            "68756e746572322d6f662d6f757273",
            "[0, 104, 117, 110, 116, 101, 114, 50, 45, 111, 102, 45, 111, 117, 114, 115]",
            // base64 of u:hunter2-of-ours, us:hunter2-of-ours and usr:hunter2-of-ours
            "dTpodW50ZXIyLW9mLW91cnM=",
            "dXM6aHVudGVyMi1vZi1vdXJz",
            "dXNyOmh1bnRlcjItb2Ytb3Vycw==",
        ] {
            assert!(is_found(text), "{text}");
        }
        assert!(!is_found("hunter2"));
    }
}
