//! Of a DICOM or NIfTI file the pixels and their geometry are read. What it says of the patient is kept and told nowhere.

use ledger::JobState;
use tests::{Collector, POOL, QuickWorker, System, Written};

/// In the file, and to be found nowhere else.
const MARKS: [&str; 11] = [
    "Quimby",
    "PID-77310",
    "19331122",
    "Klinikum-Neverland",
    "PRIVATE-4711",
    "NESTED-0815",
    "WINDOW-NOTE",
    "ROWS-NOTE",
    "DESCRIPTION-99",
    "DBNAME-55",
    "AUXFILE-33",
];
const SIDE: u16 = 48;

type Element = (u16, u16, &'static str, Vec<u8>);

/// Explicit VR, little endian.
fn element(&(group, number, kind, ref value): &Element) -> Vec<u8> {
    let mut value = value.clone();
    if value.len() % 2 == 1 {
        value.push(if kind == "UI" { 0 } else { b' ' });
    }
    let length = value.len();
    let head = [&group.to_le_bytes()[..], &number.to_le_bytes(), kind.as_bytes()].concat();
    let length = if matches!(kind, "OB" | "OW" | "SQ") {
        [&[0, 0][..], &(length as u32).to_le_bytes()].concat()
    } else {
        (length as u16).to_le_bytes().to_vec()
    };
    [head, length, value].concat()
}

/// One item of a sequence.
fn item(elements: &[Element]) -> Vec<u8> {
    let content: Vec<u8> = elements.iter().flat_map(element).collect();
    [&[0xfe, 0xff, 0x00, 0xe0][..], &(content.len() as u32).to_le_bytes(), &content].concat()
}

/// A bright disc on dark ground, in a file that says much of its patient.
fn dicom(change: impl FnOnce(&mut Vec<Element>)) -> Vec<u8> {
    let number = |value: u16| value.to_le_bytes().to_vec();
    let pixel = |at: u16| {
        let (x, y) = (f64::from(at % SIDE) - 24.0, f64::from(at / SIDE) - 24.0);
        if x.hypot(y) < 12.0 { 900_u16 + at % 23 } else { 100 + at % 17 }
    };
    let nested = item(&[(0x10, 0x20, "LO", b"NESTED-0815".to_vec()), (0x10, 0x22, "CS", b"TEXT".to_vec())]);
    let deeper = item(&[(0x10, 0x1002, "SQ", nested.clone())]);
    let mut elements: Vec<Element> = vec![
        (0x08, 0x80, "LO", b"Klinikum-Neverland".to_vec()),
        (0x08, 0x1110, "SQ", deeper),
        (0x09, 0x10, "LO", b"PRIVATE-4711".to_vec()),
        (0x09, 0x1001, "LO", b"PRIVATE-4711 said Quimby".to_vec()),
        (0x10, 0x10, "PN", b"Quimby^Mary".to_vec()),
        (0x10, 0x20, "LO", b"PID-77310".to_vec()),
        (0x10, 0x30, "DA", b"19331122".to_vec()),
        (0x10, 0x1002, "SQ", nested),
        (0x28, 0x02, "US", number(1)),
        (0x28, 0x04, "CS", b"MONOCHROME2".to_vec()),
        (0x28, 0x10, "US", number(SIDE)),
        (0x28, 0x11, "US", number(SIDE)),
        (0x28, 0x100, "US", number(16)),
        (0x28, 0x101, "US", number(16)),
        (0x28, 0x102, "US", number(15)),
        (0x28, 0x103, "US", number(0)),
        (0x7fe0, 0x10, "OW", (0..SIDE * SIDE).flat_map(|at| pixel(at).to_le_bytes()).collect()),
    ];
    change(&mut elements);
    elements.sort_by_key(|&(group, number, ..)| (group, number));
    let meta: Vec<u8> = [
        (2, 1, "OB", vec![0, 1]),
        (2, 2, "UI", b"1.2.840.10008.5.1.4.1.1.7".to_vec()),
        (2, 3, "UI", b"1.2.3".to_vec()),
        (2, 0x10, "UI", b"1.2.840.10008.1.2.1".to_vec()),
        (2, 0x12, "UI", b"1.2.3.4".to_vec()),
    ]
    .iter()
    .flat_map(element)
    .collect();
    let length = element(&(2, 0, "UL", (meta.len() as u32).to_le_bytes().to_vec()));
    [vec![0; 128], b"DICM".to_vec(), length, meta, elements.iter().flat_map(element).collect()].concat()
}

/// The same element with another value.
fn with(group: u16, number: u16, kind: &'static str, value: &[u8]) -> Vec<u8> {
    dicom(|elements| {
        elements.retain(|element| (element.0, element.1) != (group, number));
        elements.push((group, number, kind, value.to_vec()));
    })
}

/// A volume of one slice of bytes, whose header says more than it should.
fn nifti() -> Vec<u8> {
    let mut bytes = vec![0; 352];
    bytes[..4].copy_from_slice(&348_i32.to_le_bytes());
    for (at, value) in [(40, 3), (42, SIDE as i16), (44, SIDE as i16), (46, 1), (70, 2), (72, 8)] {
        bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    bytes[108..112].copy_from_slice(&352_f32.to_le_bytes());
    bytes[344..348].copy_from_slice(b"n+1\0");
    for (at, text) in [(14, "DBNAME-55"), (148, "DESCRIPTION-99 of Quimby"), (228, "AUXFILE-33"), (328, "PID-77310")] {
        bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    bytes.extend((0..SIDE * SIDE).map(|at| if (at % SIDE).abs_diff(24) < 9 { 200 } else { at as u8 % 40 }));
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_file_says_of_its_patient_is_kept_and_told_nowhere() -> anyhow::Result<()> {
    let mut system = System::start().await?;
    let collector = Collector::start().await?;
    system.set("DOTMASK_LOG", "trace");
    system.set("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint());
    let dispatcher = system.start_dispatcher().await?;
    let worker = QuickWorker::start(&system, &[])?;

    let (whole, volume) = (dicom(|_| {}), nifti());
    let after_the_name = whole.windows(6).position(|bytes| bytes == b"Quimby").expect("it is there") + 3;
    let mut endless = whole.clone();
    let private = endless.windows(12).position(|bytes| bytes == b"PRIVATE-4711").expect("it is there");
    endless[private - 2..private].copy_from_slice(&u16::MAX.to_le_bytes());
    let files = [
        ("whole.dcm", whole.clone(), JobState::Succeeded),
        ("whole.nii", volume.clone(), JobState::Succeeded),
        ("pixels-cut.dcm", whole[..whole.len() - 100].to_vec(), JobState::Failed),
        ("tags-cut.dcm", whole[..after_the_name].to_vec(), JobState::Failed),
        ("endless.dcm", endless, JobState::Failed),
        ("photometric.dcm", with(0x28, 0x04, "CS", b"Quimby^Mary"), JobState::Failed),
        ("rows.dcm", with(0x28, 0x10, "LO", b"ROWS-NOTE"), JobState::Failed),
        ("window.dcm", with(0x28, 0x1050, "DS", b"WINDOW-NOTE"), JobState::Succeeded),
        ("slope.dcm", with(0x28, 0x1053, "DS", b"WINDOW-NOTE"), JobState::Succeeded),
        ("frames.dcm", with(0x28, 0x08, "IS", b"ROWS-NOTE"), JobState::Failed),
        ("cut.nii", volume[..volume.len() - 100].to_vec(), JobState::Failed),
    ];
    let mut lines = Vec::new();
    for (key, bytes, _) in &files {
        system.put_image(&format!("in/{key}"), bytes)?;
        let slice = if key.strip_suffix(".nii").is_some() { r#""slice": 0, "# } else { "" };
        lines.push(format!(
            r#"{{"image": "s3://scans/in/{key}", {slice}"points": [[24, 24, 1], [4, 4, 0]], "pool": "{POOL}", "parameters": {{"steps": 3}}}}"#
        ));
    }
    let batch = system.submit(&lines).await?;
    system.wait_until_done(batch).await?;
    let jobs = system.jobs(batch).await?;
    for (job, (key, _, expected)) in jobs.iter().zip(&files) {
        assert_eq!(job.state, *expected, "{key}: {:?}", job.error);
    }

    system.until("spans were exported", async || Ok(collector.spans().iter().any(|span| span.name == "finalise"))).await?;
    let mut written = Written::of(&system, "scans/masks", &collector, &worker).await?;
    let watched = system.watch_output(batch).await?;
    written.add("watch", &[watched.stdout, watched.stderr].concat());
    worker.program.stop().await?;
    dispatcher.stop().await?;
    written.add("the logs at the end", system.logs().as_bytes());
    for (place, text) in [
        ("Postgres", "whole.dcm"),
        ("receipt.json", "dicom"),
        ("receipt.json", "nifti"),
        ("overlay.png", "IHDR"),
        ("the logs", "decode"),
    ] {
        assert!(written.has(place, text), "{place} hold no {text:?}");
    }
    written.assert_without(&MARKS);
    Ok(())
}
