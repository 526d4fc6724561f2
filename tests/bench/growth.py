"""How an image's cost grows with its steps, its dots, its objects and its size: a table each, out of `worker bench --json`.

    python tests/bench/growth.py --worker target/release/worker [steps points objects image]

Needs no package. scripts/bench growth calls it. With models/nano a run on two cores takes about five minutes.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NANO = ["--checkpoint", str(ROOT / "models/nano/nano.safetensors")]
VALUES = {
    "steps": [5, 10, 20, 50, 100],
    "points": ["1/0", "1/1", "5/5", "50/50", "500/500"],
    "objects": [1, 2, 4, 8],
    "image": ["256x256", "512x512", "1024x1024", "2048x2048", "4096x4096", "8192x8192"],
}
# Steps where they are not what grows: enough for what is beside them to show.
STEPS = {"points": 10, "objects": 10, "image": 10}
NAMES = {
    "decode_file": "decoding the file", "restore": "restoring the weights", "preprocess": "preprocessing", "encode": "the encoder's forward pass",
    "initial_mask": "the initial mask", "prepare": "preparing Adam", "decode": "decoder and loss", "backward": "the backward pass",
    "optimise": "Adam", "upsample": "upsampling", "encode_files": "encoding the results",
}


def measure(worker, weights, flags, images):
    command = [worker, "bench", *weights, *flags, "--images", images, "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DOTMASK_")}
    ended = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    if ended.returncode:
        sys.exit(f"{ended.stderr.strip()}\nerror: ended with {ended.returncode}: {' '.join(map(str, command))}")
    return json.loads(ended.stdout)


def by_part(image):
    sums = {}
    for part in image["parts"]:
        sums[part["part"]] = sums.get(part["part"], 0) + part["seconds"]
    return sums


def row(value, figures):
    # The first image warms up.
    images = figures["images"][1:]
    seconds = [image["seconds"] for image in images]
    parts = by_part(images[0])
    in_steps = sum(parts.get(name, 0) for name in ("encode", "decode", "backward", "optimise"))
    beside = {name: seconds for name, seconds in parts.items() if name not in ("encode", "decode", "backward", "optimise")}
    total, dearest, other = sum(parts.values()), max(parts, key=parts.get), max(beside, key=beside.get)
    gib = figures["memory"]["peak_rss_bytes"] / 2**30
    print(f"| {value} | {sum(seconds) / len(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | {in_steps:.2f} | "
          f"{total - in_steps:.3f} | {gib:.2f} | {NAMES[dearest]}, {100 * parts[dearest] / total:.0f} % | "
          f"{NAMES[other]}, {beside[other]:.3f} s |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", help=", ".join(VALUES) + "; all of them if none is given")
    parser.add_argument("--worker", required=True)
    parser.add_argument("--random", choices=["vit_b", "vit_l", "vit_h"], help="a published size instead of models/nano")
    parser.add_argument("--images", type=int, default=3, help="images counted in each row")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.what) - set(VALUES))
    if unknown or arguments.images < 1:
        parser.error(f"expected some of {', '.join(VALUES)}, and at least one image; found {', '.join(unknown) or arguments.images}")
    weights = ["--random", arguments.random] if arguments.random else NANO
    for what in arguments.what or VALUES:
        steps = ["--steps", STEPS[what]] if what in STEPS else []
        print(f"\n{arguments.random or 'nano'} on {arguments.device}" + (f", {STEPS[what]} steps" if what in STEPS else "") + "\n")
        print(f"| {what} | seconds an image | in steps | beside them | GiB at most | the most expensive part | and beside the steps |")
        print("|---:|---:|---:|---:|---:|---|---|")
        for value in VALUES[what]:
            flags = [*steps, f"--{what}", value, "--device", arguments.device]
            row(value, measure(arguments.worker, weights, flags, arguments.images + 1))


if __name__ == "__main__":
    main()
