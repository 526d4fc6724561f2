"""Pre-trains nano on generated images: `python models/nano/pretrain.py --minutes 85 --seed 1 --out models/nano/nano.safetensors`.

Four objectives are summed at every step: the null prompt, dots, a mask prompt and the features' similarities.
The schedule is fitted to a budget of minutes. A run that was stopped goes on from its state file.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path
from typing import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

import sam as nano
from synthesis import Rng, Scene, scene, turned

POOL = 160  # scenes kept for crops
PEAK_RATE, WARMUP = 1.2e-3, 150
EMA = 0.998
LOW = 2  # pixels a side of one logit: four logits a side for a patch of 8


class Batches(IterableDataset):
    """Endless batches of random crops out of a pool of scenes that is renewed scene by scene."""

    def __init__(self, seed: int, size: int, batch: int, renewed: int) -> None:
        self.seed, self.size, self.batch, self.renewed = seed, size, batch, renewed

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rng = np.random.default_rng(self.seed)
        pool: list[Scene] = []
        while True:
            for _ in range(self.renewed if len(pool) >= 2 * self.batch else 2 * self.batch):
                if len(pool) < POOL:
                    pool.append(scene(rng))
                else:
                    pool[rng.integers(POOL)] = scene(rng)
            positive, negative = int(rng.integers(1, 11)), int(rng.integers(0, 11) if rng.random() < 0.8 else 0)
            items: list[dict[str, np.ndarray]] = []
            while len(items) < self.batch:
                item = sample(rng, turned(rng, pool[rng.integers(len(pool))], self.size), positive, negative)
                if item is not None:
                    items.append(item)
            yield {key: torch.from_numpy(np.stack([item[key] for item in items])) for key in items[0]}


def sample(rng: Rng, crop: Scene, positive: int, negative: int) -> dict[str, np.ndarray] | None:
    """A crop, at times padded, with two sets of dots, each on the objects of one kind and elsewhere; None without objects."""
    size = crop.kinds.shape[0]
    valid = [size, size]
    if rng.random() < 0.3:
        valid[rng.integers(2)] = int(size * rng.uniform(0.5, 1))
    kinds, instances = crop.kinds.copy(), crop.instances.copy()
    for array in (kinds, instances):
        array[valid[0] :], array[:, valid[1] :] = 0, 0
    count = np.bincount(kinds.ravel(), minlength=2)
    present = [k for k in range(1, len(count)) if count[k] >= 40]
    if not present:
        return None
    targets = rng.permutation(present)[:2] if len(present) > 1 else [present[0]] * 2
    inside = np.zeros_like(kinds, bool)
    inside[: valid[0], : valid[1]] = True
    where = []
    for target in targets:
        on, off = np.flatnonzero(kinds == target), np.flatnonzero((kinds != target) & inside)
        others = np.flatnonzero((kinds != target) & (kinds > 0))
        if len(off) < 40:
            return None
        hard = int(rng.integers(0, negative + 1)) if len(others) and rng.random() < 0.6 else 0
        other_kind = [rng.choice(others, hard)] if hard else []
        where.append(np.concatenate([rng.choice(on, positive), rng.choice(off, negative - hard), *other_kind]))
    where = np.stack(where)  # 2 n
    return {
        "image": crop.image.transpose(2, 0, 1),
        "kinds": kinds,
        "instances": instances,
        "inside": inside,
        "target": np.array(targets),
        "dots": np.stack([where % size, where // size], 2).astype(np.float32) + 0.5,
        "labels": np.array([1] * positive + [0] * negative, np.float32),
    }


# --- losses -----------------------------------------------------------------------------------


def mask_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """BCE + Dice, a loss for every mask of (..., H, W)."""
    p = logits.sigmoid()
    dice = 1 - (2 * (p * truth).sum((-2, -1)) + 1) / (p.sum((-2, -1)) + truth.sum((-2, -1)) + 1)
    return F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean((-2, -1)) + dice


def middle_loss(logits: Tensor) -> Tensor:
    """Keeps zero half-way between the least and the greatest logit, where min-max and a threshold of 0.5 cut."""
    flat = logits.flatten(-2)
    return (flat.amax(-1) + flat.amin(-1)).abs().mean()


def pair_loss(rng: torch.Generator, z: Tensor, coverage: Tensor) -> Tensor:
    """Cosine similarity 1 for tokens of one kind and 0 for others, at random tokens weighted by purity.

    z (B, C, N) of unit length, coverage (B, K, N) the share of each kind, ground first, in each token.
    """
    b, _, n = z.shape
    purity, kind = coverage.max(1)
    odds = 1 / (coverage.sum(2) + 0.02 * n)  # every kind as often as another
    odds = odds.gather(1, kind) * purity.square()
    chosen = torch.multinomial(odds, 192, generator=rng)
    z = z.gather(2, chosen[:, None].expand(-1, z.shape[1], -1))
    kind, weight = kind.gather(1, chosen), purity.gather(1, chosen).square()
    same = (kind[:, :, None] == kind[:, None]).float()
    weight = weight[:, :, None] * weight[:, None]
    error = (z.transpose(1, 2) @ z - same).square() * weight
    alike, unlike = weight * same, weight * (1 - same)
    return (error * same).sum() / (alike.sum() + 1) + (error * (1 - same)).sum() / (unlike.sum() + 1)


def initial_mask(z: Tensor, tokens: Tensor, labels: Tensor) -> Tensor:
    """How far each token (B, N) is on the positive side of the dots, zero where the mask J cuts."""
    dots = z.gather(2, tokens[:, None].expand(-1, z.shape[1], -1))
    similarity = dots.transpose(1, 2) @ z  # B n N
    positive = similarity[:, labels[0] > 0].mean(1)
    if (labels[0] == 0).any():
        return positive - similarity[:, labels[0] == 0].mean(1)
    low, high = positive.amin(1, keepdim=True), positive.amax(1, keepdim=True)
    return (positive - low) / (high - low + 1e-6) - 0.5


def corrupt(truth: Tensor) -> Tensor:
    """A mask (B, 1, H, W) with borders moved, blobs added and parts dropped, at a lower resolution."""
    b, _, h, w = truth.shape
    scale = int(torch.randint(4, 17, ()))
    coarse = F.adaptive_avg_pool2d(truth, (h // 4, w // 4))
    blobs = F.interpolate(torch.randn(b, 1, 2 + h // 4 // scale, 2 + w // 4 // scale), coarse.shape[-2:], mode="bicubic")
    shift, amount = torch.rand(b, 1, 1, 1) * 0.6 - 0.3, torch.rand(b, 1, 1, 1) * 0.5
    return F.interpolate((F.avg_pool2d(coarse, 3, 1, 1) + shift + blobs * amount > 0.5).float(), (h, w))


class Gaze:
    """Looks into the decoder's token-to-image attention, to have half of the heads of a dot's token look at the dot."""

    def __init__(self, model: nano.Sam) -> None:
        self.layers = [layer.cross_attn_token_to_image for layer in model.mask_decoder.transformer.layers]

    def __enter__(self) -> Gaze:
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.hooks = [m.register_forward_pre_hook(lambda _, __, k: self.seen.append((k["q"], k["k"])), with_kwargs=True) for m in self.layers]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def loss(self, tokens: Tensor, grid: int) -> Tensor:
        """Minus the logarithm of the attention within one token of the dots' tokens (B, n)."""
        x, y = torch.arange(grid * grid) % grid, torch.arange(grid * grid) // grid
        near = ((x - tokens[..., None] % grid).abs() <= 1) & ((y - tokens[..., None] // grid).abs() <= 1)  # B n N
        total = torch.zeros(())
        for layer, (q, k) in zip(self.layers, self.seen):
            first = 5  # after the score's and the masks' tokens
            q = layer._separate_heads(layer.q_proj(q[:, first : first + tokens.shape[1]]), layer.num_heads)[:, :4]
            k = layer._separate_heads(layer.k_proj(k), layer.num_heads)[:, :4]
            share = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).log_softmax(-1)  # B 4 n N
            total = total - share.masked_fill(~near[:, None], -torch.inf).logsumexp(-1).mean()
        return total / len(self.layers)


def losses(model: nano.Sam, rng: torch.Generator, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every objective on one batch of crops."""
    kinds, inside = batch["kinds"], batch["inside"][:, None].float()
    b, size, _ = kinds.shape
    row, column = (int(torch.randint(0, (nano.IMAGE - size) // 128 + 1, (), generator=rng)) * nano.WINDOW for _ in range(2))
    features = nano.encode(model, nano.normalise(batch["image"].float()) * inside, row, column)

    # two sets of dots an image, on different kinds where there are several: first all first sets, then all second
    dots, target = batch["dots"].transpose(0, 1).flatten(0, 1), batch["target"].T.flatten()  # 2b n 2, 2b
    labels = batch["labels"].repeat(2, 1)
    twice = torch.cat([features, features])
    wanted_full = (kinds.repeat(2, 1, 1) == target[:, None, None]).float()[:, None]
    salient, wanted = F.avg_pool2d((kinds > 0).float()[:, None], LOW), F.avg_pool2d(wanted_full, LOW)
    at, instances = dots.long(), batch["instances"].repeat(2, 1, 1)
    touched = instances.flatten(1).gather(1, at[..., 1] * size + at[..., 0])  # 2b n
    touched = torch.where(labels > 0, touched, -1)
    parts = F.avg_pool2d((instances[:, None] == touched[:, :, None, None]).any(1, keepdim=True).float(), LOW)

    # similarities
    z = F.normalize(features.flatten(2), dim=1)
    grid = size // nano.PATCH
    coverage = F.avg_pool2d(F.one_hot(kinds.long(), 8).permute(0, 3, 1, 2).float(), nano.PATCH).flatten(2)
    tokens = (at[..., 1] // nano.PATCH) * grid + at[..., 0] // nano.PATCH  # 2b n
    side = initial_mask(z.repeat(2, 1, 1), tokens, labels).view(2 * b, grid, grid)
    share = F.avg_pool2d(wanted_full, nano.PATCH)[:, 0]
    out = {"pairs": pair_loss(rng, z, coverage), "initial": mask_loss(8 * side, share).mean()}

    # mask prompt: half the time the mask the dots give, as in use, otherwise the truth corrupted
    drawn = F.interpolate((side[:b, None] > 0).float(), scale_factor=4, mode="bilinear", align_corners=True) > 0.5
    prompt = torch.where(torch.rand(b, 1, 1, 1) < 0.5, drawn.float(), corrupt(wanted[:b]))

    dense = torch.cat([nano.no_mask(model, features), model.prompt_encoder._embed_masks(prompt)])
    logits, score_plain = nano.decode(model, twice, twice.new_zeros(2 * b, 0, nano.NECK), dense, row, column)
    shifted = dots + torch.tensor([column, row]) * nano.PATCH - 0.5
    sparse = model.prompt_encoder._embed_points(shifted, labels, pad=True)
    with Gaze(model) as gaze:
        dotted, score_dots = nano.decode(model, twice, sparse, nano.no_mask(model, twice), row, column)

    out["null"] = mask_loss(logits[:b, :1], salient).mean()
    out["mask"] = mask_loss(logits[b:, :1], wanted[:b]).mean()
    truth = torch.cat([wanted, parts, wanted, salient.repeat(2, 1, 1, 1)], 1)
    dotted_loss = mask_loss(dotted, truth).mean(0)
    out["dots"] = dotted_loss[0] * 4
    other_outputs = torch.cat([salient, wanted[:b]]).expand(-1, 3, -1, -1)
    out["choices"] = 0.1 * dotted_loss[1:].sum() + 0.1 * mask_loss(logits[:, 1:], other_outputs).mean()
    out["middle"] = 0.03 * middle_loss(logits[:, 0]) + 0.01 * middle_loss(dotted[:, 0])
    out["gaze"] = 0.3 * gaze.loss(tokens, grid)
    with torch.no_grad():
        every = torch.cat([logits, dotted]) > 0
        truths = torch.cat([torch.cat([salient, wanted[:b]]).expand(-1, 4, -1, -1), truth]) > 0.5
        overlap = (every & truths).sum((-2, -1)) / (every | truths).sum((-2, -1)).clamp(min=1)
    out["score"] = 0.2 * F.mse_loss(torch.cat([score_plain, score_dots]), overlap)
    for name, index in (("null", slice(0, b)), ("mask", slice(b, 2 * b)), ("dots", slice(2 * b, None))):
        out[f"iou_{name}"] = overlap[index, 0].mean()
    hit, real = side > 0, share > 0.5
    out["iou_J"] = ((hit & real).sum((-2, -1)) / (hit | real).sum((-2, -1)).clamp(min=1)).mean()
    return out


def spread_frequencies(model: nano.Sam) -> None:
    """Positions at many scales: SAM's one scale blurs a dot over five tokens, more than a small object."""
    matrix = model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix  # 2, 48
    matrix.copy_(torch.randn(matrix.shape) * torch.logspace(math.log10(0.5), math.log10(6), matrix.shape[1]))


# --- the run ----------------------------------------------------------------------------------


def replace(path: Path, write) -> None:
    """Writes beside `path`, then renames: a reader never sees half a file."""
    beside = path.with_suffix(path.suffix + ".part")
    write(beside)
    os.replace(beside, path)


def export(average: dict[str, Tensor], out: Path) -> None:
    replace(out, lambda p: save_file({k: v.contiguous() for k, v in average.items()}, p))
    out.chmod(0o644)


def rate(progress: float, step: int) -> float:
    """Warm-up by steps, then a square root that falls to zero at the end of the budget."""
    return PEAK_RATE * math.sqrt(max(0, 1 - progress)) * min(1, (step + 1) / WARMUP)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=85, help="training time, over all resumptions")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("nano.safetensors"))
    parser.add_argument("--state", type=Path, default=Path("nano-state.pt"), help="where the run is saved every few minutes")
    parser.add_argument("--crops", type=float, default=0.8, help="share of the time on crops of 256 pixels, before whole images")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = torch.Generator().manual_seed(args.seed)
    model = nano.build()
    spread_frequencies(model)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}], PEAK_RATE, fused=True)
    step, spent, seen = 0, 0.0, 0
    if args.state.exists():
        state = torch.load(args.state)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average, step, spent, seen = state["average"], state["step"], state["spent"], state["seen"]
    else:
        average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    live = model.state_dict()

    budget, saved, exported, told = args.minutes * 60, time.monotonic(), time.monotonic(), {}
    batches, phase = None, None
    began = time.monotonic() - spent
    while (spent := time.monotonic() - began) < budget:
        progress = spent / budget
        if phase != (now := progress < args.crops):
            phase = now
            data = Batches(args.seed * 1_000_003 + step, 256, 5, 1) if phase else Batches(args.seed * 1_000_003 + step, 512, 2, 1)
            batches = iter(DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=8))
        for group in optimiser.param_groups:
            group["lr"] = rate(progress, step)
        batch = next(batches)
        out = losses(model, rng, batch)
        loss = sum(v for k, v in out.items() if not k.startswith("iou_"))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step, seen = step + 1, seen + len(batch["image"])
        decay = min(EMA, step / (step + 20))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), list(live.values()), 1 - decay)
        for key, value in out.items():
            told.setdefault(key, []).append(value.item())
        if step % 50 == 0:
            figures = " ".join(f"{k} {np.mean(v):.3f}" for k, v in told.items())
            print(f"{spent / 60:.1f} min step {step} seen {seen} rate {group['lr']:.2e} {figures}", flush=True)
            told = {}
        if time.monotonic() - saved > 180:
            saved = time.monotonic()
            whole = {"model": live, "optimiser": optimiser.state_dict(), "average": average, "step": step, "spent": spent, "seen": seen}
            replace(args.state, lambda p: torch.save(whole, p))
        if time.monotonic() - exported > 900:
            exported = time.monotonic()
            export(average, args.out)
    export(average, args.out)
    print(f"{step} steps, {seen} samples, {spent / 60:.1f} minutes")


if __name__ == "__main__":
    main()
