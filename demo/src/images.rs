use anyhow::Context;
use request::{Object, Parameters, Points, S3Uri, SegmentationRequest, Task, View};
use serde::Deserialize;

/// An image that a Python package ships, and dots placed on it by hand.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DemoImage {
    /// What the demo calls it, also in file names.
    pub name: String,
    /// What the dots mean, for the caption.
    pub shows: String,
    /// The package with its version, as pip takes it.
    pub package: String,
    /// The file within the package's wheel.
    pub path: String,
    /// SHA-256 of the file, in lower-case hexadecimal.
    pub sha256: String,
    /// In pixels of the file.
    pub points: Points,
}

impl DemoImage {
    /// The file's own name.
    pub fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Where the demo puts it in the object store.
    pub fn uri(&self, bucket: &str) -> anyhow::Result<S3Uri> {
        Ok(S3Uri::new(bucket, self.file_name())?)
    }
}

/// The images of demo/images.json.
pub fn demo_images() -> anyhow::Result<Vec<DemoImage>> {
    serde_json::from_str(include_str!("../images.json")).context("demo/images.json is not a list of images")
}

/// One JSON object a line, as `dispatcher submit` takes them.
pub fn manifest(images: &[DemoImage], bucket: &str) -> anyhow::Result<String> {
    let mut manifest = String::new();
    for image in images {
        let request = SegmentationRequest {
            image: image.uri(bucket)?,
            image_sha256: None,
            view: View::default(),
            task: Task::Segment(vec![Object { id: None, points: image.points.clone() }]),
            id: Some(image.name.clone()),
            pool: None,
            parameters: Parameters::default(),
        };
        manifest.push_str(&serde_json::to_string(&request)?);
        manifest.push('\n');
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use request::Label;

    use super::*;

    #[test]
    fn every_image_has_three_to_six_dots_of_each_kind_and_a_name_of_its_own() {
        let images = demo_images().unwrap();
        assert!(images.len() >= 6);
        for image in &images {
            for label in [Label::Positive, Label::Negative] {
                assert!((3..=6).contains(&image.points.of(label).count()), "{}: {label:?}", image.name);
            }
            assert_eq!(image.sha256.len(), 64, "{}", image.name);
        }
        let distinct = |of: fn(&DemoImage) -> &str| images.iter().map(of).collect::<HashSet<_>>().len();
        assert_eq!((distinct(|image| &image.name), distinct(DemoImage::file_name)), (images.len(), images.len()));
    }

    #[test]
    fn the_manifest_is_one_the_dispatcher_takes() {
        let images = demo_images().unwrap();
        let manifest = manifest(&images, "images").unwrap();
        let requests: Vec<_> =
            manifest.lines().map(|line| SegmentationRequest::from_line(line.as_bytes()).expect("valid")).collect();
        assert_eq!(requests.len(), images.len());
        assert_eq!(requests[0].image.to_string(), format!("s3://images/{}", images[0].file_name()));
        assert_eq!(requests[0].task, Task::Segment(vec![Object { id: None, points: images[0].points.clone() }]));
    }
}
