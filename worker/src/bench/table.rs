//! The figures for people.

use std::io::{self, Write};

use super::figures::{Figures, Flops, ImageFigures, Memory, Part, PartTime};

const GIB: f64 = (1_u64 << 30) as f64;

/// Writes tables.
pub fn write(figures: &Figures, out: &mut impl Write) -> io::Result<()> {
    let Figures { checkpoint, device, activations, threads, image, points, step, beside, warm_up, .. } = figures;
    let objects = points.len();
    let dots = points.iter().map(|points| points.as_slice().len()).max().unwrap_or_default();
    let plural = if objects == 1 { "" } else { "s" };
    writeln!(
        out,
        "{checkpoint} on {device}, {threads} threads, activations {activations}; {} x {} pixels, {objects} object{plural} of {dots} dots",
        image.width, image.height
    )?;

    writeln!(out, "\n{:<24} {:>10} {:>12} {:>8}", "a step", "seconds", "CPU seconds", "share")?;
    for part in &step.parts {
        row(out, part, step.mean.seconds)?;
    }
    writeln!(out, "{:<24} {:>10.4} {:>12.4}", "  all", step.mean.seconds, step.mean.cpu_seconds)?;
    writeln!(
        out,
        "  the mean of {} after {warm_up} to warm up, from {:.4} to {:.4} seconds",
        step.measured, step.least_seconds, step.most_seconds
    )?;

    let &ImageFigures { steps, time, images_an_hour } = &figures.image_of_100_steps;
    writeln!(out, "\n{:<24} {:>10} {:>12} {:>8}", format!("an image of {steps} steps"), "seconds", "CPU seconds", "share")?;
    for part in beside {
        row(out, part, time.seconds)?;
    }
    let all_beside: super::clock::Time = beside.iter().map(|part| part.time).sum();
    let in_steps = time + all_beside.times(-1.0);
    let share = 100.0 * in_steps.seconds / time.seconds;
    writeln!(out, "{:<24} {:>10.4} {:>12.4} {share:>6.2} %", "  the steps", in_steps.seconds, in_steps.cpu_seconds)?;
    writeln!(out, "{:<24} {:>10.4} {:>12.4}", "  all", time.seconds, time.cpu_seconds)?;
    writeln!(out, "  {images_an_hour:.1} images an hour, one after the other")?;

    let &Flops { step: of_step, rate, matrix_product_rates: [before, after], share } = &figures.flops;
    writeln!(
        out,
        "\narithmetic    {:.4} TFLOP a step; {:.1} GFLOP/s, which is {:.0} % of a matrix product's {:.1} (before: {:.1}, after: {:.1})",
        of_step / 1e12,
        rate / 1e9,
        100.0 * share,
        before.max(after) / 1e9,
        before / 1e9,
        after / 1e9
    )?;
    let &Memory { loaded_rss_bytes, peak_rss_bytes, peak_includes_loading, cuda } = &figures.memory;
    let note = if peak_includes_loading { ", loading included" } else { "" };
    writeln!(
        out,
        "memory        {:.2} GiB resident at most{note}; {:.2} GiB when the model was loaded",
        peak_rss_bytes as f64 / GIB,
        loaded_rss_bytes as f64 / GIB
    )?;
    match cuda {
        Some(cuda) => writeln!(
            out,
            "GPU memory    {:.2} GiB in tensors at most, {:.2} GiB reserved",
            cuda.allocated_bytes as f64 / GIB,
            cuda.reserved_bytes as f64 / GIB
        ),
        None => Ok(()),
    }
}

fn row(out: &mut impl Write, part: &PartTime, all_seconds: f64) -> io::Result<()> {
    let share = 100.0 * part.time.seconds / all_seconds;
    writeln!(
        out,
        "{:<24} {:>10.4} {:>12.4} {share:>6.2} %",
        format!("  {}", name(part.part)),
        part.time.seconds,
        part.time.cpu_seconds
    )
}

fn name(part: Part) -> &'static str {
    match part {
        Part::DecodeFile => "decode the file",
        Part::Restore => "restore the weights",
        Part::Preprocess => "preprocess",
        Part::Encode => "encoder forward",
        Part::InitialMask => "initial mask",
        Part::Prepare => "prepare Adam",
        Part::Decode => "decoder and loss",
        Part::Backward => "backward",
        Part::Optimise => "Adam",
        Part::Upsample => "upsample",
        Part::EncodeFiles => "encode the files",
    }
}
