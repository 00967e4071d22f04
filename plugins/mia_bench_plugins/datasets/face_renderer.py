"""Procedural face renderer of the embedded track ``synth-faces``.

A face is a pure function of two latent vectors. The *identity* vector determines the person (skull,
colours, hair, features), the *nuisance* vector the photograph (pose, framing, light, expression, background).
Latents are standard normal and are squashed by ``tanh``, so that any real vector gives a plausible face.

The image is composed of shapes with analytic anti-aliasing: a shape is a first-order signed distance,
positive inside, and its coverage is that distance in pixels, clamped to a ramp of one pixel. This needs no
supersampling and works at any size.

Conventions: ``x`` and ``u`` grow to the right, ``y`` and ``v`` downwards; the image spans [-1, 1] in both
directions. ``(u, v)`` are head coordinates, without roll, scale and shift. Shapes: scalars per person
(C, 1, 1), colours (C, 3, 1, 1), fields (C, H, W), the canvas (C, 3, H, W), for C rows in a chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

IDENTITY_FACTORS: tuple[str, ...] = (
    "face_width", "face_height", "jaw_width", "chin_length", "skin_tone", "skin_hue",
    "hair_tone", "hair_hue", "hair_length", "hair_volume", "hair_fringe", "hair_parting",
    "hair_curl", "ear_size", "eye_size", "eye_spacing", "eye_height", "eye_tilt", "eye_colour",
    "brow_thickness", "brow_angle", "nose_length", "nose_width", "mouth_width", "mouth_height",
    "lip_fullness", "beard", "glasses",
)  # fmt: skip

NUISANCE_FACTORS: tuple[str, ...] = (
    "yaw", "roll", "shift_x", "shift_y", "scale", "light_side", "light_strength", "exposure",
    "warmth", "smile", "mouth_opening", "eye_closing", "brow_raise", "background_hue",
    "background_tone",
)  # fmt: skip

# Pixels per chunk: a few dozen fields of this many floats stay near the caches of a CPU, and below 200 MB.
_CHUNK_PIXELS = 1 << 18

_Rows = dict[str, Tensor]

_SKIN_STOPS = (
    (0.42, 0.27, 0.20), (0.58, 0.39, 0.28), (0.76, 0.55, 0.42), (0.91, 0.72, 0.58), (0.96, 0.82, 0.72),
)  # fmt: skip
_HAIR_STOPS = (
    (0.09, 0.07, 0.08), (0.20, 0.13, 0.10), (0.40, 0.25, 0.15), (0.66, 0.47, 0.25), (0.90, 0.78, 0.52),
)  # fmt: skip
_EYE_STOPS = (
    (0.20, 0.11, 0.07), (0.45, 0.26, 0.10), (0.50, 0.50, 0.18), (0.22, 0.58, 0.44), (0.28, 0.56, 0.88),
)  # fmt: skip


class _Frame(NamedTuple):
    """Head and body coordinates of the pixels, and pixels per unit."""

    u: Tensor
    v: Tensor
    body_x: Tensor
    body_y: Tensor
    y: Tensor
    sharpness: Tensor
    yaw: Tensor


class _Head(NamedTuple):
    """The outline of the head, and the places of its features.

    Distance field, coverage, vertical position (-1 at the crown, 1 at the chin) and extent of the outline;
    heights of eyes, nose and mouth, half width of the nose, half distance of the eyes.
    """

    distance: Tensor
    cover: Tensor
    down: Tensor
    half_width: Tensor
    top: Tensor
    eye: Tensor
    nose: Tensor
    mouth: Tensor
    nose_half: Tensor
    spacing: Tensor


class _Hair(NamedTuple):
    """The hair's silhouette, its waviness, and its colours."""

    distance: Tensor
    wave: Tensor
    colour: Tensor
    dark: Tensor
    light: Tensor


class _Eyes(NamedTuple):
    """Coordinates local to the nearer eye, also for brows and lenses.

    ``along`` grows to the picture's right, ``outward`` away from the nose.
    """

    along: Tensor
    outward: Tensor
    down: Tensor


def sample_identities(count: int, generator: torch.Generator, spread: float = 1.0) -> Tensor:
    """Draw ``count`` identity vectors from N(0, spread^2)."""
    size = (count, len(IDENTITY_FACTORS))
    return torch.randn(size, generator=generator, device=generator.device) * spread


def sample_nuisances(count: int, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Draw ``count`` nuisance vectors from N(0, strength^2)."""
    size = (count, len(NUISANCE_FACTORS))
    return torch.randn(size, generator=generator, device=generator.device) * strength


def render(identities: Tensor, nuisances: Tensor, size: int = 32) -> Tensor:
    """Render one face per row of the latents (N, K) and (N, M), as (N, 3, size, size) in [0, 1]."""
    _check_latents(identities, nuisances, size)
    if identities.device.type == "cpu":
        _settle_allocator()
    rows = max(1, _CHUNK_PIXELS // (size * size))
    count = identities.shape[0]
    images = torch.empty(count, 3, size, size, dtype=torch.float32, device=identities.device)
    with torch.no_grad():
        for start in range(0, count, rows):
            stop = min(start + rows, count)
            person = _named_rows(identities[start:stop], IDENTITY_FACTORS)
            scene = _named_rows(nuisances[start:stop], NUISANCE_FACTORS)
            images[start:stop] = _render_chunk(person, scene, size)
    return images


def add_noise(images: Tensor, generator: torch.Generator, std: float) -> Tensor:
    """Add independent Gaussian sensor noise and clamp to [0, 1]."""
    noise = torch.randn(images.shape, generator=generator, device=generator.device, dtype=images.dtype)
    return noise.to(images.device).mul_(std).add_(images).clamp_(0.0, 1.0)


def _settle_allocator() -> None:
    """Make glibc keep freed memory between chunks, which is about 1.5 times as fast.

    glibc returns the top of its heap to the kernel when more than twice the largest freed mapped block is
    unused, and every chunk then causes page faults. Freeing one block of 30 MB raises that threshold; the
    block is never touched, so it costs no memory. Other allocators are not affected.
    """
    torch.empty(7_500_000, dtype=torch.float32)


def _check_latents(identities: Tensor, nuisances: Tensor, size: int) -> None:
    if identities.ndim != 2 or identities.shape[1] != len(IDENTITY_FACTORS):
        raise ValueError(f"identities must be (N, {len(IDENTITY_FACTORS)}), got {tuple(identities.shape)}")
    if nuisances.ndim != 2 or nuisances.shape[1] != len(NUISANCE_FACTORS):
        raise ValueError(f"nuisances must be (N, {len(NUISANCE_FACTORS)}), got {tuple(nuisances.shape)}")
    if identities.shape[0] != nuisances.shape[0]:
        raise ValueError(f"got {identities.shape[0]} identities but {nuisances.shape[0]} nuisances")
    if size < 1:
        raise ValueError(f"size must be positive, got {size}")


def _named_rows(latents: Tensor, names: tuple[str, ...]) -> _Rows:
    """Squash latents into (-1, 1), nearly uniformly for standard normal ones, and name them."""
    squashed = torch.tanh(latents.to(torch.float32) * 0.8)
    return {name: squashed[:, k].view(-1, 1, 1) for k, name in enumerate(names)}


# --- shapes ---------------------------------------------------------------------------------------


def _cover(distance: Tensor, sharpness: Tensor) -> Tensor:
    """Share of each pixel inside a shape, from its signed distance (positive inside)."""
    return (distance * sharpness).add_(0.5).clamp_(0.0, 1.0)


def _norm(a: Tensor, b: Tensor) -> Tensor:
    """Length of the vector (a, b); several times faster than ``torch.hypot`` on a CPU."""
    return torch.addcmul(a.square(), b, b).sqrt_()


def _ellipse(u: Tensor, v: Tensor, width: Tensor, height: Tensor) -> Tensor:
    """First-order distance to an ellipse of these half axes about the origin."""
    across, down = u * width.reciprocal(), v * height.reciprocal()
    slope = _norm(across * width.reciprocal(), down * height.reciprocal()).add_(1e-3)
    level = (across.square_() + down.square_()).sub_(1.0)
    return level.div_(slope).mul_(-0.5)


def _blob(u: Tensor, v: Tensor, width: Tensor | float, height: Tensor | float) -> Tensor:
    """A round spot of these radii about the origin, 1 at its centre.

    (1 - q / 4)^4 follows the Gaussian exp(-q) closely, ends at a finite distance, and costs a
    tenth of it: the exponential is slow where it underflows, which is nearly everywhere.
    """
    across, down = u * (1.0 / width), v * (1.0 / height)
    return _bump(across.square_() + down.square_())


def _bump(squared: Tensor) -> Tensor:
    """The profile of ``_blob`` over a squared distance; overwrites its argument."""
    return squared.mul_(-0.25).add_(1.0).clamp_(min=0.0).square_().square_()


def _paint(canvas: Tensor, colour: Tensor, cover: Tensor) -> None:
    """Lay a flat colour over the canvas, in place (one canvas-sized temporary at a time)."""
    canvas.lerp_(colour, cover.unsqueeze(1))


# --- colours --------------------------------------------------------------------------------------


def _palette(position: Tensor, stops: tuple[tuple[float, float, float], ...]) -> Tensor:
    """Piecewise linear colour ramp over position in [-1, 1]."""
    table = torch.tensor(stops, dtype=torch.float32, device=position.device)
    steps = torch.arange(len(stops), dtype=torch.float32, device=position.device)
    place = (position.view(-1, 1) + 1.0) * (0.5 * (len(stops) - 1))
    weights = (1.0 - (place - steps).abs()).clamp_(min=0.0)
    return (weights.unsqueeze(-1) * table).sum(dim=1).view(-1, 3, 1, 1)


def _rgb(like: Tensor, red: float, green: float, blue: float) -> Tensor:
    """A fixed colour, on the device of ``like``."""
    return torch.tensor((red, green, blue), dtype=torch.float32, device=like.device).view(1, 3, 1, 1)


def _hue_wheel(angle: Tensor, level: Tensor, chroma: Tensor | float) -> Tensor:
    """A colour of this lightness and strength at an angle of the colour wheel."""
    phases = _rgb(angle, 0.0, -2.094, -4.189)
    return level.unsqueeze(1) + torch.cos(angle.unsqueeze(1) + phases) * chroma


def _skin_colour(person: _Rows) -> Tensor:
    base = _palette(person["skin_tone"], _SKIN_STOPS)
    tint = _rgb(base, 0.028, -0.024, 0.042) * person["skin_hue"].unsqueeze(1)
    return (base + tint * (0.4 + base)).clamp_(0.0, 1.0)


def _hair_colour(person: _Rows) -> Tensor:
    base = _palette(person["hair_tone"], _HAIR_STOPS)
    hue = person["hair_hue"].unsqueeze(1)
    grey = base.mean(dim=1, keepdim=True) * _rgb(base, 0.98, 1.0, 1.06) + 0.10
    red = base * _rgb(base, 0.95, 0.60, 0.44) + _rgb(base, 0.14, 0.03, 0.01)
    return base + (grey - base) * (-hue).clamp(min=0.0) + (red - base) * hue.clamp(min=0.0)


# --- geometry shared by the layers ----------------------------------------------------------------


def _frame(scene: _Rows, size: int) -> _Frame:
    device = scene["yaw"].device
    ticks = (torch.arange(size, dtype=torch.float32, device=device) + 0.5) * (2.0 / size) - 1.0
    x, y = ticks.view(1, 1, size), ticks.view(1, size, 1)
    scale = 1.12 * torch.exp(0.12 * scene["scale"])
    body_x = (x - 0.13 * scene["shift_x"]) / scale
    body_y = (y - 0.05 - 0.10 * scene["shift_y"]) / scale
    # The head tilts about the neck, so that it never comes off the shoulders.
    roll, pivot = 0.26 * scene["roll"], 0.45
    sine, cosine = torch.sin(roll), torch.cos(roll)
    lifted = body_y - pivot
    u = body_x * cosine + lifted * sine
    v = lifted * cosine - body_x * sine + pivot
    return _Frame(u, v, body_x, body_y, y, scale * (size / 2.0), 0.42 * scene["yaw"])


def _head(person: _Rows, frame: _Frame) -> _Head:
    half_width = 0.485 + 0.080 * person["face_width"]
    top = 0.62 + 0.05 * person["face_height"]
    bottom = 0.595 + 0.045 * person["face_height"] + 0.065 * person["chin_length"]
    u = frame.u - 0.10 * frame.yaw
    per_height = torch.where(frame.v < 0, 1.0 / top, 1.0 / bottom)
    down = frame.v * per_height
    # Below the eyes the width is bent: out for a square jaw, in for a heart-shaped face.
    low = down.clamp(0.0, 1.2).square_()
    jaw = -0.07 + 0.29 * person["jaw_width"]
    taper = 1.0 + low * (jaw - (0.06 + 0.10 * person["chin_length"]) * low)
    width = taper * half_width
    across = u / width
    slope = _norm(across / width, down * per_height).add_(1e-3)
    level = across.square().add_(down.square()).sub_(1.0)
    distance = level.div_(slope).mul_(-0.5)
    cover = _cover(distance, frame.sharpness)
    # Nose and mouth divide the space between eyes and chin, so that they never overlap.
    eye = 0.055 + 0.045 * person["eye_height"]
    nose = eye + (bottom - eye) * (0.435 + 0.105 * person["nose_length"])
    mouth = nose + (bottom - nose) * (0.400 + 0.085 * person["mouth_height"])
    nose_half = 0.100 + 0.055 * person["nose_width"]
    spacing = 0.222 + 0.040 * person["eye_spacing"] + 0.12 * (half_width - 0.485)
    return _Head(distance, cover, down, half_width, top, eye, nose, mouth, nose_half, spacing)


def _eyes(frame: _Frame, head: _Head) -> _Eyes:
    """Local coordinates of the eyes on a head that turns like a ball."""
    radius = head.half_width + 0.07
    angle = torch.asin(head.spacing / radius)
    right, left = radius * torch.sin(frame.yaw + angle), radius * torch.sin(frame.yaw - angle)
    # Foreshortening: what turns away gets narrower.
    facing = torch.cos(angle)
    right_width = torch.cos(frame.yaw + angle) / facing
    left_width = torch.cos(frame.yaw - angle) / facing
    on_right = frame.u > 0.5 * (left + right)
    centre = torch.where(on_right, right, left)
    along = (frame.u - centre).mul_(torch.where(on_right, 1.0 / right_width, 1.0 / left_width))
    outward = torch.where(on_right, along, -along)
    return _Eyes(along, outward, frame.v - head.eye)


def _centre_line(frame: _Frame, head: _Head, depth: float) -> Tensor:
    """Horizontal head coordinate about the middle of the face, ``depth`` in front of the ball."""
    radius = head.half_width + 0.07 + depth
    return (frame.u - radius * torch.sin(frame.yaw)) * (1.0 / torch.cos(frame.yaw))


# --- layers, back to front ------------------------------------------------------------------------


def _background(scene: _Rows, frame: _Frame, size: int) -> Tensor:
    hue = 3.1 * scene["background_hue"] + 3.9
    level = 0.60 + 0.22 * scene["background_tone"]
    upper = _hue_wheel(hue, level + 0.07, 0.13)
    lower = _hue_wheel(hue + 0.7, level - 0.09, 0.13)
    ramp = (0.5 + 0.5 * frame.y).unsqueeze(1)
    canvas = upper + (lower - upper) * ramp
    return canvas.expand(-1, -1, size, size).contiguous()


def _paint_shoulders(canvas: Tensor, scene: _Rows, frame: _Frame) -> None:
    hue = 2.4 * scene["background_tone"] - 2.1 * scene["background_hue"] + 0.6
    cloth = _hue_wheel(hue, 0.42 - 0.10 * scene["background_tone"], 0.17)
    width, height = hue.new_tensor(0.82), hue.new_tensor(0.46)
    cover = _cover(_ellipse(frame.body_x, frame.body_y - 1.15, width, height), frame.sharpness)
    _paint(canvas, cloth, cover)


def _hair(person: _Rows, frame: _Frame, head: _Head) -> _Hair:
    volume = 0.5 + 0.5 * person["hair_volume"]
    length = 0.5 + 0.5 * person["hair_length"]
    middle = -0.12
    width = head.half_width + 0.045 + 0.10 * volume + 0.03 * length
    top = head.top + middle + 0.06 + 0.13 * volume
    bottom = 0.22 + 0.95 * length
    v = frame.v - middle
    below = v > 0
    per_height = torch.where(below, 1.0 / bottom, 1.0 / top)
    # The back of the head turns the other way than the face.
    across, down = (frame.u + 0.08 * frame.yaw) * (1.0 / width), v * per_height
    # Round above, and boxy (a quartic) below, so that long hair falls instead of closing up.
    squared = down.square()
    reach = torch.where(below, squared * squared, squared)
    steep = torch.where(below, 2.0 * squared * down, down).mul_(per_height)
    slope = _norm(across * (1.0 / width), steep).add_(1e-3)
    distance = (1.0 - across.square() - reach).div_(slope).mul_(0.5)
    amount = 0.5 + 0.5 * person["hair_curl"]
    wave = torch.sin(17.0 * frame.u + 2.0) * torch.sin(15.0 * frame.v + 5.0 * frame.u)
    wave = wave.mul_(0.062 * amount * (0.3 + 0.7 * amount))
    colour = _hair_colour(person)
    return _Hair(distance.add_(wave), wave, colour, colour * 0.70, colour * 1.22 + 0.05)


def _paint_neck(canvas: Tensor, frame: _Frame, head: _Head, skin: Tensor, shade: Tensor) -> None:
    half = 0.40 * head.half_width + 0.01
    x, y = frame.body_x, frame.body_y
    column = torch.minimum(half - x.abs() + 0.25 * (y - 0.62).clamp(min=0.0).square(), y - 0.2)
    collar = 0.81 - 1.5 * x.square() - y
    cover = _cover(torch.minimum(column, collar), frame.sharpness)
    _paint(canvas, skin * 0.93, cover)
    # The chin's shadow fades with distance from the jaw.
    under = (1.0 + head.distance * 4.0).clamp_(0.0, 1.0).mul_(cover).mul_(0.75)
    _paint(canvas, shade, under)


def _paint_ears(
    canvas: Tensor, person: _Rows, frame: _Frame, head: _Head, skin: Tensor, shade: Tensor
) -> None:
    size = 1.05 + 0.55 * person["ear_size"]
    # Ears sit behind the turning axis: they move against the features.
    u = (frame.u + 0.18 * frame.yaw).abs() - (head.half_width + 0.015 * size)
    v = frame.v - 0.09
    outline = _ellipse(u + 0.12 * v, v, 0.085 * size, 0.135 * size)
    _paint(canvas, skin * 0.96, _cover(outline, frame.sharpness))
    inner = _blob(u - 0.012, v, 0.045 * size, 0.08 * size)
    _paint(canvas, shade, inner.mul_(0.6))


def _paint_face(
    canvas: Tensor, scene: _Rows, frame: _Frame, head: _Head, eyes: _Eyes, skin: Tensor, shade: Tensor
) -> None:
    face = head.cover
    _paint(canvas, skin, face)
    nose_u, nose_v = _centre_line(frame, head, 0.10), frame.v - head.nose
    half, length = head.nose_half, head.nose - head.eye
    blush = _blob(eyes.outward - 0.06, eyes.down - 0.23, 0.13, 0.10).mul_(0.34)
    # The end of the nose is as rosy as the cheeks.
    blush = blush.add_(_blob(nose_u, nose_v - 0.005, half * 1.15, 0.075).mul_(0.42)).mul_(face)
    rosy = skin * _rgb(skin, 1.02, 0.74, 0.70) + _rgb(skin, 0.04, 0.0, 0.01)
    _paint(canvas, rosy, blush)
    # All soft shadows are gathered into one field, which is painted once.
    socket = _blob(eyes.outward + 0.035, eyes.down + 0.045, 0.15, 0.10).mul_(0.34)
    lean = torch.where(scene["light_side"] > 0, -1.0, 1.0) * scene["light_side"].abs().sqrt()
    bridge_v = nose_v + (0.5 * length - 0.02)
    side = 0.030 + 0.35 * half
    bridge = _blob(nose_u - side * lean, bridge_v, 0.048, 0.5 * length + 0.03)
    under = _blob(nose_u, nose_v - 0.058, half * 1.15, 0.045)
    shadow = socket.add_(bridge.mul_(0.45 * lean.abs())).add_(under.mul_(0.75))
    _paint(canvas, shade, shadow.clamp_(0.0, 1.0).mul_(face))
    # The ridge and tip catch the light.
    ridge = _blob(nose_u + 0.012 * lean, bridge_v, 0.032, 0.5 * length)
    ball = _blob(nose_u + 0.02 * lean, nose_v + 0.01, half * 0.50, 0.045)
    glow = ridge.mul_(0.26).add_(ball.mul_(0.36)).mul_(face)
    _paint(canvas, skin * 0.70 + 0.34, glow)


def _paint_nose(canvas: Tensor, frame: _Frame, head: _Head, shade: Tensor) -> None:
    u, v, half = _centre_line(frame, head, 0.10), frame.v - head.nose, head.nose_half
    # The wings: one curve under the tip, turned up at both ends.
    reach = (u * (1.0 / half)).square_()
    curve = (v - 0.045 + 0.045 * reach).abs()
    wings = _cover((0.024 * (1.25 - reach)).sub_(curve), frame.sharpness)
    _paint(canvas, shade * 0.72, wings.mul_(0.85))
    nostril = _blob(u.abs() - 0.52 * half, v - 0.035, 0.26 * half + 0.008, 0.022)
    _paint(canvas, shade * 0.40, nostril.mul_(0.90))


def _paint_mouth(
    canvas: Tensor, person: _Rows, scene: _Rows, frame: _Frame, head: _Head, skin: Tensor
) -> None:
    smile = 0.45 + 0.75 * scene["smile"]
    opening = 0.082 * (scene["mouth_opening"] * 1.2 - 0.10).clamp(min=0.0)
    half = (0.198 + 0.066 * person["mouth_width"]) * (1.0 + 0.12 * smile)
    full = 0.064 + 0.044 * person["lip_fullness"]
    u = _centre_line(frame, head, 0.02) * (1.0 / half)
    square = u.square()
    bulge = 1.0 - square
    # The mouth line bends with the smile; distances are measured from it.
    s = frame.v - head.mouth - (0.098 * smile) * (0.35 - square.clamp(max=1.4))
    bow = 1.0 - 0.35 * _bump(14.0 * square)
    above, beneath = bulge * opening * 0.5, bulge * opening * 1.2
    upper = s + above + bulge * bow * (full * 0.85)
    lower = beneath + bulge * (full * 1.15) - s
    # Thin strokes would run on past the corners of the mouth in faint lines: cut them off there.
    within = _cover((1.06 - u.abs()).mul_(half), frame.sharpness).mul_(head.cover)
    lips = _cover(torch.minimum(upper, lower), frame.sharpness).mul_(within)
    # Nobody is less than clean-shaven: the far side of the beard factor reddens the lips instead.
    red = (0.25 - 0.9 * person["beard"]).clamp(0.0, 1.0).unsqueeze(1)
    lip_colour = skin * (1.0 - _rgb(skin, 0.10, 0.37, 0.31) - red * _rgb(skin, 0.02, 0.22, 0.16))
    lip_colour = lip_colour + _rgb(skin, 0.06, 0.0, 0.02) + red * _rgb(skin, 0.05, 0.0, 0.02)
    _paint(canvas, lip_colour, lips)
    shine = _blob(u, s - beneath.clamp(min=0.0) - 0.55 * full, 0.45, 0.4 * full)
    _paint(canvas, lip_colour * 0.7 + 0.32, shine.mul_(0.45).mul_(lips))
    # A thin dark seam is always there; it opens onto dark and teeth.
    seam = 0.013 * (1.10 - square)
    inside = _cover(torch.minimum(s + above + seam, beneath + seam - s), frame.sharpness)
    inside.mul_(within)
    _paint(canvas, lip_colour * _rgb(skin, 0.46, 0.32, 0.34), inside)
    teeth = torch.minimum(s + above, beneath * 0.15 - s + 0.25 * opening)
    visible = (opening * 28.0).clamp(0.0, 1.0)
    ivory = _rgb(skin, 0.96, 0.94, 0.90)
    _paint(canvas, ivory, _cover(teeth, frame.sharpness).mul_(visible).mul_(inside))


def _paint_eyes(
    canvas: Tensor, person: _Rows, scene: _Rows, frame: _Frame, eyes: _Eyes, shade: Tensor
) -> None:
    size = 1.0 + 0.24 * person["eye_size"]
    # Lids stay as they are around the rest pose and close smoothly at one end.
    open_share = 0.62 + 0.38 * torch.tanh(1.2 - 2.2 * scene["eye_closing"])
    half = 0.148 * (1.0 + 0.16 * person["eye_size"])
    upper_height, lower_height = 0.106 * size * open_share, 0.068 * size * (0.4 + 0.6 * open_share)
    tilt = 0.26 * person["eye_tilt"]
    down = eyes.down + tilt * eyes.outward
    bulge = 1.0 - (eyes.outward * (1.0 / half)).square_()
    from_upper = down + bulge * upper_height
    opening = _cover(torch.minimum(from_upper, bulge * lower_height - down), frame.sharpness)
    _paint(canvas, _rgb(shade, 0.97, 0.96, 0.95), opening)
    radius = 0.092 * (1.0 + 0.14 * person["eye_size"])
    centred = eyes.down + 0.012
    inner = radius - _norm(eyes.along, centred)
    iris = _palette(person["eye_colour"], _EYE_STOPS)
    _paint(canvas, iris, _cover(inner, frame.sharpness).mul_(opening))
    pupil = _cover(inner - 0.50 * radius, frame.sharpness).mul_(opening)
    _paint(canvas, iris * 0.12, pupil.mul_(0.92))
    # The upper lid throws a shadow on the eyeball, and carries the lashes.
    lash = (0.020 + 0.004 * size) * (0.25 + 0.9 * bulge + 3.0 * bulge.clamp(max=0.0))
    lid = _cover(lash.sub_(from_upper.abs()), frame.sharpness)
    _paint(canvas, shade * 0.30, lid.mul_(0.88))
    spark = _blob(eyes.along + 0.026, centred + 0.026, 0.022, 0.022).mul_(opening)
    _paint(canvas, _rgb(shade, 1.0, 1.0, 1.0), spark.mul_(0.95))


def _paint_brows(
    canvas: Tensor, person: _Rows, scene: _Rows, frame: _Frame, eyes: _Eyes, colour: Tensor
) -> None:
    lift = 0.180 + 0.06 * scene["brow_raise"] + 0.03 * person["eye_size"]
    half = 0.165
    # Clamped: far outside, both factors of the tapered stroke would turn negative.
    along = ((eyes.outward - 0.01) * (1.0 / half)).clamp_(-1.5, 1.5)
    square = along.square()
    arch = 0.030 + 0.022 * scene["brow_raise"]
    # Positive angle: the inner end drops, a determined look; negative: a worried one.
    line = -lift - arch * (1.0 - square) - (0.080 * person["brow_angle"] - 0.010) * along
    thick = (0.040 + 0.030 * person["brow_thickness"]) * (1.0 - 0.25 * along)
    stroke = thick * (1.0 - square * square) - (eyes.down - line).abs()
    _paint(canvas, colour, _cover(stroke, frame.sharpness).mul_(0.90))


def _paint_beard(
    canvas: Tensor, person: _Rows, frame: _Frame, head: _Head, hair: _Hair, skin: Tensor
) -> None:
    amount = torch.sigmoid(9.0 * (person["beard"] - 0.40))
    u = _centre_line(frame, head, 0.0)
    square = u.square()
    # From the sideburns down the cheek, with a moustache over the mouth.
    cheek = frame.v - (head.mouth + 0.015 - 1.9 * square)
    moustache = 0.052 - (frame.v - head.mouth + 0.075 - 0.8 * square).abs() - 0.9 * square
    region = torch.maximum(cheek, moustache)
    soft = (region * 14.0 + 0.5).clamp_(0.0, 1.0)
    soft.mul_(_cover(head.distance + 0.015 * amount, frame.sharpness))
    tone = hair.colour * 0.80 + skin * 0.06
    _paint(canvas, tone, soft.mul_(amount * 0.92))


def _paint_glasses(canvas: Tensor, person: _Rows, frame: _Frame, head: _Head, eyes: _Eyes) -> None:
    amount = torch.sigmoid(12.0 * (person["glasses"] - 0.42))
    width = 0.180 + 0.03 * person["glasses"]
    height = 0.156 + 0.02 * person["glasses"]
    across = eyes.outward * (1.0 / width)
    down = (eyes.down - 0.02) * (1.0 / height)
    # A rounded rectangle: the fourth-power ellipse, to first order.
    ax2, dn2 = across.square(), down.square()
    slope = _norm(ax2 * across * (1.0 / width), dn2 * down * (1.0 / height)).add_(1e-2).mul_(4.0)
    distance = (1.0 - ax2.square_().add_(dn2.square_())).div_(slope)
    glass = _cover(distance, frame.sharpness).mul_(0.16 * amount)
    _paint(canvas, _rgb(canvas, 0.86, 0.93, 1.0), glass)
    rim = 0.021 - distance.abs()
    # The bridge over the nose and the arms towards the ears lie on one line through the lenses.
    bar = 0.017 - (eyes.down + 0.035).abs()
    bar = torch.minimum(bar, torch.minimum(-distance, head.distance + 0.03))
    frame_cover = _cover(torch.maximum(rim, bar), frame.sharpness)
    _paint(canvas, _rgb(canvas, 0.13, 0.11, 0.13), frame_cover.mul_(amount * 0.92))


def _paint_front_hair(canvas: Tensor, person: _Rows, frame: _Frame, head: _Head, hair: _Hair) -> None:
    fringe, length = person["hair_fringe"], 0.5 + 0.5 * person["hair_length"]
    start = 0.24 * person["hair_parting"] + 0.35 * frame.yaw
    u = frame.u - start
    # The hairline is lowest in the middle for a full fringe, and sweeps away from the parting.
    rise = -0.340 + 0.175 * fringe
    bend = 0.95 - 0.75 * fringe.clamp(min=0.0) + 0.9 * length
    # However it falls, it leaves the eyes free, and comes down only beside the face.
    beside = _centre_line(frame, head, 0.0).square_().square_()
    line = torch.minimum(rise + bend * u.square(), beside.mul_(4.0) + (head.eye - 0.075))
    steep = torch.rsqrt(1.0 + (2.0 * bend * u).square())
    front = torch.minimum((line - frame.v).mul_(steep).add_(hair.wave), hair.distance)
    cover = _cover(front, frame.sharpness)
    _paint(canvas, hair.colour, cover)
    # Strands run down from the parting; a band of gloss follows the crown.
    strands = torch.sin(u * (19.0 - 9.0 * frame.v)).mul_(0.13).add_(0.13)
    _paint(canvas, hair.dark, strands.mul_(cover))
    arc = frame.v + head.top - 0.17 - 0.55 * frame.u.square()
    gloss = _bump((arc * 11.0).square_()).mul_(cover).mul_(0.42)
    _paint(canvas, hair.light, gloss)


def _light(canvas: Tensor, scene: _Rows, frame: _Frame, head: _Head) -> Tensor:
    """Shade the head as one dome, then expose and balance."""
    strength = 0.34 + 0.22 * scene["light_strength"]
    across = (frame.u * (1.0 / head.half_width)).clamp_(-1.3, 1.3)
    down = head.down.clamp(-1.3, 1.3)
    facing = torch.addcmul(across.square(), down, down).mul_(0.8).add_(1.0).rsqrt_()
    toward = across.mul_(0.85 * scene["light_side"]).sub_(down.mul_(0.38)).add_(1.0)
    dome = toward.mul_(facing).sub_(0.93).mul_(strength * 1.25)
    # The room behind keeps its own light: the effect ends a little way off the head.
    near = (head.distance * 2.2).add_(1.4).clamp_(0.0, 1.0)
    dome = dome.mul_(near).add_(1.0)
    gain = torch.exp(0.20 * scene["exposure"]).unsqueeze(1)
    balance = 1.0 + _rgb(canvas, 0.10, 0.01, -0.12) * scene["warmth"].unsqueeze(1)
    return canvas.mul_(dome.unsqueeze(1)).mul_(gain * balance).clamp_(0.0, 1.0)


def _render_chunk(person: _Rows, scene: _Rows, size: int) -> Tensor:
    frame = _frame(scene, size)
    head = _head(person, frame)
    hair = _hair(person, frame, head)
    skin = _skin_colour(person)
    shade = skin * _rgb(skin, 0.74, 0.60, 0.58)
    eyes = _eyes(frame, head)
    canvas = _background(scene, frame, size)
    _paint_shoulders(canvas, scene, frame)
    _paint(canvas, hair.dark, _cover(hair.distance, frame.sharpness))
    _paint_neck(canvas, frame, head, skin, shade)
    _paint_ears(canvas, person, frame, head, skin, shade)
    _paint_face(canvas, scene, frame, head, eyes, skin, shade)
    _paint_nose(canvas, frame, head, shade)
    _paint_beard(canvas, person, frame, head, hair, skin)
    _paint_mouth(canvas, person, scene, frame, head, skin)
    _paint_eyes(canvas, person, scene, frame, eyes, shade)
    _paint_brows(canvas, person, scene, frame, eyes, hair.dark)
    _paint_glasses(canvas, person, frame, head, eyes)
    _paint_front_hair(canvas, person, frame, head, hair)
    return _light(canvas, scene, frame, head)
