"""Writes vit_b.expected.safetensors and vit_b.names: part of what the official ViT-B makes of an image, with weights that anyone can count out.

    pip install -r crates/segmenter/tests/parity/requirements.txt
    python crates/segmenter/tests/parity/vit_b.py

A checkpoint of 375 MB is not for a repository. So every weight follows from its tensor's name and its place in it, here and in
tests/vit_b.rs, and only the image, every 257th number of its embedding, and the names and sizes of the tensors are kept.
"""

import numpy as np
import torch
from safetensors.torch import save_file
from segment_anything import sam_model_registry

from make_fixtures import HERE, preprocess
from official_sizes import draw_image


def counted(name, shape):
    """Numbers from -1 to 1: SplitMix64 of the place, started at the FNV-1a hash of the name; then scaled to what a trained tensor has."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    numbers = (z >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)
    if "pos" in name:
        numbers *= np.float32(0.25)
    elif len(shape) > 1:
        numbers *= np.float32(np.sqrt(3 / np.prod(shape[1:])))
    else:
        numbers = numbers * np.float32(0.125) + np.float32(name.endswith("weight"))
    return torch.from_numpy(numbers.reshape(shape))


def main():
    sam = sam_model_registry["vit_b"]().eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in sam.state_dict().items()}
    sam.load_state_dict({name: counted(name, shape) for name, shape in shapes.items()}, strict=True)
    image = draw_image()[::10, ::10].copy()
    with torch.no_grad():
        embedding = sam.image_encoder(preprocess(sam, image)[0])
    print("the embedding's spread is", embedding.std().item(), "its largest number", embedding.abs().max().item())
    save_file({"image": torch.from_numpy(image), "embedding": embedding.flatten()[::257].clone()}, HERE / "vit_b.expected.safetensors")
    (HERE / "vit_b.names").write_text("".join(" ".join([name, *map(str, shape)]) + "\n" for name, shape in shapes.items()))


if __name__ == "__main__":
    main()
