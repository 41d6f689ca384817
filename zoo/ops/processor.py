"""What the processor can do."""

from __future__ import annotations

from pathlib import Path


def cpu_computes_bf16() -> bool:
    """Tells whether the CPU has bf16 instructions; without them bf16 is slower than fp32."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))
