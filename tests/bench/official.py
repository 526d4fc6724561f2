"""The official implementation's loop, timed: segment-anything 1.0 and torch.optim.Adam, the recipe `paper`, as `worker bench` runs it.

    python tests/bench/official.py --checkpoint FILE --image PNG --points "x,y,label;..." --steps 3

The model is the package's own, the method that of crates/segmenter/tests/parity/make_fixtures.py. Prints one JSON object. scripts/bench
runs it in turns with `worker bench`, on the files that leaves with --keep.
"""

import argparse
import json
import resource
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file
from segment_anything import sam_model_registry
from torchvision.io import ImageReadMode, read_image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "crates/segmenter/tests/parity"), str(ROOT / "models/nano")]
import sam as nano  # noqa: E402
from make_fixtures import initial_mask, loss_of, preprocess  # noqa: E402

# The encoder's width tells the size.
SIZES = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}


def load(path):
    state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    width = state["image_encoder.pos_embed"].shape[-1]
    if width not in SIZES and width != nano.DIM:
        sys.exit(f"{path}: an encoder {width} wide is none of {', '.join(SIZES.values())} and nano")
    sam = sam_model_registry[SIZES[width]]() if width in SIZES else nano.build()
    sam.load_state_dict(state, strict=True)
    return sam.eval()


def points_of(text):
    points = [point.split(",") for point in text.split(";")]
    return [(float(x), float(y), int(float(label))) for x, y, label in points]


def status(name):
    """A line of Linux's /proc/self/status, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024


class Clock:
    """Wall-clock and processor seconds since the last call, with everything finished that a GPU was given."""

    def __init__(self, device):
        self.device = device
        self.split()

    def split(self):
        if self.device == "cuda":
            torch.cuda.synchronize()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        now = time.perf_counter(), usage.ru_utime + usage.ru_stime
        before, self.now = getattr(self, "now", now), now
        return {"seconds": now[0] - before[0], "cpu_seconds": now[1] - before[1]}


def finetune(sam, pixels, target, arguments):
    with torch.no_grad():
        null = sam.prompt_encoder.get_dense_pe(), *sam.prompt_encoder(points=None, boxes=None, masks=None)
    optimizer = torch.optim.Adam(sam.image_encoder.parameters(), lr=arguments.learning_rate)
    mixed = torch.autocast("cuda", torch.bfloat16) if arguments.precision == "bf16" else nullcontext()
    steps, losses, ious = [], [], []
    clock = Clock(arguments.device)
    for _ in range(arguments.steps):
        step = {}
        with mixed:
            embedding = sam.image_encoder(pixels)
            step["encode"] = clock.split()
            logits = sam.mask_decoder.predict_masks(embedding, *null)[0][:, :1].float()
        prediction = (logits - logits.min()) / (logits.max() - logits.min())
        loss = loss_of(prediction, target)
        binary, truth = prediction > 0.5, target > 0.5
        losses.append(loss.item())
        ious.append(((binary & truth).sum() / (binary | truth).sum()).item())
        step["decode"] = clock.split()
        optimizer.zero_grad()
        loss.backward()
        step["backward"] = clock.split()
        optimizer.step()
        step["optimise"] = clock.split()
        steps.append(step)
    return steps, losses, ious


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--points", type=points_of, required=True)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.precision != "fp32" and arguments.device != "cuda":
        parser.error(f"--precision {arguments.precision} needs --device cuda")
    if arguments.steps <= arguments.warm_up:
        parser.error(f"--steps {arguments.steps} with --warm-up {arguments.warm_up} leaves no step to measure")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("high" if arguments.precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = arguments.precision == "tf32"

    sam = load(arguments.checkpoint).to(arguments.device)
    image = read_image(str(arguments.image), ImageReadMode.RGB).permute(1, 2, 0).numpy()
    loaded = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    if arguments.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    pixels, _ = preprocess(sam, image)
    pixels = pixels.to(arguments.device)
    patch = sam.image_encoder.patch_embed.proj.kernel_size[0]
    case = SimpleNamespace(
        name=arguments.image.name, grid=pixels.shape[-1] // patch, patch=patch,
        width=image.shape[1], height=image.shape[0], points=arguments.points, learning_rate=arguments.learning_rate)
    with torch.no_grad():
        target = initial_mask(case, sam.image_encoder(pixels))
    steps, losses, ious = finetune(sam, pixels, target, arguments)

    counted = steps[arguments.warm_up :]
    clocks = "seconds", "cpu_seconds"
    parts = [{"part": part, **{clock: sum(step[part][clock] for step in counted) / len(counted) for clock in clocks}}
             for part in ("encode", "decode", "backward", "optimise")]
    cuda = {"allocated_bytes": torch.cuda.max_memory_allocated(), "reserved_bytes": torch.cuda.max_memory_reserved()}
    print(json.dumps({
        "torch": torch.__version__, "device": arguments.device, "precision": arguments.precision, "threads": torch.get_num_threads(),
        "step": {"measured": len(counted), **{clock: sum(part[clock] for part in parts) for clock in clocks}, "parts": parts},
        "memory": {"loaded_rss_bytes": loaded, "peak_rss_bytes": status("VmHWM"), "cuda": cuda if arguments.device == "cuda" else None},
        "losses": losses, "ious": ious, "initial_foreground": target.mean().item(),
    }))


if __name__ == "__main__":
    main()
