mod checkpoints;
mod images;
mod messages;
mod requests;
mod results;

pub use checkpoints::{STORAGES, pickle};

use crate::{Target, seeds};

pub const ALL: [Target; 13] = [
    Target { name: "manifest", read: requests::manifest, most_held: requests::manifest_limit, seeds: seeds::manifest },
    Target { name: "points", read: requests::points, most_held: requests::points_limit, seeds: seeds::points },
    Target { name: "png", read: images::picture, most_held: images::limit, seeds: seeds::png },
    Target { name: "jpeg", read: images::picture, most_held: images::limit, seeds: seeds::jpeg },
    Target { name: "tiff", read: images::picture, most_held: images::limit, seeds: seeds::tiff },
    Target { name: "bmp", read: images::picture, most_held: images::limit, seeds: seeds::bmp },
    Target { name: "nifti", read: images::picture, most_held: images::limit, seeds: seeds::nifti },
    Target { name: "dicom", read: images::picture, most_held: images::limit, seeds: seeds::dicom },
    Target { name: "outlines", read: images::outlines, most_held: images::outlines_limit, seeds: seeds::outlines },
    Target { name: "pth", read: checkpoints::pth, most_held: checkpoints::limit, seeds: seeds::pth },
    Target { name: "safetensors", read: checkpoints::file, most_held: checkpoints::limit, seeds: seeds::safetensors },
    Target { name: "messages", read: messages::frames, most_held: messages::limit, seeds: seeds::messages },
    Target { name: "results", read: results::read, most_held: results::limit, seeds: seeds::results },
];
