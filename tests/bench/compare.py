"""`worker bench` and the official implementation's loop in turns, each in a process of its own, and their ratios with their spread.

    python tests/bench/compare.py --worker target/release/worker --python PYTHON --size vit_b

PYTHON has the packages of crates/segmenter/tests/parity/requirements.txt. scripts/bench, and so make bench, calls this with all it needs.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "models/nano/nano.safetensors"
SIZES = "nano", "vit_b", "vit_l", "vit_h"
# What makes ten minutes on two cores with vit_b.
DEFAULT_STEPS = {"cpu": {"nano": 20}, "cuda": {"nano": 50, "vit_b": 20, "vit_l": 20, "vit_h": 10}}
GIB = 2**30


def run(what, command):
    print(f"  {what} ...", end="", file=sys.stderr, flush=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DOTMASK_")}
    ended = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    if ended.returncode:
        sys.exit(f"\n{ended.stderr.strip()}\nerror: {what} ended with {ended.returncode}: {' '.join(map(str, command))}")
    figures = json.loads(ended.stdout)
    print(f" {figures['step']['seconds']:.3f} s a step, {figures['step']['cpu_seconds']:.3f} CPU s", file=sys.stderr, flush=True)
    return figures


def peak(figures):
    """Bytes: a GPU's tensors, or what was resident."""
    memory = figures["memory"]
    return memory["cuda"]["allocated_bytes"] if memory["cuda"] else memory["peak_rss_bytes"]


def spread(numbers, digits):
    return f"{statistics.median(numbers):.{digits}f} ({min(numbers):.{digits}f} to {max(numbers):.{digits}f})"


def apart(ours, official):
    """The largest distance of the losses of the same step, as a share of the official one, and of the IoUs."""
    own = ours["images"][0]["objects"][0]
    losses = max(abs(a - b) / b for a, b in zip(own["losses"], official["losses"]))
    ious = max(abs(a - b) for a, b in zip(own["ious"], official["ious"]))
    return losses, ious, abs(own["initial_foreground"] - official["initial_foreground"])


def table(turns):
    sides = [[turn[side] for turn in turns] for side in (0, 1)]
    print(f"\n{'median (least to most)':<28} {'dotmask':>26} {'official':>26} {'official / dotmask':>26}")

    def line(name, value, digits):
        ours, official = ([value(figures) for figures in side] for side in sides)
        ratios = [b / a if a else float("nan") for a, b in zip(ours, official)]
        print(f"{name:<28} {spread(ours, digits):>26} {spread(official, digits):>26} {spread(ratios, 2):>26}")
        return ratios

    line("seconds a step", lambda figures: figures["step"]["seconds"], 3)
    line("CPU seconds a step", lambda figures: figures["step"]["cpu_seconds"], 3)
    for index, name in enumerate(("encoder forward", "decoder and loss", "backward", "Adam")):
        line(f"  CPU seconds, {name}", lambda figures: figures["step"]["parts"][index]["cpu_seconds"], 3)
    shares = line("peak memory, GiB", lambda figures: peak(figures) / GIB, 2)
    print(f"\nmemory: dotmask's peak is {spread([1 / share for share in shares], 2)} of the official one")
    rates = [figures["flops"]["rate"] / 1e9 for figures in sides[0]]
    products = [max(figures["flops"]["matrix_product_rates"]) / 1e9 for figures in sides[0]]
    shares = [figures["flops"]["share"] for figures in sides[0]]
    print(f"arithmetic: dotmask {spread(rates, 0)} GFLOP/s, a matrix product {spread(products, 0)}, share {spread(shares, 2)}")
    losses, ious, initial = (max(values) for values in zip(*(apart(*turn) for turn in turns)))
    print(f"the same computation: losses apart by {losses:.1e} of themselves at most, IoUs by {ious:.1e}, "
          f"the initial masks' foreground by {initial:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", type=Path, required=True)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="vit_b")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, help="whole steps a turn, of which the first warms up")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32", help="of both; tf32 and bf16 on cuda alone")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="write every turn's figures to this file")
    arguments = parser.parse_args()
    steps = arguments.steps or DEFAULT_STEPS[arguments.device].get(arguments.size, 3)
    if steps < 2 or arguments.turns < 1:
        parser.error("expected at least one turn, and at least two steps: the first warms up")

    print(f"{arguments.size} on {arguments.device}, {arguments.threads} threads, {arguments.turns} turns of {steps} steps, the first left out; "
          f"{arguments.precision}; {platform.node()}, {datetime.date.today()}, load {os.getloadavg()[0]:.1f}")
    turns = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = NANO if arguments.size == "nano" else Path(folder) / "checkpoint.safetensors"
        weights = ["--checkpoint", NANO] if arguments.size == "nano" else ["--random", arguments.size]
        common = ["--device", arguments.device, "--precision", arguments.precision, "--threads", arguments.threads]
        for turn in range(arguments.turns):
            print(f"turn {turn + 1} of {arguments.turns}", file=sys.stderr)
            # A fine-tuning's last step has no update, so one more is asked for.
            ours = run("dotmask", [arguments.worker, "bench", *weights, *common, "--keep", folder, "--steps", steps + 1, "--json"])
            points = ";".join(f"{x},{y},{label}" for x, y, label in ours["points"][0])
            official = run("official", [
                arguments.python, Path(__file__).with_name("official.py"), *common,
                "--checkpoint", checkpoint, "--image", Path(folder) / "image.png", "--points", points, "--steps", steps])
            turns.append((ours, official))
    table(turns)
    if arguments.json:
        arguments.json.write_text(json.dumps([{"dotmask": ours, "official": official} for ours, official in turns]))


if __name__ == "__main__":
    main()
