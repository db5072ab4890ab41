"""What the fault tests draw from, and how long they go on; both may be given."""

from __future__ import annotations

import os
import secrets
from typing import Final

SEED: Final = int(os.environ.get("LANE_OBS_FAULT_SEED", "0")) or secrets.randbelow(1_000_000)
ROUNDS: Final = int(os.environ.get("LANE_OBS_FAULT_ROUNDS", "2"))
"""How often each harm is done; more by hand."""
