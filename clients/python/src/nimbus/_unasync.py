"""Makes the blocking client of the async one: `python -m nimbus._unasync` writes `_sync.py`."""

from __future__ import annotations

import re
from pathlib import Path

_HERE = Path(__file__).parent
_RULES = [
    (r'^"""The async client.*$', '"""The blocking client. Made of `_async.py` by `python -m nimbus._unasync`: edit that file."""'),
    (r"\bawait\s+", ""),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"__aiter__", "__iter__"),
    (r"__aenter__", "__enter__"),
    (r"__aexit__", "__exit__"),
    (r"\bhttpx\.AsyncClient\b", "httpx.Client"),
    (r"\bAsync(\w+)\b", r"\1"),
]


def sync_source() -> str:
    """What `_sync.py` must hold."""
    text = (_HERE / "_async.py").read_text(encoding="utf-8")
    for pattern, replacement in _RULES:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


if __name__ == "__main__":
    (_HERE / "_sync.py").write_text(sync_source(), encoding="utf-8")
