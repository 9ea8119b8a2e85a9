"""Makes the blocking client of the async one: `python -m nimbus._unasync` writes `_sync/`."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
_NOTE = "# Made of `_async/` by `python -m nimbus._unasync`: edit that folder.\n"
_RULES = [
    (r"The async client, for asyncio and trio\..*$", 'The blocking client."""'),
    (r"\bawait\s+", ""),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"__aiter__", "__iter__"),
    (r"__aenter__", "__enter__"),
    (r"__aexit__", "__exit__"),
    (r"\bAsync(\w+)\b", r"\1"),
]


def sync_sources() -> dict[str, str]:
    """What the files of `_sync/` must hold."""
    return {file.name: _NOTE + _sync(file.read_text(encoding="utf-8")) for file in (HERE / "_async").glob("*.py")}


def _sync(text: str) -> str:
    for pattern, replacement in _RULES:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


if __name__ == "__main__":
    (HERE / "_sync").mkdir(exist_ok=True)
    for name, source in sync_sources().items():
        (HERE / "_sync" / name).write_text(source, encoding="utf-8")
