"""Location of the numbers that were recorded from the released implementation. They are not part of this repository."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

from hybridvla_core.paths import ROOT

GOLDEN = Path(os.environ.get("HYBRIDVLA_GOLDEN", ROOT.parent / "shared" / "golden")) / "public"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no recorded numbers in {GOLDEN}: HYBRIDVLA_GOLDEN names the "
                                  "folder that holds `public`")
