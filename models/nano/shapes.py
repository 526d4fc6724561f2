"""Objects of a generated image: the shapes of a kind and how they lie."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

SIZE = 512
Rng = np.random.Generator


@dataclass
class Kind:
    """How the objects of one kind look and lie."""

    shape: str  # blob, polygon, ring, curve
    radius: float
    spread: float  # log-normal spread of the radius
    elongation: float
    roughness: float
    count: int
    overlap: float  # the share of an object that may lie on others
    clusters: int  # 0: uniform over the image
    colour: np.ndarray
    jitter: float  # of the colour, object to object
    texture: float
    grain: float
    rim: float  # signed contrast of the outline
    dome: float  # signed contrast of the centre
    opacity: float
    faint: float = 0.0  # how far single objects may fade into the ground
    angle: float | None = None  # the common direction of the objects, if they have one
    hosts: int = 0  # lies within the objects of this other kind, one each
    decoy: bool = False  # painted, but ground in the truth


def outline(rng: Rng, kind: Kind, radius: float) -> np.ndarray:
    """Contour points (n, 2) around the origin."""
    if kind.shape == "polygon":
        corners = int(rng.integers(3, 8))
        theta = np.sort(rng.uniform(0, 2 * np.pi / corners * 0.8, corners) + np.arange(corners) * 2 * np.pi / corners)
        rho = radius * rng.uniform(0.8, 1.2, corners)
    else:
        theta = np.linspace(0, 2 * np.pi, 40 if radius < 40 else 120, endpoint=False)
        rho = np.ones_like(theta)
        for k in range(2, 8):
            rho += kind.roughness * rng.standard_normal() / k**1.1 * np.cos(k * theta + rng.uniform(0, 2 * np.pi))
        rho = radius * np.clip(rho, 0.25, 2.5)
    stretch = np.sqrt(max(1.0, kind.elongation * np.exp(0.2 * rng.standard_normal())))
    points = np.stack([rho * np.cos(theta) * stretch, rho * np.sin(theta) / stretch], 1)
    turn = rng.uniform(0, 2 * np.pi) if kind.angle is None else kind.angle + 0.25 * rng.standard_normal()
    c, s = np.cos(turn), np.sin(turn)
    return points @ np.array([[c, s], [-s, c]])


def walk(rng: Rng, length: float) -> np.ndarray:
    """A smoothed random walk: the centre line of a vessel or fibre."""
    steps = int(rng.integers(20, 60))
    bend = cv2.GaussianBlur(rng.standard_normal((steps, 1)).astype(np.float32), (1, 9), 2)[:, 0]
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(bend) * rng.uniform(0.1, 0.9)
    points = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1) * (length / steps), 0)
    return points - points.mean(0)


def place(rng: Rng, kinds: list[Kind]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay every kind's objects: the map of instances, the kind of each instance, the map of rims."""
    instances = np.zeros((SIZE, SIZE), np.int32)
    rims = np.zeros((SIZE, SIZE), np.uint8)
    owner, laid = [0], [(0.0, 0.0, 0.0)]  # of every instance: its kind; its centre and radius
    for number, kind in enumerate(kinds, 1):
        centres = rng.uniform(0, SIZE, (max(kind.clusters, 1), 2))
        around = [spot for spot, host in zip(laid, owner) if host == kind.hosts] if kind.hosts else []
        for attempt in range(len(around) if kind.hosts else kind.count):
            radius = kind.radius * np.exp(kind.spread * rng.standard_normal())
            if kind.hosts:
                x, y, room = around[attempt]
                radius = min(radius, 0.6 * room)
                centre = np.array([x, y]) + rng.uniform(-0.3, 0.3, 2) * room
            elif kind.clusters:
                centre = centres[rng.integers(kind.clusters)] + rng.standard_normal(2) * (60 + 3 * kind.radius)
            else:
                centre = rng.uniform(0, SIZE, 2)
            stamp = np.zeros((SIZE, SIZE), np.uint8) if radius > 60 or kind.shape == "curve" else None
            if kind.shape == "curve":
                line = (walk(rng, rng.uniform(100, 600)) + centre).astype(np.int32)
                x0, y0, x1, y1 = 0, 0, SIZE, SIZE
                cv2.polylines(stamp, [line], False, 1, max(2, int(radius / 2)))
                contour = None
            else:
                contour = outline(rng, kind, radius) + centre
                x0, y0 = np.maximum(contour.min(0).astype(int) - 2, 0)
                x1, y1 = np.minimum(contour.max(0).astype(int) + 3, SIZE)
                if x1 - x0 < 4 or y1 - y0 < 4:
                    continue
                contour = (contour - (x0, y0)).astype(np.int32)
                stamp = np.zeros((y1 - y0, x1 - x0), np.uint8)
                cv2.fillPoly(stamp, [contour], 1)
                if kind.shape == "ring":
                    middle = contour.mean(0)
                    inner = (middle + (contour - middle) * rng.uniform(0.35, 0.75)).astype(np.int32)
                    cv2.fillPoly(stamp, [inner], 0)
            on = stamp.astype(bool)
            area = int(on.sum())
            view = instances[y0:y1, x0:x1]
            if area < 12 or (not kind.hosts and (view[on] > 0).sum() > kind.overlap * area):
                continue
            owner.append(number)
            laid.append((centre[0], centre[1], radius))
            if not kind.hosts and rng.random() < 0.5:  # below what lies there, or above
                on &= view == 0
            view[on] = len(owner) - 1
            edge = stamp - cv2.erode(stamp, np.ones((3, 3), np.uint8), iterations=1 + int(radius > 15))
            rims[y0:y1, x0:x1][on] = edge[on]
    return instances, np.array(owner, np.uint8), rims
