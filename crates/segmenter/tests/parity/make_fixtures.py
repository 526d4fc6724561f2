"""Writes the fixtures that tests/parity.rs compares with: what the official SAM and a plain PyTorch version of the method compute.

    pip install -r crates/segmenter/tests/parity/requirements.txt
    python crates/segmenter/tests/parity/make_fixtures.py

SAM's classes are those of the package segment-anything 1.0, of three tiny architectures with seeded random weights; the method is written
down here a second time, in the paper's own order, with torch's autograd and torch.optim.Adam. Nothing here is shared with the crate.
Beside this file it writes, for each case, CASE.safetensors (the checkpoint) and CASE.expected.safetensors (image, points and every tensor
compared), and for one case the same checkpoint as CASE.pth. storages.pth holds what torch.save can do with storages, and
storages.expected.safetensors the same numbers plainly.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

HERE = Path(__file__).parent
STEPS = 5


@dataclass
class Case:
    name: str
    seed: int
    grid: int  # tokens a side
    patch: int
    dim: int
    depth: int
    heads: int
    window: int
    global_blocks: tuple
    neck: int
    width: int  # of the image, pixels
    height: int
    points: tuple  # x, y, label
    learning_rate: float
    mlp_ratio: float = 4.0
    decoder_depth: int = 2
    decoder_mlp: int = 64
    downsample_rate: int = 2
    multimask: int = 3
    iou_depth: int = 3
    iou_hidden: int = 32
    mask_in_chans: int = 16


CASES = [
    # A wide image, windows that need padding (14 tokens in windows of 4), both kinds of block.
    Case("mixed", 3, grid=14, patch=8, dim=48, depth=3, heads=3, window=4, global_blocks=(1,), neck=32,
         width=75, height=49, points=((20.5, 15.0, 1), (26.0, 22.25, 1), (60.0, 40.0, 0)), learning_rate=2e-3),
    # A tall image smaller than the square, positive points only, everything else unlike SAM's usual proportions.
    Case("tall", 3, grid=8, patch=16, dim=32, depth=2, heads=2, window=5, global_blocks=(), neck=16,
         width=61, height=90, points=((12.0, 20.0, 1),), learning_rate=3e-3,
         mlp_ratio=2.5, decoder_depth=1, decoder_mlp=40, downsample_rate=1, multimask=1, iou_depth=2, iou_hidden=24, mask_in_chans=8),
    # A square image larger than the square, global blocks alone, more points of one label than of the other.
    Case("global", 14, grid=10, patch=8, dim=32, depth=2, heads=4, window=0, global_blocks=(0, 1), neck=32,
         width=120, height=110, points=((36, 36, 1), (42, 38, 1), (40, 43, 1), (90, 24, 0)), learning_rate=2e-3, decoder_depth=3),
]


def build(case):
    torch.manual_seed(case.seed)
    size = case.grid * case.patch
    norm = lambda dim: torch.nn.LayerNorm(dim, eps=1e-6)
    sam = Sam(
        image_encoder=ImageEncoderViT(
            img_size=size, patch_size=case.patch, embed_dim=case.dim, depth=case.depth, num_heads=case.heads, mlp_ratio=case.mlp_ratio,
            out_chans=case.neck, norm_layer=norm, use_rel_pos=True, window_size=case.window, global_attn_indexes=case.global_blocks),
        prompt_encoder=PromptEncoder(case.neck, (case.grid, case.grid), (size, size), case.mask_in_chans),
        mask_decoder=MaskDecoder(
            transformer_dim=case.neck, num_multimask_outputs=case.multimask, iou_head_depth=case.iou_depth,
            iou_head_hidden_dim=case.iou_hidden,
            transformer=TwoWayTransformer(
                depth=case.decoder_depth, embedding_dim=case.neck, num_heads=8, mlp_dim=case.decoder_mlp,
                attention_downsample_rate=case.downsample_rate)),
    )
    # Upstream starts positions and relative positions at zero, where an error in their use would not show.
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if "pos_embed" in name or "rel_pos" in name:
                parameter.normal_(std=0.5)
            elif "norm" in name or name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return sam.eval()


def draw_image(case):
    """Bright discs on a dark, uneven, noisy ground, as H x W x 3 bytes."""
    rng = np.random.default_rng(case.seed)
    y, x = np.mgrid[0 : case.height, 0 : case.width].astype(np.float64)
    image = np.stack([40 + 30 * x / case.width, 50 + 20 * y / case.height, np.full_like(x, 60)], axis=-1)
    for _ in range(6):
        cx, cy, radius = rng.uniform(0, case.width), rng.uniform(0, case.height), rng.uniform(8, 20)
        image[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = [200, 120, 170]
    for px, py, label in case.points:
        if label == 1:
            image[(x - px) ** 2 + (y - py) ** 2 < 15**2] = [200, 120, 170]
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def preprocess(sam, image):
    """To the square: longest side to its size, normalised once, padded right and below."""
    height, width = image.shape[:2]
    scale = sam.image_encoder.img_size / max(height, width)
    size = int(height * scale + 0.5), int(width * scale + 0.5)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    return sam.preprocess(pixels), size


def decode(sam, embedding, points=None, masks=None):
    sparse, dense = sam.prompt_encoder(points=points, boxes=None, masks=masks)
    return sam.mask_decoder.predict_masks(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense)


def initial_mask(case, embedding):
    grid = case.grid
    features = F.normalize(embedding[0].flatten(1).T, dim=1)
    similarity = features @ features.T
    scale = grid * case.patch / max(case.width, case.height)

    def mean_similarity(label):
        tokens = [int(y * scale / case.patch) * grid + int(x * scale / case.patch) for x, y, l in case.points if l == label]
        return similarity[tokens].mean(0) if tokens else None

    positive, negative = mean_similarity(1), mean_similarity(0)
    if negative is None:
        normalised = (positive - positive.min()) / (positive.max() - positive.min())
        foreground, margin = normalised > 0.5, (normalised - 0.5).abs().min()
    else:
        foreground, margin = positive > negative, (positive - negative).abs().min()
    assert margin > 1e-5, f"{case.name}: a token decided by {margin:.1e} is no ground for an exact comparison"
    assert 0.05 < foreground.float().mean() < 0.95, f"{case.name}: J says too little"
    mask = F.interpolate(foreground.float().view(1, 1, grid, grid), (4 * grid, 4 * grid), mode="bilinear", align_corners=True)
    return (mask > 0.5).float()


def loss_of(prediction, target):
    """BCE and soft Dice; the cross-entropy of the two extreme pixels, which are 0 and 1 by construction, is a constant."""
    extreme = (prediction == prediction.max()) | (prediction == prediction.min())
    cross_entropy = F.binary_cross_entropy(torch.where(extreme, prediction.detach(), prediction), target)
    both, only_target, only_prediction = (prediction * target).sum(), ((1 - prediction) * target).sum(), (prediction * (1 - target)).sum()
    dice = 1 - (2 * both + 1) / (2 * both + only_target + only_prediction + 1)
    return cross_entropy + dice


def finetune(case, sam, pixels, target, null_prompt):
    optimizer = torch.optim.Adam(sam.image_encoder.parameters(), lr=case.learning_rate)
    losses, ious, predictions = [], [], []
    for _ in range(STEPS):
        logits = sam.mask_decoder.predict_masks(sam.image_encoder(pixels), *null_prompt)[0][:, :1]
        prediction = (logits - logits.min()) / (logits.max() - logits.min())
        loss = loss_of(prediction, target)
        binary, truth = prediction > 0.5, target > 0.5
        losses.append(loss.item())
        ious.append(((binary & truth).sum() / (binary | truth).sum()).item())
        predictions.append(prediction.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    best = max(range(STEPS), key=lambda step: (ious[step], step))
    return losses, ious, best, predictions[best]


def check_conditioning(case, losses, pixels, target, null_prompt):
    """The same in float64. Where the pixel of the maximum is nearly another's, rounding alone sends the five steps elsewhere."""
    exact, *_ = finetune(case, build(case).double(), pixels.double(), target.double(), [tensor.double() for tensor in null_prompt])
    worst = max(abs(a - b) / b for a, b in zip(losses, exact))
    assert worst < 1e-6, f"{case.name}: rounding changes the losses by {worst:.1e}; take another seed"


def make(case):
    sam = build(case)
    state = sam.state_dict()
    save_file(state, HERE / f"{case.name}.safetensors")
    if case.name == "tall":
        torch.save(state, HERE / f"{case.name}.pth")
    image = draw_image(case)
    pixels, size = preprocess(sam, image)
    with torch.no_grad():
        embedding = sam.image_encoder(pixels)
        target = initial_mask(case, embedding)
        scale = sam.image_encoder.img_size / max(case.width, case.height)
        coordinates = torch.tensor([[[x * scale, y * scale] for x, y, _ in case.points]], dtype=torch.float32)
        labels = torch.tensor([[label for _, _, label in case.points]], dtype=torch.float32)
        null, null_iou = decode(sam, embedding)
        pointed, pointed_iou = decode(sam, embedding, points=(coordinates, labels))
        masked, masked_iou = decode(sam, embedding, masks=target * 20 - 10)
        null_prompt = sam.prompt_encoder.get_dense_pe(), *sam.prompt_encoder(points=None, boxes=None, masks=None)
    losses, ious, best, prediction = finetune(case, sam, pixels, target, null_prompt)
    check_conditioning(case, losses, pixels, target, null_prompt)
    assert abs(losses[-1] - losses[0]) > 0.02, f"{case.name}: five steps change too little, {losses}"
    with torch.no_grad():
        soft = sam.postprocess_masks(prediction, size, (case.height, case.width))
    undecided = ((soft - 0.5).abs() < 1e-5).sum().item()
    print(f"{case.name}: losses {losses}, ious {ious}, best step {best + 1}, {undecided} undecided pixels")
    assert undecided == 0
    expected = {
        "image": torch.from_numpy(image),
        "points": torch.tensor(case.points, dtype=torch.float64),
        "learning_rate": torch.tensor([case.learning_rate], dtype=torch.float64),
        "pixels": pixels,
        "embedding": embedding,
        "initial_mask": target.to(torch.uint8),
        "null": null, "null_iou": null_iou,
        "pointed": pointed, "pointed_iou": pointed_iou,
        "masked": masked, "masked_iou": masked_iou,
        "losses": torch.tensor(losses, dtype=torch.float64),
        "ious": torch.tensor(ious, dtype=torch.float64),
        "best_step": torch.tensor([best + 1], dtype=torch.int64),
        "mask": (soft[0, 0] > 0.5).to(torch.uint8),
    }
    save_file({name: tensor.contiguous() for name, tensor in expected.items()}, HERE / f"{case.name}.expected.safetensors")


def make_storages():
    """Tensors that share storages, begin in their middle, have strides, or are of 16 bits."""
    base = torch.arange(24, dtype=torch.float32).view(4, 6) / 7
    tensors = {
        "whole": base,
        "transposed": base.T,
        "sliced": base[1:3, ::2],
        "scalar": base[2, 3],
        "half": base.half(),
        "bfloat16": base.bfloat16()[:, 1:],
    }
    torch.save(tensors, HERE / "storages.pth")
    save_file({name: tensor.float().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()},
              HERE / "storages.expected.safetensors")


if __name__ == "__main__":
    make_storages()
    torch.set_num_threads(1)
    for case in CASES:
        make(case)
