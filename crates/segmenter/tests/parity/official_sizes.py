"""Writes checkpoints of the official sizes, as PyTorch saves them, and the official implementation's embedding of an image.

    python crates/segmenter/tests/parity/official_sizes.py --out FOLDER vit_b vit_l vit_h

For each size FOLDER/SIZE.pth is `torch.save` of the official model's state_dict, as the published files are, with seeded random weights,
and FOLDER/SIZE.expected.safetensors holds an image and its embedding. tests/official_sizes.rs compares; scripts/parity runs both.
vit_b needs about 4 GB of memory, vit_l 6, vit_h 9.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from segment_anything import sam_model_registry

from make_fixtures import preprocess


def build(size):
    torch.manual_seed(17)
    sam = sam_model_registry[size]()
    # Upstream starts positions and relative positions at zero, and norms at the identity, where an error in their use would not show.
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if "pos_embed" in name or "rel_pos" in name:
                parameter.normal_(std=0.2)
            elif "norm" in name or "neck.1" in name or "neck.3" in name or name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return sam.eval()


def draw_image():
    """Bright discs on a dark, uneven, noisy ground, 900 x 700, as H x W x 3 bytes."""
    rng = np.random.default_rng(17)
    y, x = np.mgrid[0:700, 0:900].astype(np.float64)
    image = np.stack([40 + x / 30, 50 + y / 35, np.full_like(x, 60)], axis=-1)
    for _ in range(40):
        cx, cy, radius = rng.uniform(0, 900), rng.uniform(0, 700), rng.uniform(15, 60)
        image[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = rng.uniform(60, 250, 3)
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def make(size, folder):
    sam = build(size)
    torch.save(sam.state_dict(), folder / f"{size}.pth")
    image = draw_image()
    with torch.no_grad():
        embedding = sam.image_encoder(preprocess(sam, image)[0])
    assert embedding.isfinite().all() and embedding.std() > 0.1
    save_file({"image": torch.from_numpy(image), "embedding": embedding}, folder / f"{size}.expected.safetensors")
    print(f"{size}: written, the embedding's largest number is {embedding.abs().max():.2f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="+", choices=["vit_b", "vit_l", "vit_h"])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for size in arguments.sizes:
        make(size, arguments.out)
