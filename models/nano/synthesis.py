"""Procedurally generated images with a map of kinds and a map of instances.

Nothing here is drawn from, fitted to or copied from a real image: shapes are radial Fourier series,
polygons and smoothed random walks, textures are sums of smooth noise, colours are random.

`scene(rng)` gives one `Scene`, `turned` a random crop of it.
Run as a program it writes a sheet of examples: `python models/nano/synthesis.py sheet.png`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import cv2
import numpy as np

from shapes import SIZE, Kind, Rng, outline, place

cv2.setNumThreads(0)


@dataclass
class Scene:
    """An image (H, W, 3) uint8 with its kinds (0 is ground) and instances (0 is ground), both (H, W)."""

    image: np.ndarray
    kinds: np.ndarray
    instances: np.ndarray


# --- fields -----------------------------------------------------------------------------------


def noise(rng: Rng, scale: float, octaves: int = 1, size: int = SIZE) -> np.ndarray:
    """Smooth noise of about zero mean and unit deviation, features `scale` pixels wide."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        cells = int(np.clip(size / scale * 2**octave, 2, size))
        grid = rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
        fine = cv2.resize(grid, None, fx=size / cells, fy=size / cells, interpolation=cv2.INTER_CUBIC)
        top, left = (rng.integers(0, d - size + 1) for d in fine.shape)
        total += fine[top : top + size, left : left + size] * 0.6**octave
    return total / (total.std() + 1e-6)


def fibres(rng: Rng, scale: float) -> np.ndarray:
    """Wavy parallel strands, as in connective tissue or muscle."""
    angle, phase = rng.uniform(0, np.pi), noise(rng, rng.uniform(60, 250), 2)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    along = x * np.cos(angle) + y * np.sin(angle)
    strands = np.sin(along * (2 * np.pi / scale) + phase * rng.uniform(1, 4))
    return (strands * (0.6 + 0.4 * noise(rng, 40))).astype(np.float32)


def texture(rng: Rng) -> np.ndarray:
    """One of several textures, about zero mean and unit deviation."""
    choice = rng.random()
    if choice < 0.45:
        return noise(rng, np.exp(rng.uniform(np.log(3), np.log(120))), int(rng.integers(1, 5)))
    if choice < 0.65:
        return fibres(rng, np.exp(rng.uniform(np.log(6), np.log(50))))
    if choice < 0.85:
        return noise(rng, rng.uniform(40, 200), 2) * 0.7 + noise(rng, rng.uniform(2, 8)) * 0.7
    cells = np.abs(noise(rng, rng.uniform(8, 40)))  # a net of thin lines
    return (cells - cells.mean()) / (cells.std() + 1e-6)


# --- colours and kinds ------------------------------------------------------------------------


def random_kind(rng: Rng, colour: np.ndarray, crowd: float) -> Kind:
    """A kind of small numerous objects with probability `crowd`, otherwise of few larger ones."""
    crowded = rng.random() < crowd
    odds = [0.86, 0.04, 0.06, 0.04] if crowded else [0.66, 0.08, 0.16, 0.1]
    shape = str(rng.choice(["blob", "polygon", "ring", "curve"], p=odds))
    radius = np.exp(rng.uniform(np.log(7), np.log(36))) if crowded else np.exp(rng.uniform(np.log(28), np.log(130)))
    cover = rng.uniform(0.05, 0.55) if crowded else rng.uniform(0.05, 0.4)
    count = int(np.clip(cover * SIZE**2 / (np.pi * radius**2) * 1.3, 4 if crowded else 1, 350 if crowded else 14))
    return Kind(
        shape=shape,
        radius=float(radius),
        spread=rng.uniform(0.05, 0.4),
        elongation=1 + rng.exponential(0.4) if rng.random() < 0.8 else rng.uniform(2, 6),
        roughness=float(rng.choice([0.02, 0.1, 0.25, 0.45], p=[0.3, 0.4, 0.2, 0.1])),
        count=min(count, 12) if shape == "curve" else count,
        overlap=float(rng.choice([0.0, 0.08, 0.4], p=[0.35, 0.4, 0.25])),
        clusters=int(rng.choice([0, rng.integers(1, 8)])),
        colour=colour,
        jitter=rng.uniform(0, 14),
        texture=rng.exponential(9),
        grain=np.exp(rng.uniform(np.log(2), np.log(30))),
        rim=rng.normal(0, 18) if rng.random() < 0.5 else 0.0,
        dome=rng.normal(0, 22) if rng.random() < 0.5 else 0.0,
        opacity=rng.uniform(0.7, 1),
        faint=rng.uniform(0, 0.75) if rng.random() < 0.4 else 0.0,
        angle=rng.uniform(0, np.pi) if rng.random() < 0.3 else None,
    )


def palette(rng: Rng, style: str, number: int, apart: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Ground colour (3,) and `number` object colours, told apart from the ground and one another."""
    for attempt in range(60):
        least = apart * 45 * 0.96**attempt
        if style == "stain":  # two dyes absorbing light, thick in the objects, thin in the ground
            violet_and_pink = np.array([[0.65, 0.75, 0.35], [0.15, 0.85, 0.4]])
            hue = rng.uniform(0.2, 1.3, (2, 3)) if rng.random() < 0.5 else violet_and_pink * rng.uniform(0.7, 1.3, (2, 3))
            ground = 255 * np.exp(-hue[1] * rng.uniform(0.05, 0.7))
            amount = np.stack([rng.uniform(0.5, 1.6, number), rng.uniform(0.0, 0.8, number)], 1)
            colours = 255 * np.exp(-amount @ hue)
        elif style == "fluorescence":
            tint = np.ones(3) if rng.random() < 0.6 else rng.uniform(0, 1, 3)
            ground = rng.uniform(2, 45) * tint
            colours = rng.uniform(60, 245, (number, 1)) * (tint if rng.random() < 0.6 else rng.uniform(0, 1, (number, 3)))
        elif style == "grey":
            ground = np.full(3, rng.uniform(20, 235))
            colours = np.repeat(rng.uniform(10, 245, (number, 1)), 3, 1)
            least = apart * 30 * 0.96**attempt
        else:
            ground = rng.uniform(10, 245, 3)
            colours = np.clip(ground + rng.normal(0, 55, (number, 3)), 0, 255)
        everything = np.vstack([ground[None], colours])
        gaps = np.linalg.norm(everything[:, None] - everything[None], axis=2)[np.triu_indices(number + 1, 1)]
        if gaps.min() > least * (1.0 if style == "fluorescence" or number == 1 else 0.8):
            break
    return ground.astype(np.float32), colours.astype(np.float32)


def paint_ground(rng: Rng, colour: np.ndarray, style: str) -> np.ndarray:
    """The ground: several regions of nearby colours, each with its texture, and holes in stained tissue."""
    image = np.broadcast_to(colour, (SIZE, SIZE, 3)).astype(np.float32).copy()
    strength = rng.exponential(4 if style == "fluorescence" else 8)
    image += (texture(rng) * strength)[..., None] * (1 + 0.3 * rng.standard_normal(3).astype(np.float32))
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.35, 0.3, 0.2, 0.15]))):
        field = noise(rng, rng.uniform(60, 260), 3)
        soft = 1 / (1 + np.exp(-(field - rng.uniform(-0.5, 1.2)) * np.exp(rng.uniform(0.5, 3))))
        shade = rng.normal(0, 16, 3) if style != "grey" else np.repeat(rng.normal(0, 16), 3)
        if style == "stain" and rng.random() < 0.4:  # lumen or fat: nearly no dye
            shade = 0.9 * (rng.uniform(225, 250) - colour)
        elif style == "fluorescence":
            shade *= 0.5
        image += soft[..., None] * (shade + (texture(rng) * rng.exponential(8))[..., None]).astype(np.float32)
    return image


def paint(rng: Rng, image: np.ndarray, kinds: list[Kind], instances: np.ndarray, owner: np.ndarray, rims: np.ndarray, style: str, ground: np.ndarray) -> np.ndarray:
    """Lay the objects over the ground."""
    colours = np.zeros((len(owner), 3), np.float32)
    for number, kind in enumerate(kinds, 1):
        mine = owner == number
        shift = rng.normal(0, kind.jitter, (mine.sum(), 1)) + rng.normal(0, kind.jitter / 3, (mine.sum(), 3)) * (style != "grey")
        if style == "fluorescence":
            colours[mine] = kind.colour * np.exp(rng.normal(-0.15, min(0.05 + kind.jitter / 30, 0.45), (mine.sum(), 1)))
        else:
            colours[mine] = kind.colour + shift
        colours[mine] += (ground - colours[mine]) * (rng.uniform(0, 1, (mine.sum(), 1)) ** 2 * kind.faint)
    layer, opacity = colours[instances], np.zeros((SIZE, SIZE), np.float32)
    depth = np.minimum(cv2.distanceTransform((rims == 0).astype(np.uint8) * (instances > 0), cv2.DIST_L2, 3), 60)
    which = owner[instances]
    for number, kind in enumerate(kinds, 1):
        on = which == number
        if not on.any():
            continue
        relief = noise(rng, kind.grain, 2)[on] * kind.texture + kind.rim * rims[on]
        relief += kind.dome * (depth[on] / max(kind.radius, 6) - 0.4)
        layer[on] += relief[:, None]
        opacity[on] = kind.opacity
    softness = np.exp(rng.uniform(np.log(0.4), np.log(2.0)))
    opacity = cv2.GaussianBlur(opacity, (0, 0), softness)[..., None]
    filled = np.where(instances[..., None] > 0, layer, image)
    layer = np.where(instances[..., None] > 0, layer, cv2.GaussianBlur(filled, (0, 0), 1.5))
    image = image * (1 - opacity) + layer * opacity
    if style == "fluorescence" and rng.random() < 0.6:  # light from out of focus
        image += cv2.GaussianBlur(image, (0, 0), rng.uniform(6, 30)) * rng.uniform(0.05, 0.35)
    return image


def degrade(rng: Rng, image: np.ndarray, style: str) -> np.ndarray:
    """Uneven light, loss of resolution, blur, sensor noise, compression."""
    if rng.random() < 0.5:
        image = image * (1 + np.clip(noise(rng, rng.uniform(250, 600)) * rng.uniform(0.02, 0.15), -0.5, 0.5)[..., None])
    if style != "fluorescence" and rng.random() < 0.4:  # bright on dark as often as dark on bright
        image = 255 - image
    if rng.random() < 0.4:
        image = image + rng.normal(0, rng.exponential(6), image.shape[:2] + (1 if style == "grey" else 3,))
    if style == "fluorescence" and rng.random() < 0.35:  # underexposed
        image = image * rng.uniform(0.15, 0.7)
    image = image.astype(np.float32)
    if rng.random() < 0.55:  # an image of fewer pixels, enlarged
        small = cv2.resize(image, None, fx=(f := rng.uniform(0.3, 0.9)), fy=f, interpolation=cv2.INTER_AREA)
        small += rng.normal(0, rng.exponential(3), small.shape[:2] + (1,))
        image = cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    elif rng.random() < 0.6:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 2.2))
    if rng.random() < 0.25:
        image = 255 * (np.clip(image, 0, 255) / 255) ** np.exp(rng.normal(0, 0.35))
    image = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        image = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 92))])[1], cv2.IMREAD_COLOR)
    return image


# --- scenes -----------------------------------------------------------------------------------


def organs(rng: Rng) -> Scene:
    """A body with a few large soft look-alikes in grey, each a kind of its own, and small clutter."""
    level = rng.uniform(60, 190)
    number = int(rng.integers(2, 7))
    contrast = np.exp(rng.uniform(np.log(8), np.log(50)))
    image = np.full((SIZE, SIZE, 3), rng.uniform(0, 30), np.float32)
    body = np.zeros((SIZE, SIZE), np.uint8)
    shell = Kind("blob", rng.uniform(190, 300), 0.05, 1.4, 0.05, 1, 1, 0, np.zeros(3), 0, 0, 0, 0, 0, 1)
    cv2.fillPoly(body, [(outline(rng, shell, shell.radius) + SIZE / 2 + rng.normal(0, 30, 2)).astype(np.int32)], 1)
    inside = (texture(rng) * rng.exponential(6) + level)[..., None].astype(np.float32)
    image = np.where(body[..., None] > 0, inside, image)
    kinds = []
    for _ in range(number):
        grey = level + rng.choice([-1, 1]) * contrast * rng.uniform(0.6, 1.4) * (1 if rng.random() < 0.8 else 2)
        kinds.append(Kind("blob", np.exp(rng.uniform(np.log(22), np.log(110))), 0.1, 1 + rng.exponential(0.6), rng.uniform(0.05, 0.35), 1,
                          0.15, 0, np.full(3, grey, np.float32), 0, rng.exponential(5), rng.uniform(2, 20), 0, 0, 1))
    instances, owner, rims = place(rng, kinds)
    instances *= cv2.erode(body, np.ones((9, 9), np.uint8)) if rng.random() < 0.8 else 1
    image = paint(rng, image, kinds, instances, owner, rims, "grey", np.full(3, level, np.float32))
    image = degrade(rng, image, "grey")
    return Scene(image, owner[instances], instances.astype(np.int16))


def cells(rng: Rng, ground: np.ndarray, kinds: list[Kind]) -> list[Kind]:
    """Pale cells, and in each a nucleus; after at most two of the other kinds."""
    nucleus, cell = random_kind(rng, kinds[-1].colour, 1.0), random_kind(rng, kinds[-1].colour, 1.0)
    cell.shape, cell.radius, cell.count = "blob", rng.uniform(12, 60), int(rng.integers(8, 60))
    cell.colour, cell.decoy = ground + (nucleus.colour - ground) * rng.uniform(0.12, 0.5), rng.random() < 0.6
    nucleus.shape, nucleus.radius, nucleus.roughness = "blob", cell.radius * rng.uniform(0.2, 0.55), min(nucleus.roughness, 0.1)
    nucleus.hosts = len(kinds[:2]) + 1
    return [cell, nucleus]


def scene(rng: Rng) -> Scene:
    """One generated image."""
    if rng.random() < 0.08:
        return organs(rng)
    style = str(rng.choice(["stain", "fluorescence", "grey", "colour"], p=[0.36, 0.2, 0.2, 0.24]))
    number = int(rng.choice([1, 2, 3, 4], p=[0.33, 0.42, 0.2, 0.05]))
    clear = rng.random() < 0.5  # kinds that colour alone tells apart
    ground, colours = palette(rng, style, number, 2.0 if clear else 1.0)
    crowd = rng.choice([0.95, 0.5, 0.05], p=[0.62, 0.25, 0.13])
    kinds = [random_kind(rng, colour, crowd) for colour in colours]
    kinds.sort(key=lambda k: -k.radius)
    if clear:
        for kind in kinds:
            kind.faint, kind.jitter, kind.texture, kind.opacity = 0.0, kind.jitter / 2, kind.texture / 2, max(kind.opacity, 0.85)
    if rng.random() < 0.15:
        kinds = [*kinds[:2], *cells(rng, ground, kinds)]
    elif len(kinds) > 1 and rng.random() < 0.15:
        kinds[0].decoy, kinds[0].colour = True, ground + (kinds[0].colour - ground) * rng.uniform(0.15, 0.4)
    image = paint_ground(rng, ground, style)
    instances, owner, rims = place(rng, kinds)
    image = degrade(rng, paint(rng, image, kinds, instances, owner, rims, style, ground), style)
    owner = np.where([n > 0 and kinds[n - 1].decoy for n in owner], 0, owner).astype(np.uint8)
    return Scene(image, owner[instances], np.where(owner[instances] > 0, instances, 0).astype(np.int16))


def turned(rng: Rng, whole: Scene, size: int) -> Scene:
    """A random crop of `size` pixels, mirrored, turned by quarter turns, channels in any order."""
    top, left = rng.integers(0, SIZE - size + 1, 2)
    turns, flip, order = int(rng.integers(4)), rng.random() < 0.5, rng.permutation(3) if rng.random() < 0.3 else np.arange(3)

    def cut(array: np.ndarray) -> np.ndarray:
        array = np.rot90(array[top : top + size, left : left + size], turns)
        return np.ascontiguousarray(array[:, ::-1] if flip else array)

    return Scene(cut(whole.image)[..., order], cut(whole.kinds), cut(whole.instances))


def main() -> None:
    rng = np.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    rows = []
    for _ in range(4):
        row = [scene(rng) for _ in range(6)]
        masks = [cv2.applyColorMap((s.kinds * 50).astype(np.uint8), cv2.COLORMAP_TURBO) * (s.kinds > 0)[..., None] for s in row]
        rows += [np.hstack([s.image for s in row]), np.hstack(masks)]
    cv2.imwrite(sys.argv[1], cv2.resize(np.vstack(rows), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)[..., ::-1])


if __name__ == "__main__":
    main()
