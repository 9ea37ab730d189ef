"""Address and times of a remote policy, and the key that clients show."""
from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Optional
from urllib.parse import urlsplit

from hybridvla_core.configuration import in_range, require
from hybridvla_core.errors import ConfigurationError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SHORTEST_KEY = 16
DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class RemoteSource:
    """Section `remote` of a policy configuration.

    Attributes:
        url: ws:// or wss:// with host and port.
        key_file: File whose first line is the key to show; relative to the package or absolute.
        certificate: File of the server's own certificate, for wss without a certificate authority.
        insecure_lan: Whether ws:// to another computer is intended, because nobody else is on that network.
        dialect: File under config/remote for a server that is not ours; None: ours.
        checkpoint_sha256: Digest of the only checkpoint that is accepted, 64 digits; None: any that fits.
        deadline_s: Longest wait for an answer, s.
        link_timeout_s: Longest silence of the link before the arm is held, s.
        connect_timeout_s: Longest wait for the first connection, s.
    """

    url: str
    key_file: Optional[str] = None
    certificate: Optional[str] = None
    insecure_lan: bool = False
    dialect: Optional[str] = None
    checkpoint_sha256: Optional[str] = None
    deadline_s: float = 2.0
    link_timeout_s: float = 0.2
    connect_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigurationError(f"remote: url {self.url!r}: {error}") from error
        require(parts.scheme in ("ws", "wss") and bool(host) and port is not None,
                f"remote: url is {self.url!r}; write ws://HOST:PORT or wss://HOST:PORT")
        require(parts.scheme == "wss" or host in LOOPBACK or self.insecure_lan,
                f"remote: {self.url} is another computer without encryption: anybody on the network between could move the arm; "
                "use wss://, or say insecure_lan: true where only these two computers are on it")
        require(self.checkpoint_sha256 is None or bool(DIGEST.fullmatch(self.checkpoint_sha256)),
                f"remote: checkpoint_sha256 is {self.checkpoint_sha256!r}; write all 64 digits, 0 to 9 and a to f, as `hybridvla "
                "convert` prints them after manifest, and `hybridvla predict --json` has them as checkpoint_sha256")
        in_range("remote: deadline_s", self.deadline_s, 0.05, 60.0)
        in_range("remote: link_timeout_s", self.link_timeout_s, 0.05, 5.0)
        in_range("remote: connect_timeout_s", self.connect_timeout_s, 0.1, 3600.0)

    @property
    def encrypted(self) -> bool:
        return self.url.startswith("wss:")


def read_key(path: Path) -> str:
    """Reads a key file.

    Args:
        path: Path of the file.

    Returns:
        The key.

    Raises:
        ConfigurationError: The file cannot be read, users other than its owner can read it, or it does not hold a single key of
            sufficient length.
    """
    try:
        mode = path.stat().st_mode
        lines = path.read_text(encoding="ascii").split()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"key file {path}: cannot be read ({error}); make one by `python3 -c \"import secrets; "
                                 f"print(secrets.token_urlsafe(32))\" > {path}` and copy it to the other computer") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(f"key file {path}: others can read it; run `chmod 600 {path}`")
    if len(lines) != 1 or len(lines[0]) < SHORTEST_KEY:
        raise ConfigurationError(f"key file {path}: holds no single key of at least {SHORTEST_KEY} characters; make a new one")
    return lines[0]
