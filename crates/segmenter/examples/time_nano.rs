//! temporary
use std::{ops::ControlFlow, path::Path, time::Instant};
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let threads: usize = args[2].parse().unwrap();
    let steps: u32 = args[3].parse().unwrap();
    segmenter::set_threads(threads);
    let checkpoint = segmenter::Checkpoint::read(Path::new(&args[1])).unwrap();
    let device = args.get(4).map_or("cpu", |s| s).parse().unwrap();
    let mut segmenter = segmenter::Segmenter::new(&checkpoint, device).unwrap();
    println!("{:?}", segmenter.architecture());
    let image = image::RgbImage::from_fn(700, 500, |x, y| {
        let on = |cx: u32, cy: u32| x.abs_diff(cx).pow(2) + y.abs_diff(cy).pow(2) < 2500;
        if on(150, 150) || on(400, 300) || on(600, 120) {
            image::Rgb([200, 90, 120])
        } else {
            image::Rgb([40 + (x * 7 % 13) as u8, 60, 50 + (y * 5 % 11) as u8])
        }
    });
    let points = "150,150,1;400,300,1;300,60,0".parse().unwrap();
    for _ in 0..args.get(5).map_or(1, |s| s.parse().unwrap()) {
        let t = Instant::now();
        let out = segmenter
            .segment(&image, &points, &request::Parameters { steps, ..Default::default() }, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        println!(
            "{:?} total {:?} losses {:?} .. {:?} ious {:?} .. {:?} best {} fg {} {:?}",
            out.seconds,
            t.elapsed(),
            out.losses[0],
            out.losses.last(),
            out.ious[0],
            out.ious.last(),
            out.best_step,
            out.mask.as_raw().iter().filter(|v| **v > 0).count(),
            out.warnings
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().filter(|l| l.starts_with("VmHWM") || l.starts_with("VmPeak")).collect::<Vec<_>>().join(" "));
}
