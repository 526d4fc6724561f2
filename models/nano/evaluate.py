"""Measures nano on held-out generated images and, with --data, on folders of real ones; prints the card's tables.

    python models/nano/evaluate.py
    python models/nano/evaluate.py --data DIR --finetune 1e-5 1e-4

DIR holds <id>.png (or jpg, tif) beside <id>_labels.png or <id>_mask.png, truth wherever these are not 0; each of
its sub-folders is a set. Dots are random pixels of the truth and of the rest, half a pixel in, seeded by the file's name.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import sam as nano
from synthesis import SIZE, scene

HELD_OUT = 20_000_000  # the seed of the first held-out scene; training's seeds are others
LOW = 4 * nano.TOKENS


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    either = (mask | truth).sum()
    return float((mask & truth).sum() / either) if either else 1.0


def prepare(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 to SAM's input (1, 3, 512, 512)."""
    scale = nano.IMAGE / max(image.shape[:2])
    h, w = (int(side * scale + 0.5) for side in image.shape[:2])
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    x = nano.normalise(F.interpolate(x, (h, w), mode="bilinear", antialias=True, align_corners=False))
    return F.pad(x, (0, nano.IMAGE - w, 0, nano.IMAGE - h))


def restore(soft: Tensor, shape: tuple[int, int], threshold: float) -> np.ndarray:
    """A low-resolution map (256, 256) to a mask at the original size, SAM's way."""
    scale = nano.IMAGE / max(shape)
    h, w = (int(side * scale + 0.5) for side in shape)
    x = F.interpolate(soft[None, None], (nano.IMAGE, nano.IMAGE), mode="bilinear", align_corners=False)[..., :h, :w]
    return (F.interpolate(x, shape, mode="bilinear", align_corners=False) > threshold)[0, 0].numpy()


def min_max(x: Tensor) -> Tensor:
    return (x - x.amin()) / (x.amax() - x.amin()).clamp(min=1e-12)


def initial_mask(features: Tensor, dots: Tensor, labels: Tensor) -> Tensor:
    """J (256, 256), of 0 and 1, from dots (n, 2) in input pixels."""
    z = F.normalize(features[0].flatten(1), dim=0)  # C N
    token = (dots[:, 1] // nano.PATCH).long() * nano.TOKENS + (dots[:, 0] // nano.PATCH).long()
    similarity = z[:, token].T @ z
    positive = similarity[labels > 0].mean(0)
    side = positive > similarity[labels == 0].mean(0) if (labels == 0).any() else min_max(positive) > 0.5
    grid = side.float().view(1, 1, nano.TOKENS, nano.TOKENS)
    return (F.interpolate(grid, (LOW, LOW), mode="bilinear", align_corners=True) > 0.5).float()[0, 0]


@torch.no_grad()
def prompted(sam: nano.Sam, features: Tensor, dots: Tensor | None = None, labels: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """Logits (256, 256) of the single-mask output."""
    sparse = features.new_zeros(1, 0, nano.NECK)
    if dots is not None:
        sparse = sam.prompt_encoder._embed_points(dots[None] - 0.5, labels[None], pad=True)
    dense = nano.no_mask(sam, features) if mask is None else sam.prompt_encoder._embed_masks(mask[None, None])
    return nano.decode(sam, features, sparse, dense)[0][0, 0]


def finetune(checkpoint: Path, x: Tensor, target: Tensor, rate: float, steps: int = 100) -> Tensor:
    """The null-prompt map in [0, 1], 256 x 256, that agreed best with J while the image encoder was trained towards J."""
    sam = nano.build(checkpoint)
    sam.requires_grad_(False).image_encoder.requires_grad_(True)
    optimiser = torch.optim.Adam(sam.image_encoder.parameters(), rate)
    best, answer = -1.0, target
    for _ in range(steps):
        features = nano.encode(sam, x)
        logits = nano.decode(sam, features, features.new_zeros(1, 0, nano.NECK), nano.no_mask(sam, features))[0][0, 0]
        soft = min_max(logits)
        score = iou((soft > 0.5).numpy(), (target > 0.5).numpy())
        if score >= best:
            best, answer = score, soft.detach()
        flat = soft.flatten()
        inner = torch.ones_like(flat)  # at the least and the greatest pixel BCE has no gradient worth having
        inner[flat.argmin()] = inner[flat.argmax()] = 0
        bce = (F.binary_cross_entropy(flat.clamp(1e-7, 1 - 1e-7), target.flatten(), reduction="none") * inner).mean()
        dice = 1 - (2 * (soft * target).sum() + 1) / (soft.sum() + target.sum() + 1)
        optimiser.zero_grad()
        (bce + dice).backward()
        optimiser.step()
    return answer


def draw(rng: np.random.Generator, truth: np.ndarray, positive: int, negative: int, scale: float) -> tuple[Tensor, Tensor]:
    """Random dots in input pixels, (n, 2), and their labels."""
    on, off = np.flatnonzero(truth), np.flatnonzero(~truth)
    where = np.concatenate([rng.choice(on, positive), rng.choice(off, negative)])
    dots = np.stack([where % truth.shape[1], where // truth.shape[1]], 1) + 0.5
    return torch.tensor(dots * scale, dtype=torch.float32), torch.tensor([1.0] * positive + [0.0] * negative)


def show(title: str, scores: dict[str, list[float]]) -> None:
    cells = [f"{name} {np.mean(v):.3f} ± {np.std(v, ddof=1) / len(v) ** 0.5 if len(v) > 1 else 0:.3f}" for name, v in scores.items()]
    print(f"{title:28s} n {len(next(iter(scores.values()))):3d}  " + "  ".join(cells), flush=True)


def generated(sam: nano.Sam, number: int) -> None:
    """Held-out scenes: everything salient without a prompt, then one kind by dots and by J as a mask prompt."""
    tables: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for seed in range(HELD_OUT, HELD_OUT + number):
        rng = np.random.default_rng(seed)
        sample = scene(rng)
        count = np.bincount(sample.kinds.ravel(), minlength=2)
        present = [k for k in range(1, len(count)) if count[k] >= 150]
        if not present:
            continue
        truth = sample.kinds == rng.choice(present)
        with torch.no_grad():
            features = nano.encode(sam, prepare(sample.image))
        null = restore(min_max(prompted(sam, features)), truth.shape, 0.5)
        tables["null prompt"]["all objects"].append(iou(null, sample.kinds > 0))
        for positive, negative in ((1, 0), (3, 3), (5, 5)):
            dots, labels = draw(rng, truth, positive, negative, nano.IMAGE / SIZE)
            j = initial_mask(features, dots, labels)
            row = tables[f"{positive}/{negative}, {'several kinds' if len(present) > 1 else 'one kind'}"]
            row["null"].append(iou(null, truth))
            row["dots"].append(iou(restore(prompted(sam, features, dots, labels), truth.shape, 0), truth))
            row["dots less null"].append(row["dots"][-1] - row["null"][-1])
            row["J"].append(iou(restore(j, truth.shape, 0.5), truth))
            row["J as mask prompt"].append(iou(restore(min_max(prompted(sam, features, mask=j)), truth.shape, 0.5), truth))
    for title in sorted(tables):
        show(title, tables[title])


def real(sam: nano.Sam, args: argparse.Namespace) -> None:
    """Every image of a folder and of its sub-folders, a line for each set and one for all."""
    folder, (positive, negative), rates, limit, pictures = args.data, args.dots, args.finetune, args.limit, args.pictures
    sets: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    folders = [folder, *sorted(f for f in folder.iterdir() if f.is_dir())]
    for path in (p for f in folders for p in sorted(f.iterdir()) if p.suffix in (".png", ".jpg", ".tif")):
        beside = [q for end in ("_labels.png", "_mask.png") if (q := path.with_name(path.stem + end)).exists()]
        if not beside or path.stem.endswith(("_labels", "_mask")) or len(next(iter(sets[path.parent.name].values()), [])) >= limit:
            continue
        image, truth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED), cv2.imread(str(beside[0]), cv2.IMREAD_UNCHANGED)
        if image.dtype != np.uint8:  # 16 bits: the range between the 0.1 and 99.9 percentiles
            low, high = np.percentile(image, (0.1, 99.9))
            image = np.clip((image - low) / (high - low) * 255, 0, 255).astype(np.uint8)
        image = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image[..., 2::-1].copy()
        truth = truth > 0 if truth.ndim == 2 else truth.max(2) > 0
        shape, x = truth.shape, prepare(image)
        dots, labels = draw(np.random.default_rng(zlib.crc32(path.stem.encode())), truth, positive, negative, nano.IMAGE / max(shape))
        with torch.no_grad():
            features = nano.encode(sam, x)
        j = initial_mask(features, dots, labels)
        masks = {
            "sam_points": restore(prompted(sam, features, dots, labels), shape, 0),
            "J": restore(j, shape, 0.5),
            "sam_mask": restore(min_max(prompted(sam, features, mask=j)), shape, 0.5),
            "untuned": restore(min_max(prompted(sam, features)), shape, 0.5),
        }
        masks |= {f"finetuned {rate:g}": restore(finetune(args.checkpoint, x, j, rate), shape, 0.5) for rate in rates}
        print(path.name, *(f"{name} {iou(mask, truth):.3f}" for name, mask in masks.items()), file=sys.stderr, flush=True)
        for name, mask in masks.items():
            sets[path.parent.name][name].append(iou(mask, truth))
            sets["all"][name].append(iou(mask, truth))
        if pictures:
            keep(pictures, path, image, truth, masks)
    for name in sorted(sets, key=lambda n: (n == "all", n)):
        if sets[name]:
            show(name, sets[name])
    for rate in rates:
        tuned = np.array(sets["all"][f"finetuned {rate:g}"])
        show(f"finetuned {rate:g} less", {name: list(tuned - sets["all"][name]) for name in ("sam_points", "J", "sam_mask", "untuned")})


def keep(folder: Path, path: Path, image: np.ndarray, truth: np.ndarray, masks: dict[str, np.ndarray]) -> None:
    """A picture of the image, the truth and every mask, side by side."""
    panels = [image] + [np.where(m[..., None], image, image // 4) for m in (truth, *masks.values())]
    height = 340 * image.shape[0] // image.shape[1]
    picture = cv2.resize(np.hstack(panels), (340 * len(panels), height))
    cv2.imwrite(str(folder / f"{path.parent.name}_{path.stem}.png"), picture[..., ::-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=Path(__file__).with_name("nano.safetensors"))
    parser.add_argument("--generated", type=int, default=80, metavar="N", help="held-out scenes")
    parser.add_argument("--data", type=Path, help="folder of real images")
    parser.add_argument("--dots", type=int, nargs=2, default=(5, 5), metavar=("POSITIVE", "NEGATIVE"))
    parser.add_argument("--finetune", type=float, nargs="*", default=[], metavar="RATE", help="learning rates of 100 steps each")
    parser.add_argument("--limit", type=int, default=10**9, help="images of a set")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the real images' masks")
    args = parser.parse_args()
    sam = nano.build(args.checkpoint)
    if args.data:
        real(sam, args)
    else:
        generated(sam, args.generated)


if __name__ == "__main__":
    main()
