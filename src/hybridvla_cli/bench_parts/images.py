"""`hybridvla bench images`: times the pre-processing of camera images on one core, raw and JPEG, exact and approximate."""
from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any, Dict

from hybridvla_cli import Subparsers
from hybridvla_core.files import write_json

if TYPE_CHECKING:
    import numpy as np
    import torch


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("images", help="time the pre-processing of camera images")
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--preset", default="hybridvla-7b", help="whose towers' sizes and units")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", help="write the times as JSON to this file")
    return parser


def run(args: argparse.Namespace) -> int:
    import cv2
    import torch

    from hybridvla_core.benchmark.modes import summary
    from hybridvla_core.model.presets import preset
    from hybridvla_core.transforms.images import to_pixels
    from hybridvla_core.transforms.pictures import decode, decode_reduced

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    config = preset(args.preset, views=args.views)
    images = [picture(args.width, args.height, seed) for seed in range(args.views)]
    names = [f"view{i}" for i in range(args.views)]
    jpegs = [cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1] for image in images]

    def exact() -> Dict[str, torch.Tensor]:
        return to_pixels(images, names, config.towers, "resize-naive")

    def jpeg_exact() -> Dict[str, torch.Tensor]:
        decoded = [decode(jpeg, "view") for jpeg in jpegs]
        return to_pixels(decoded, names, config.towers, "resize-naive")

    def jpeg_reduced() -> Dict[str, torch.Tensor]:
        least = max(tower.image_size for tower in config.towers)
        return to_pixels([decode_reduced(jpeg, least, "view")[0] for jpeg in jpegs], names, config.towers, "resize-naive")

    result: Dict[str, Any] = {"views": args.views, "size": [args.width, args.height]}
    for name, call in (("raw_exact", exact), ("jpeg_exact", jpeg_exact), ("jpeg_reduced", jpeg_reduced)):
        times = []
        for turn in range(-3, args.rounds):
            start = time.perf_counter()
            call()
            if turn >= 0:
                times.append((time.perf_counter() - start) * 1e3)
        result[name] = summary(times)
        print(f"{name:14} median {result[name]['median_ms']:.2f} ms  p99 {result[name]['p99_ms']:.2f} ms")
    difference = (jpeg_exact()[config.towers[0].kind] - jpeg_reduced()[config.towers[0].kind]).abs()
    result["reduced_mean_difference"] = round(float(difference.mean() * config.towers[0].std[0] * 255), 3)
    print(f"reduced against full decoding: mean difference {result['reduced_mean_difference']} of 255 grey levels")
    write_json(args.json, result)
    return 0


def picture(width: int, height: int, seed: int) -> np.ndarray:
    """Returns a smooth scene with some texture; pure noise would not be a typical JPEG."""
    import numpy as np

    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(float)
    waves = [np.sin(x * rng.uniform(0.005, 0.06) + y * rng.uniform(0.005, 0.06) + c) for c in range(3)]
    image = 127 + 80 * np.stack(waves, axis=-1) + rng.normal(0, 4, (height, width, 3))
    return np.clip(image, 0, 255).astype(np.uint8)
