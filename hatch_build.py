"""Ships conf/ inside the wheel as zoo/conf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ConfHook(BuildHookInterface):
    """Adds conf/ to standard wheels only: an editable install reads it beside the package; a copy would go stale."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Maps conf/ to zoo/conf when `version` is "standard"."""
        if version == "standard":
            build_data["force_include"][str(Path(self.root) / "conf")] = "zoo/conf"
