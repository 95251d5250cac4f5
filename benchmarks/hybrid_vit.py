"""A vision transformer pretrained on natural images, without a download: `--model hybrid-vit`.

On the maps of a pretrained CNN (`--model mobilenet`, ImageNet-1k) it learns to predict the features
of that CNN for larger images, on augmented and mixed views of the training images of Tiny-ImageNet
and CIFAR-10, as many as there are. Since the teacher computes the features of each view, each is a
new labelled sample. No image of CIFAR-100 is trained on; some of its classes are among those of
ImageNet.

The result is evaluated by the nearest class mean on training images of CIFAR-100, beside the
untrained transformer, the teacher, and pixels. Test images of CIFAR-100 are not used.

Source: Hinton et al. 2015, distillation; Romero et al. 2015 (FitNets), equation 3, for features in
place of class probabilities; Yun et al. 2019 (CutMix), equation 1, for the mixing.

    OMP_NUM_THREADS=1 python benchmarks/hybrid_vit.py
    clp run --stream split-cifar100 --model hybrid-vit --set model.weights=FILE
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cosine_similarity, grid_sample, interpolate

from cl_platform.models.pretrained_cnn import MobileNetV1
from cl_platform.models.vision import HybridViT
from cl_platform.storage.paths import user_cache
from streams.data.datasets import load_dataset

SHAPE = (3, 32, 32)
TEACHER = 160  # height and width of the images it gets, in pixels
BATCH, RATE, DECAY = 64, 1e-3, 0.05
WARM_UP = 0.05  # share of the steps
Features = Callable[[Tensor], Tensor]  # raw images (B, 3, 32, 32) -> (B, width)


def natural_images() -> Tensor:
    """Training images that are not of CIFAR-100, (n, 3, 64, 64) from 0 to 255."""
    sets = (load_dataset(name).train.x.float() for name in ("tiny-imagenet", "cifar10"))
    resized = (interpolate(x, (64, 64), mode="bicubic", antialias=True) for x in sets)
    return torch.cat([x.clamp(0, 255) for x in resized])


def views(images: Tensor, n: int) -> Tensor:
    """Random cuts of random images, mirrored, relit and mixed: (n, 3, 32, 32) uint8."""
    rows = images[torch.randint(len(images), (n,))]
    lit = (cuts(rows) - 128) * uniform(n, 0.6, 1.4) + 128 + uniform(n, -40, 40)
    return pasted(lit.clamp(0, 255).byte())


def cuts(images: Tensor) -> Tensor:
    """A rectangle of 0.5 to 1 of each side, mirrored or not, at half the resolution."""
    n = len(images)
    theta = torch.zeros(n, 2, 3)
    side = torch.rand(n, 2) / 2 + 0.5
    theta[:, 0, 0], theta[:, 1, 1] = side[:, 0] * torch.randn(n).sign(), side[:, 1]
    theta[:, :, 2] = (1 - side) * (2 * torch.rand(n, 2) - 1)
    grid = affine_grid(theta, [n, *SHAPE], align_corners=False)
    return grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def pasted(images: Tensor) -> Tensor:
    """Half of the images with a rectangle of another one in place of their own."""
    n, _, height, width = images.shape
    across = between(torch.rand(n, 2), width)[:, None, None, :]
    down = between(torch.rand(n, 2), height)[:, None, :, None]
    mixed = (torch.rand(n, 1, 1, 1) < 0.5) & across & down
    return torch.where(mixed, images.roll(1, 0), images)


def between(ends: Tensor, n: int) -> Tensor:
    """Which of n places lie between two ends (B, 2) in [0, 1]: (B, n)."""
    places = (torch.arange(n) + 0.5) / n
    low, high = ends.sort(1).values.unbind(1)
    return (low[:, None] < places) & (places < high[:, None])


def uniform(n: int, low: float, high: float) -> Tensor:
    """A random number for each of n images, (n, 1, 1, 1)."""
    return torch.rand(n, 1, 1, 1) * (high - low) + low


def of_raw(function: Features) -> Features:
    """The same function of raw images, computed in bfloat16."""

    def computed(raw: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return function(MobileNetV1.preprocess(raw)).float()

    return computed


@torch.no_grad()
def lesson(vit: HybridViT, teacher: Features, n: int) -> tuple[Tensor, Tensor]:
    """For n views, the maps on which the transformer looks, and what the teacher makes of each."""
    images, eyes = natural_images(), of_raw(vit.maps)
    seen, features = [], []
    for _ in range(n // BATCH):
        shown = views(images, BATCH)
        seen.append(eyes(shown).bfloat16())
        features.append(teacher(shown))
    wanted = torch.cat(features)
    return torch.cat(seen), (wanted - wanted.mean(0)) / wanted.std(0).clamp(min=1e-3)


def distil(vit: HybridViT, maps: Tensor, wanted: Tensor, epochs: int) -> None:
    """Train the transformer until a linear layer on it has the directions of what is wanted."""
    head = nn.Linear(vit.width, wanted.shape[1])
    weights = [*vit.body.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, RATE, weight_decay=DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=epochs * len(maps) // BATCH, pct_start=WARM_UP
    )
    for epoch in range(1, epochs + 1):
        losses = []
        for rows in torch.randperm(len(maps)).view(-1, BATCH):
            with torch.autocast("cpu", torch.bfloat16):
                tokens = vit.tokens(maps[rows].float())
                predicted = head(vit.pool(vit.encode(tokens)))
            loss = 1 - cosine_similarity(predicted.float(), wanted[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch}/{epochs}: 1 - cosine = {sum(losses) / len(losses):.4f}", flush=True)


@torch.inference_mode()
def nearest_mean(features: Features, images: Tensor) -> float:
    """Accuracy on the second half of each class by means of the first.

    Args:
        images: of C classes in their order, (C, n, 3, 32, 32) uint8.
    """
    vectors = torch.stack([features(of_class) for of_class in images])
    known, asked = vectors.chunk(2, 1)
    nearest = torch.cdist(asked, known.mean(1)).argmin(-1)
    return float((nearest == torch.arange(len(images))[:, None]).float().mean())


def held_out() -> Tensor:
    """The first 100 training images of each class of CIFAR-100, (100, 100, 3, 32, 32) uint8."""
    cifar = load_dataset("cifar100")
    rows = cifar.train.y.argsort(stable=True).view(100, -1)[:, :100]
    return cifar.train.gather(rows.flatten()).view(100, 100, *SHAPE)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = user_cache() / "pretrained" / "hybrid_vit.pt"
    parser.add_argument("--out", type=Path, default=default, help="file of weights to write")
    parser.add_argument("--views", type=int, default=25_600, help="images to learn from")
    parser.add_argument("--epochs", type=int, default=8, help="how often each is seen")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.views < BATCH or given.epochs < 1:
        parser.error(f"--views takes {BATCH} or more, --epochs 1 or more")
    return given


def main() -> None:
    given = arguments()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(given.seed)
    images, vit = held_out(), HybridViT(SHAPE, 1).eval()
    teacher = of_raw(MobileNetV1(SHAPE, 1, size=TEACHER).eval().features)

    def score(name: str, features: Features) -> None:
        print(f"nearest class mean, {name}: {nearest_mean(features, images):.4f}", flush=True)

    score("pixels", lambda raw: raw.float().flatten(1))
    score("transformer that has learnt nothing", of_raw(vit.features))
    score("CNN it looks through", of_raw(MobileNetV1(SHAPE, 1).eval().features))
    score("teacher", teacher)
    distil(vit.train(), *lesson(vit, teacher, given.views), given.epochs)
    torch.save(vit.body.state_dict(), given.out)
    loaded = HybridViT(SHAPE, 1, weights=str(given.out)).eval()
    score(f"distilled transformer ({given.out})", of_raw(loaded.features))


if __name__ == "__main__":
    main()
