"""`hybridvla serve`: serves a checkpoint to policy nodes on other computers, and to clients that speak the openpi protocol."""
from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np

from hybridvla_cli import Subparsers
from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import Mode, Observation
from hybridvla_core.paths import ROOT
from hybridvla_core.policy.config import PRECISIONS


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "serve", help="serve a checkpoint to clients on other computers",
        description="Loads a checkpoint and answers clients of the openpi wire (WebSocket, msgpack) until Ctrl-C: a policy node "
                    "with backend: remote, or any openpi client. docs/remote.md has the whole set-up.")
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="checkpoint folder")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--precision", choices=PRECISIONS, default="full",
                        help="precision of the decoder's weights; fewer bits change predictions (`hybridvla bench "
                             "--precision-report`)")
    parser.add_argument("--all-tokens", action="store_true",
                        help="keep decoding once the confidence gate can no longer open: the same actions, but later")
    parser.add_argument("--mode", choices=Mode.names(), default="ensemble",
                        help="prediction mode for clients that do not choose one")
    parser.add_argument("--bind", default="127.0.0.1", metavar="ADDRESS", help="address to listen at (default: this computer "
                                                                               "alone)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at; 0 takes any free port and prints it")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="file with the key that clients must present")
    parser.add_argument("--tls-certificate", type=Path, metavar="FILE", help="TLS certificate (PEM), which clients verify")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="private key of the certificate")
    parser.add_argument("--insecure-lan", action="store_true", help="let other computers connect without TLS")
    parser.add_argument("--dialect", metavar="FILE", help="file with keys and meanings of other clients, e.g. "
                                                          "config/remote/libero.yaml")
    return parser


def run(args: argparse.Namespace) -> int:
    from hybridvla_core.policy.remote.dialect import OwnDialect, PoseDialect
    from hybridvla_core.policy.remote.server import PolicyServer, ServerSettings
    from hybridvla_core.policy.remote.settings import read_key

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    settings = ServerSettings(args.bind, args.port, read_key(args.key_file) if args.key_file else "", args.tls_certificate,
                              args.tls_key, args.insecure_lan)
    dialect = load_file(PoseDialect, _dialect_file(args.dialect)) if args.dialect else OwnDialect()

    from hybridvla_core.policy.predictor import Policy

    policy = Policy.from_checkpoint(args.checkpoint, mode=args.mode, device=args.device, dtype=args.dtype,
                                    precision=args.precision, all_tokens=args.all_tokens)
    view = np.zeros((256, 256, 3), dtype=np.uint8)
    for _ in range(2):      # the first prediction allocates memory; do it before a client waits
        policy.predict(Observation(dict.fromkeys(policy.cameras, view), "put the red block on the green pad",
                                   np.zeros(policy.convention.action_dim), 0))
    server = PolicyServer(policy, dialect, settings)
    host, port = server.address
    address = f"{'wss' if args.tls_certificate else 'ws'}://{host}:{port}"
    print(f"serving {args.checkpoint} (views {', '.join(policy.cameras)}) at {address}; Ctrl-C ends it", flush=True)
    try:
        server.serve_forever()
    finally:
        server.close()
    return 0


def _dialect_file(given: str) -> Path:
    """Returns the path as given, or relative to the package."""
    path = Path(given).expanduser()
    return path if path.is_file() or path.is_absolute() else ROOT / path
