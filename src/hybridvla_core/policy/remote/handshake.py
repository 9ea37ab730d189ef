"""What a server says about its policy when a client connects, and whether the client was told to expect that."""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

from hybridvla_core.configuration import from_mapping, require
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.policy.interface import PolicyInterface, SaysChunk
from hybridvla_core.transforms.conventions import ActionConvention

PROTOCOL = "hybridvla/1"
#: Key of the metadata that says which protocol the rest follows; a plain openpi server has no such key.
KEY = "protocol"


@dataclass(frozen=True)
class Handshake:
    """The metadata frame.

    Attributes:
        checkpoint_sha256: Digest of the manifest.
        cameras: Views in the checkpoint's order.
        convention: Convention, including action period and gripper sense.
        protocol: Version of the protocol.
        answers_pings: Whether the server answers pings while it predicts, so that silence means that it hangs.
        chunk: Largest number of steps of an action; None if the policy does not say.
    """

    checkpoint_sha256: str
    cameras: Tuple[str, ...]
    convention: ActionConvention
    protocol: str = PROTOCOL
    answers_pings: bool = True
    chunk: Optional[int] = None

    def __post_init__(self) -> None:
        require(self.protocol == PROTOCOL, f"protocol is {self.protocol!r}, and {PROTOCOL!r} is spoken here; use the same "
                                           "release on both computers")
        require(self.chunk is None or self.chunk >= 1, f"chunk is {self.chunk}; an action has at least one step")
        require(bool(self.cameras) and all(self.cameras), "cameras is empty; a policy sees at least one view")

    @classmethod
    def of(cls, policy: PolicyInterface) -> Handshake:
        return cls(policy.manifest_sha256, tuple(policy.cameras), policy.convention,
                   chunk=policy.chunk if isinstance(policy, SaysChunk) else None)

    @classmethod
    def read(cls, metadata: Mapping[str, object], where: str) -> Handshake:
        """Reads metadata. Raises ConfigurationError for another protocol, or for a key that is missing or wrong."""
        if KEY not in metadata:
            raise ConfigurationError(f"{where} does not say what its policy's numbers mean (no {KEY!r} in its metadata); name a "
                                     "dialect in the policy configuration, or run `hybridvla serve` there")
        return from_mapping(cls, {str(key): value for key, value in metadata.items()}, f"metadata of {where}")

    def metadata(self) -> Dict[str, Any]:
        return dataclasses.asdict(self)

    def differences(self, other: Handshake) -> List[str]:
        """Returns what `other` says differently, one clause for each difference."""
        ours, theirs = self.convention, other.convention
        return [*(f"{name} {getattr(self, name)!r} became {getattr(other, name)!r}"
                  for name in ("checkpoint_sha256", "cameras", "chunk") if getattr(self, name) != getattr(other, name)),
                *(f"{name} {getattr(ours, name)!r} became {getattr(theirs, name)!r}" for name in ours.differences(theirs))]
