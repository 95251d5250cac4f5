"""A picture of samples of each class, to be looked at before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from cl_platform.core.stream import Experience, Stream
from cl_platform.errors import BadInput, one_line
from streams.inspection.examples import examples
from streams.inspection.findings import kind_of, shortened

MOST = 60  # classes that are shown
TALL = 20  # of them one below the other
WIDE, DPI = 9.0, 150  # inches, and pixels of each
ACROSS = (12, 7, 5)  # samples of a class where there are one, two or three columns of classes
NAME = 20  # letters
SHOWN = 2000  # points


def write_picture(stream: Stream, path: Path) -> None:
    """Write samples of each class as a picture: images row by row, numbers as points.

    Raises:
        BadInput: its inputs cannot be seen, there is no matplotlib, or it cannot write this file.
    """
    draw = {"images": _images, "numbers": _points}.get(kind_of(stream))
    if draw is None:
        raise BadInput(f"picture={path}: {stream.name} holds texts, which have no picture")
    try:
        draw(stream).savefig(path, dpi=DPI, bbox_inches="tight", pad_inches=0.1)
    except ImportError as error:
        raise BadInput(f"picture={path} needs {error.name}: install the extra `report`") from error
    except (OSError, ValueError) as error:
        raise BadInput(
            f"picture={path}: {one_line(error)}; give a file such as samples.png"
        ) from error


def _images(stream: Stream) -> Any:
    """Draw classes as rows of images, in the order in which they are learned.

    Where all classes are in every experience, each experience has columns of its own.
    """
    from matplotlib.figure import Figure

    order = list(dict.fromkeys(c for e in stream.experiences for c in e.classes))
    shown = order[:MOST]
    columns = -(-len(shown) // TALL)
    across, height = ACROSS[columns - 1], -(-len(shown) // columns)
    domains = all(len(e.classes) == stream.n_classes for e in stream.experiences)
    apart = domains and 1 < len(stream) <= across
    groups = [[e] for e in stream.experiences] if apart else [list(stream.experiences)]
    blocks = [shown[i : i + height] for i in range(0, len(shown), height)]
    pictures = [_mosaic(groups, block, across // len(groups)) for block in blocks]
    tall, wide = pictures[0].shape[:2]
    width = WIDE / columns - 1.3  # inches of the images; the names have the rest
    figure = Figure(figsize=(WIDE, min(14, width * tall / wide) + 0.7), layout="constrained")
    left = f", the first {MOST} of {len(order)} classes" if len(order) > MOST else ""
    figure.suptitle(f"{stream.name}{left}", fontsize=11, fontweight="bold", parse_math=False)
    grid = figure.subplots(1, columns, squeeze=False)[0]
    for axes, block, picture in zip(grid, blocks, pictures, strict=True):
        axes.imshow(picture, interpolation="nearest" if wide < DPI * width else "antialiased")
        axes.set_anchor("N")
        axes.set_ylim(tall, -1)
        names = [shortened(stream.class_names[c], NAME) for c in block]
        middle = tall / height * (np.arange(len(block)) + 0.5) - 0.5
        axes.set_yticks(middle, names, parse_math=False)
        axes.set_xticks([])
        if apart:
            short = [shortened(e.name, 150 // columns // len(stream)) for e in stream.experiences]
            middle = wide / len(stream) * (np.arange(len(stream)) + 0.5)
            axes.set_xticks(middle, short, parse_math=False)
            axes.xaxis.tick_top()
        elif not domains:
            _bracket(axes, stream, block, tall / height, wide)
        axes.tick_params(length=0, labelsize=8)
        axes.spines[:].set_visible(False)
    return figure


def _bracket(axes: Any, stream: Stream, block: list[int], row: float, wide: float) -> None:
    """Draw a line beside the classes of each experience, with its number."""
    for number, e in enumerate(stream.experiences, 1):
        rows = [i for i, c in enumerate(block) if c in e.classes]
        if rows:
            ends = (rows[0] * row, (rows[-1] + 1) * row - 0.1 * row)
            axes.plot([wide, wide], ends, color="0.6", linewidth=1.2, clip_on=False)
            text = f"experience {number}" if len(rows) > 1 else str(number)
            style = {"fontsize": 7, "color": "0.4", "va": "center", "rotation": 270}
            axes.text(wide * 1.012, sum(ends) / 2, text, **style)


def _mosaic(groups: list[list[Experience]], classes: list[int], each: int) -> np.ndarray:
    """Return images of classes side by side on white, (H, W, 3) uint8: a class a row, and `each`
    of them from each group of experiences."""
    tiles = {
        (i, g * each + j): _seen(samples.gather(torch.tensor([row]))[0])
        for i, c in enumerate(classes)
        for g, group in enumerate(groups)
        for j, (samples, row) in enumerate(examples(group, c, each))
    }
    high, wide = next(iter(tiles.values())).shape[:2]
    gap = max(1, wide // 12)
    across = each * len(groups)
    sheet = np.full((len(classes) * (high + gap), across * (wide + gap), 3), 255, np.uint8)
    top = max(tile.max() for tile in tiles.values())
    scale = 255 / top if 0 < top < 128 else 1  # the digits of scikit-learn end at 16
    for (i, j), tile in tiles.items():
        y, x = i * (high + gap), j * (wide + gap)
        sheet[y : y + high, x : x + wide] = tile * scale
    return sheet


def _seen(image: torch.Tensor) -> np.ndarray:
    """Return an image (C, H, W) as colours, (H, W, 3) from 0 to 255; of many channels three."""
    chosen = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    values = chosen.permute(1, 2, 0).double().numpy()
    if image.dtype != torch.uint8:  # in any unit
        low, high = values.min(), values.max()
        values = 255 * (values - low) / (high - low or 1)
    return values


def _points(stream: Stream) -> Any:
    """Draw numbers as points along their two principal components, a colour for each class."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    shown = min(MOST // 3, stream.n_classes)
    each = max(2, SHOWN // shown)
    picked = [(c, s, i) for c in range(shown) for s, i in examples(stream.experiences, c, each)]
    x = torch.cat([s.gather(torch.tensor([i])).flatten(1) for _, s, i in picked]).double().numpy()
    y = np.array([c for c, _, _ in picked])
    x = (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    share = np.square(s) / max(np.square(s).sum(), 1e-12)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    colours = colormaps["tab20" if shown > 10 else "tab10"](range(shown))
    second = u[:, 1] * s[1] if len(s) > 1 else np.zeros(len(x))
    for c in range(shown):
        points = (u[y == c, 0] * s[0], second[y == c])
        axes.scatter(*points, s=9, alpha=0.7, linewidths=0, color=[colours[c]])
        axes.scatter(
            [],
            [],
            s=30,
            color=[colours[c]],
            label=shortened(stream.class_names[c], NAME),
        )
    left = f", the first {shown} of {stream.n_classes} classes" if shown < stream.n_classes else ""
    axes.set_title(f"{stream.name}{left}", fontsize=11, fontweight="bold", parse_math=False)
    for axis, part in zip((axes.xaxis, axes.yaxis), [*share, 0.0], strict=False):
        axis.set_label_text(f"principal component with {part:.0%} of the variance", fontsize=8)
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
