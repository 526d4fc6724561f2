//! Small valid files of every kind.

use std::{io::Cursor, iter::once};

use evaluation::{Outcome, Row, Scored, Scores, write_csv};
use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use request::Method;
use tiff::encoder::{TiffEncoder, colortype};

use crate::targets::{STORAGES, pickle};

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).expect("memory takes all");
    bytes.into_inner()
}

fn grey() -> GrayImage {
    GrayImage::from_fn(9, 7, |x, y| Luma([if x > 3 && y > 2 { 255 } else { (x * y) as u8 }]))
}

fn colours() -> RgbImage {
    RgbImage::from_fn(9, 7, |x, y| Rgb([(20 * x) as u8, (30 * y) as u8, 99]))
}

pub fn manifest() -> Vec<Vec<u8>> {
    let lines: [&str; 5] = [
        r#"{"image":"s3://scans/slide-7.png","points":[[120,80,1],[300,40,0]],"id":"slide-7"}"#,
        r#"{"image":"s3://scans/ct.nii.gz","slice":70,"window":[40,400],"objects":[{"id":"spleen","points":[[1.5,2,1]]},{"points":[[0,0,1]]}]}"#,
        r#"{"image":"s3://scans/a.png","truth":"s3://scans/b.xml","label":3,"group":"g","setting":"3/3","repeats":5,"seed":1,"methods":["initial_mask","finetuned"]}"#,
        r#"{"image":"s3://scans/a.png","truth":"s3://scans/b.png","points":[[3,4,1]],"pool":"nano","parameters":{"steps":10,"learning_rate":1e-5,"recipe":"paper"}}"#,
        r#"{"image":"s3://scans/a.png","points":[[3,4,1]],"parameters":{"choices":{"region":"near_points","normalisation":"none"}}}"#,
    ];
    let whole = [&[7], lines.join("\n").as_bytes(), b"\r\n\n\xef\xbb\xbf{}"].concat();
    lines.iter().map(|line| [b"\xff", line.as_bytes()].concat()).chain(once(whole)).collect()
}

pub fn points() -> Vec<Vec<u8>> {
    [
        "10,20.5,1; 3,4,0;",
        "[[10, 20.5, 1], [3, 4e2, 0]]",
        "s3://scans/a b/%2e+\u{fc}/../x.png",
        "3/3",
        "40, 400.5",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

pub fn png() -> Vec<Vec<u8>> {
    let deep = DynamicImage::from(grey()).into_luma16();
    let clear = DynamicImage::from(colours()).into_rgba8();
    vec![
        encoded(grey(), ImageFormat::Png),
        encoded(colours(), ImageFormat::Png),
        encoded(deep, ImageFormat::Png),
        encoded(clear, ImageFormat::Png),
    ]
}

pub fn jpeg() -> Vec<Vec<u8>> {
    vec![encoded(grey(), ImageFormat::Jpeg), encoded(colours(), ImageFormat::Jpeg)]
}

pub fn bmp() -> Vec<Vec<u8>> {
    vec![encoded(grey(), ImageFormat::Bmp), encoded(colours(), ImageFormat::Bmp)]
}

pub fn tiff() -> Vec<Vec<u8>> {
    fn written<C: colortype::ColorType>(values: &[C::Inner]) -> Vec<u8>
    where
        [C::Inner]: tiff::encoder::TiffValue,
    {
        let mut bytes = Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut bytes).expect("memory takes all");
        encoder.write_image::<C>(3, 2, values).expect("as many values as pixels");
        bytes.into_inner()
    }
    vec![
        encoded(grey(), ImageFormat::Tiff),
        encoded(colours(), ImageFormat::Tiff),
        written::<colortype::Gray16>(&[1, 2, 3, 4, 500, 60_000]),
        written::<colortype::GrayI16>(&[-1, 2, -3, 4, 500, 6_000]),
        written::<colortype::Gray32>(&[1, 2, 3, 4, 500, 60_000]),
        written::<colortype::Gray32Float>(&[1.0, 0.5, -3.0, 4.0, 500.0, 6e9]),
    ]
}

pub fn nifti() -> Vec<Vec<u8>> {
    // 348 bytes of header and 4 of no extension: type, bits, bytes; without and with an affine.
    let volume = |code: i16, bits: i16, sform: bool, big: bool| {
        let mut bytes = vec![0; 352];
        let mut put = |offset: usize, value: i16| {
            bytes[offset..offset + 2].copy_from_slice(&if big { value.to_be_bytes() } else { value.to_le_bytes() });
        };
        put(if big { 2 } else { 0 }, 348);
        for (offset, value) in [(40, 3), (42, 3), (44, 2), (46, 2), (48, 1), (70, code), (72, bits), (254, i16::from(sform))] {
            put(offset, value);
        }
        let mut put = |offset: usize, value: f32| {
            bytes[offset..offset + 4].copy_from_slice(&if big { value.to_be_bytes() } else { value.to_le_bytes() });
        };
        for (offset, value) in [(108, 352.0), (112, 2.0), (116, -1.0), (284, 0.9), (296, -0.9), (320, 2.5)] {
            put(offset, value);
        }
        bytes[344..348].copy_from_slice(b"n+1\0");
        bytes.extend((0..12 * bits as usize / 8).map(|index| index as u8));
        bytes
    };
    let plain = [(2, 8, false, false), (4, 16, true, false), (16, 32, true, true), (64, 64, false, true)]
        .map(|(code, bits, sform, big)| volume(code, bits, sform, big));
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, &plain[1]).expect("memory takes all");
    plain.into_iter().chain(encoder.finish()).collect()
}

pub fn dicom() -> Vec<Vec<u8>> {
    let grey: Vec<u8> = [-1_000_i16, 0, 1_000, 5, 6, 7].iter().flat_map(|value| value.to_le_bytes()).collect();
    let own = [
        element(0x28, 0x1050, b"DS", b"40\\700"),
        element(0x28, 0x1051, b"DS", b"800\\10"),
        element(0x28, 0x1052, b"DS", b"-1024"),
        element(0x28, 0x1053, b"DS", b"2"),
    ]
    .concat();
    // Ten segments at most; the header's 64 bytes, then each byte of the 16-bit values for itself.
    let segments: [&[u8]; 2] = [&[5, 0, 1, 2, 3, 4, 5], &[254, 9, 254, 8]];
    let offsets = [2_u32, 64, 64 + 8].into_iter().flat_map(u32::to_le_bytes);
    let mut rle: Vec<u8> = offsets.chain([0; 52]).chain(segments[0].iter().copied()).chain([0]).collect();
    rle.extend(segments[1]);
    let jpeg = encoded(self::grey(), ImageFormat::Jpeg);
    let jpeg_in_colour = encoded(colours(), ImageFormat::Jpeg);
    vec![
        file("1.2.840.10008.1.2.1", &pixels(b"MONOCHROME2", 1, 3, 2, 16, &own, &value(b"OW", &grey))),
        file("1.2.840.10008.1.2.1", &pixels(b"MONOCHROME1", 1, 3, 4, 8, &[], &value(b"OB", &grey))),
        file("1.2.840.10008.1.2.1", &pixels(b"RGB", 3, 2, 2, 8, &[], &value(b"OB", &grey))),
        file("1.2.840.10008.1.2", &implicit(&grey)),
        file("1.2.840.10008.1.2.5", &pixels(b"MONOCHROME2", 1, 3, 2, 16, &[], &frame(&rle))),
        file("1.2.840.10008.1.2.4.50", &pixels(b"MONOCHROME2", 1, 9, 7, 8, &[], &frame(&jpeg))),
        file("1.2.840.10008.1.2.4.50", &pixels(b"YBR_FULL_422", 3, 9, 7, 8, &[], &frame(&jpeg_in_colour))),
        file("1.2.840.10008.1.2.4.70", &pixels(b"MONOCHROME2", 1, 9, 7, 8, &[], &frame(LOSSLESS))),
        file("1.2.840.10008.1.2.4.90", &pixels(b"MONOCHROME2", 1, 9, 7, 8, &[], &frame(JPEG_2000))),
    ]
}

/// Of a ramp, 9 x 7, as imagecodecs writes it: JPEG's lossless process 14, and JPEG 2000's bare codestream.
const LOSSLESS: &[u8] = include_bytes!("frames/lossless.jpg");
const JPEG_2000: &[u8] = include_bytes!("frames/codestream.j2k");

fn element(group: u16, number: u16, kind: &[u8], content: &[u8]) -> Vec<u8> {
    let padding = &b" "[..content.len() % 2];
    let length = (content.len() + padding.len()) as u16;
    [&group.to_le_bytes(), &number.to_le_bytes(), kind, &length.to_le_bytes(), content, padding].concat()
}

/// Pixels that are not compressed, without the tag.
fn value(kind: &[u8], content: &[u8]) -> Vec<u8> {
    [kind, &[0, 0], &(content.len() as u32).to_le_bytes(), content].concat()
}

/// A compressed frame: an empty table of offsets, the frame, the end.
fn frame(content: &[u8]) -> Vec<u8> {
    let padding = &b"\0"[..content.len() % 2];
    let length = ((content.len() + padding.len()) as u32).to_le_bytes();
    let item = &b"\xfe\xff\x00\xe0"[..];
    [b"OB\0\0\xff\xff\xff\xff", item, &[0; 4], item, &length, content, padding, b"\xfe\xff\xdd\xe0\0\0\0\0"].concat()
}

fn pixels(photometric: &[u8], samples: u16, width: u16, height: u16, bits: u16, further: &[u8], value: &[u8]) -> Vec<u8> {
    let number = |number: u16, value: u16| element(0x28, number, b"US", &value.to_le_bytes());
    let facts = [(0x10, height), (0x11, width), (0x100, bits), (0x101, bits), (0x102, bits - 1), (0x103, u16::from(bits == 16))];
    [
        element(0x10, 0x10, b"PN", b"Doe^Jane"),
        number(2, samples),
        element(0x28, 4, b"CS", photometric),
        if samples == 3 { number(6, 0) } else { Vec::new() },
        facts.map(|(place, value)| number(place, value)).concat(),
        further.to_vec(),
        [&b"\xe0\x7f\x10\x00"[..], value].concat(),
    ]
    .concat()
}

/// Without types, and with lengths of four bytes.
fn implicit(grey: &[u8]) -> Vec<u8> {
    let element = |group: u16, number: u16, content: &[u8]| {
        [&group.to_le_bytes(), &number.to_le_bytes(), &(content.len() as u32).to_le_bytes()[..], content].concat()
    };
    let facts = [(2, 1), (0x10, 2), (0x11, 3), (0x100, 16), (0x101, 16), (0x102, 15), (0x103, 1_u16)];
    let mut facts: Vec<(u16, Vec<u8>)> = facts.map(|(number, value)| (number, value.to_le_bytes().to_vec())).into();
    facts.insert(1, (4, b"MONOCHROME2 ".to_vec()));
    let facts: Vec<u8> = facts.iter().flat_map(|(number, content)| element(0x28, *number, content)).collect();
    [facts, element(0x7fe0, 0x10, grey)].concat()
}

fn file(transfer_syntax: &str, elements: &[u8]) -> Vec<u8> {
    let uid = |number: u16, text: &str| {
        let zero = if text.len() % 2 == 1 { "\0" } else { "" };
        element(2, number, b"UI", format!("{text}{zero}").as_bytes())
    };
    let meta = [
        b"\x02\0\x01\0OB\0\0\x02\0\0\0\0\x01".to_vec(),
        uid(2, "1.2.840.10008.5.1.4.1.1.7"),
        uid(3, "1.2.3"),
        uid(0x10, transfer_syntax),
        uid(0x12, "1.2.3.4"),
    ]
    .concat();
    [&[0; 128][..], b"DICM", &element(2, 0, b"UL", &(meta.len() as u32).to_le_bytes()), &meta, elements].concat()
}

pub fn outlines() -> Vec<Vec<u8>> {
    let vertices = r#"<Vertex X="1" Y="1.5" Z="0"/><Vertex X="40" Y="1"/><Vertex X="9" Y="30.25"/>"#;
    let region = format!("<Region Id=\"1\"><Vertices>{vertices}</Vertices></Region>");
    let text = format!(
        "<?xml version=\"1.0\"?>\n<Annotations MicronsPerPixel=\"0.25\"><Annotation Id=\"1\"><Regions>{region}{region}</Regions></Annotation></Annotations>"
    );
    let entities =
        text.replace("<Annotations ", "<!DOCTYPE a [<!ENTITY x '&#49;2'><!ENTITY y '&x;&x;'>]>\n<Annotations Name=\"&y;\" ");
    vec![text.into_bytes(), entities.into_bytes()]
}

pub fn pth() -> Vec<Vec<u8>> {
    vec![
        STORAGES.to_vec(),
        pickle(),
        b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01.".to_vec(),
        b"\x80\x02}q\x00(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00bN\x88\x89u.".to_vec(),
    ]
}

pub fn safetensors() -> Vec<Vec<u8>> {
    let file =
        |header: &str, bytes: usize| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; bytes]].concat();
    vec![
        file(
            r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"F16","shape":[2],"data_offsets":[24,28]}}"#,
            28,
        ),
        file(r#"{"__metadata__":{"format":"pt"},"c":{"dtype":"BF16","shape":[1,1,4],"data_offsets":[0,8]}}"#, 8),
        file(r#"{"vision_encoder.patch_embed.projection.bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 4),
        file("{}", 0),
    ]
}

/// A delivery with properties, a nested table of headers as a dead-lettered message has it, and a heartbeat, as the server sends them.
pub fn messages() -> Vec<Vec<u8>> {
    let frame = |kind: u8, channel: u16, payload: &[u8]| {
        [&[kind][..], &channel.to_be_bytes(), &(payload.len() as u32).to_be_bytes(), payload, &[0xce]].concat()
    };
    let short = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let long = |content: Vec<u8>| [(content.len() as u32).to_be_bytes().to_vec(), content].concat();
    let inner = long(
        [short("reason"), b"S".to_vec(), long(b"expired".to_vec()), short("time"), b"T\0\0\0\0\0\0\0\x01".to_vec()].concat(),
    );
    let array = long([b"F".to_vec(), inner, b"d".to_vec(), 0.5_f64.to_be_bytes().to_vec()].concat());
    let headers = long([short("x-death"), b"A".to_vec(), array].concat());
    let deliver =
        [b"\0\x3c\0\x3c".to_vec(), short("tag"), 7_u64.to_be_bytes().to_vec(), vec![1], short(""), short("dotmask.nano")];
    // The flags of content type, headers and delivery mode.
    let header = [b"\0\x3c\0\0\0\0\0\0\0\0\0\x04\xb0\0".to_vec(), short("text/plain"), headers, vec![2]];
    let each = [frame(1, 1, &deliver.concat()), frame(2, 1, &header.concat()), frame(3, 1, b"work"), frame(8, 0, b"")];
    let together = each.concat();
    each.into_iter().chain(once(together)).collect()
}

pub fn results() -> Vec<Vec<u8>> {
    let row = |method, outcome| Row {
        case: "a".into(),
        group: "cells, \"HE\"".into(),
        setting: "3/3".parse().expect("it is one"),
        repeat: 0,
        method,
        outcome,
    };
    let overlap = Scores { dice: 0.5, iou: 1.0 / 3.0 };
    let scored = Scored {
        scores: overlap,
        published: Some(overlap),
        iou_with_initial: 0.5,
        agreement: 1.0,
        confidence: 0.1,
        best_step: 7,
        seconds: 1.25,
    };
    let rows = [row(Method::Finetuned, Outcome::Scored(scored)), row(Method::InitialMask, Outcome::Skipped("3 tokens".into()))];
    let mut csv = Vec::new();
    write_csv(&rows, &mut csv).expect("memory takes all");
    let entry = serde_json::json!({"row": rows[0]});
    let steps = r#"{"repeat":0,"setting":"1/1","losses":[1.5,1.0],"ious":[0.5,0.9],"truth_ious":[0.25,0.75]}"#;
    let figures = r#"{"losses":[1.5],"ious":[0.5],"best_step":1,"iou":0.5,"agreement":1.0,"confidence":0.9,"warnings":["w"]}"#;
    vec![
        csv,
        format!("{{\"files\":{{\"image\":\"ab\",\"truth\":\"cd\"}}}}\n{entry}\n{{\"problem\":\"it is away\"}}\n").into_bytes(),
        format!("{steps}\n").into_bytes(),
        format!("{{\"version\":\"0.1.0\",\"objects\":[{figures},{figures}]}}").into_bytes(),
    ]
}
