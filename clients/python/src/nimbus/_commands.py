"""Commands of a sandbox, read by offset. Does no I/O: the blocking and the async command drive it."""

from __future__ import annotations

import base64
import codecs
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ._calls import Call, backoff
from .errors import NimbusApiError, NimbusError, NimbusOutOfRetentionError, NimbusTransportError, api_error, is_transient

MAX_OUTPUT_BYTES = 1024 * 1024
# How long to keep trying to come back to a command without getting anywhere.
_PATIENCE_S = 30.0
# A connection that lived this long was a good one, whether or not there was output.
_SOUND_S = 1.0

_NDJSON = {"accept": "application/x-ndjson"}


@dataclass(frozen=True, slots=True)
class Output:
    """Something a command wrote. `offset` counts the bytes of both streams together."""

    stream: Literal["stdout", "stderr"]
    data: bytes
    text: str
    offset: int


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command ended."""

    exit_code: int | None
    signal: str | None = None
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a command wrote, and how it ended."""

    command_id: str
    exit_code: int | None
    stdout: str
    stderr: str
    #: There was more output than was kept.
    truncated: bool
    signal: str | None = None
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class CommandInfo:
    """A command that the sandbox remembers."""

    command_id: str
    #: Everything the server says of it.
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Launch:
    """A command to run."""

    argv: Sequence[str]
    cwd: str | None = None
    env: Mapping[str, str] | None = None
    timeout: float | None = None
    stdin: str | None = None
    stdin_open: bool = False
    terminal: tuple[int, int] | None = None


def fresh_id() -> str:
    return secrets.token_hex(16)


class Feed:
    """One command: what to ask for next, and what the answers mean.

    Whatever breaks, the next call asks for the byte after the last one: nothing is lost and nothing comes twice.
    """

    def __init__(self, sandbox: str, command_id: str, launch: Launch | None, since: int = 0) -> None:
        self.command_id = command_id
        self.exit: Exit | None = None
        self._sandbox = sandbox
        self._launch = launch
        self._next = since
        self._tries = 0
        self._heard = time.monotonic()
        self._since: float | None = None
        self._written = 0
        utf8 = codecs.getincrementaldecoder("utf-8")
        self._text = {"stdout": utf8("replace"), "stderr": utf8("replace")}

    @property
    def path(self) -> str:
        return f"{self._sandbox}/commands/{self.command_id}"

    def call(self) -> Call:
        """What to send to get (more) output."""
        if self._launch is None:
            return Call("GET", self.path, {"from": self._next}, headers=_NDJSON)
        one = self._launch
        # The id is ours, so that a request whose answer was lost can be repeated: it runs once.
        body = {
            "argv": list(one.argv),
            "cwd": one.cwd,
            "env": None if one.env is None else dict(one.env),
            "timeoutMs": None if one.timeout is None else round(one.timeout * 1000),
            "stdin": one.stdin,
            "stdinOpen": True if one.stdin_open else None,
            "commandId": self.command_id,
            "terminal": None if one.terminal is None else {"cols": one.terminal[0], "rows": one.terminal[1]},
        }
        return Call("POST", f"{self._sandbox}/exec", json=body, headers=_NDJSON)

    def opened(self) -> None:
        """It runs; from now on it is only attached to."""
        self._launch = None
        self._since = time.monotonic()

    def take(self, line: bytes) -> Output | Exit | None:
        """What a line of the answer says."""
        frame = frame_of(line)
        match frame.get("kind"):
            case "stdout" | "stderr" as stream:
                return self._output(stream, frame)
            case "exit":
                self.exit = Exit(frame.get("code"), frame.get("signal"), bool(frame.get("timedOut")))
                return self.exit
            case "error":
                raise broken(frame)
            case "closed":
                # Only the stream: the command may go on, and coming back tells whether it does.
                raise NimbusTransportError(
                    f"the server ended the stream of command {self.command_id}: {frame.get('reason')}"
                )
            case _:
                return None

    def broken(self) -> NimbusTransportError:
        return NimbusTransportError(f"the connection to command {self.command_id} ended before the command did")

    def patience(self, error: NimbusError) -> float:
        """How long to wait before coming back; raises the error when that makes no sense."""
        if self._since is not None and time.monotonic() - self._since > _SOUND_S:
            self._progress()
        self._since = None
        left = self._heard + _PATIENCE_S - time.monotonic()
        if not is_transient(error) or left <= 0:
            raise error
        wait = error.retry_after or backoff(self._tries)
        self._tries += 1
        return min(left, wait)

    def signal_call(self, name: str) -> Call:
        return Call("POST", f"{self.path}/signal", json={"signal": name})

    def input_call(self, data: bytes, eof: bool) -> Call:
        """The offset makes a repeat harmless."""
        offset = self._written
        self._written += len(data)
        body = {"offset": offset, **carried(data), "eof": True if eof else None}
        return Call("POST", f"{self.path}/input", json=body, repeatable=True)

    def _output(self, stream: Literal["stdout", "stderr"], frame: Mapping[str, Any]) -> Output | None:
        data = payload(frame)
        offset = frame["offset"]
        if offset > self._next:
            raise NimbusOutOfRetentionError(
                f"the output of command {self.command_id} from {self._next} to {offset} is not kept any more",
                code="op.out_of_retention",
                detail={"minimumSequence": offset},
            )
        # Another connection may have brought the beginning of it.
        fresh = data[self._next - offset :]
        if not fresh:
            return None
        self._progress()
        begin = self._next
        self._next += len(fresh)
        return Output(stream, fresh, self._text[stream].decode(fresh), begin)

    def _progress(self) -> None:
        self._heard = time.monotonic()
        self._tries = 0


class Collected:
    """Output up to a limit. What comes after is dropped, so that the command can go on."""

    def __init__(self, limit: int) -> None:
        self._left = {"stdout": limit, "stderr": limit}
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}
        self._truncated = False

    def add(self, output: Output) -> None:
        kept = output.data[: self._left[output.stream]]
        self._left[output.stream] -= len(kept)
        self._kept[output.stream] += kept
        self._truncated = self._truncated or len(kept) < len(output.data)

    def result(self, command_id: str, exit: Exit) -> ExecResult:
        stdout, stderr = (self._kept[name].decode("utf-8", "replace") for name in ("stdout", "stderr"))
        return ExecResult(command_id, exit.exit_code, stdout, stderr, self._truncated, exit.signal, exit.timed_out)


def broken(frame: Mapping[str, Any]) -> NimbusApiError:
    """A failure in mid-stream. What is the server's own trouble passes; what is said of the command does not."""
    error = api_error(frame, status=0)
    passing = error.code.startswith("service.") and error.retryable
    return api_error(frame, status=503) if passing else error


def frame_of(line: bytes) -> dict[str, Any]:
    try:
        frame = json.loads(line)
    except ValueError:
        raise NimbusTransportError("the connection broke in the middle of a line") from None
    if not isinstance(frame, dict):
        raise NimbusTransportError("the server sent a line that is no frame")
    return frame


def payload(frame: Mapping[str, Any]) -> bytes:
    """The bytes of a frame: text, or base64 where they are no text."""
    data: str = frame["data"]
    return base64.b64decode(data) if frame.get("encoding") == "base64" else data.encode()


def carried(data: bytes) -> dict[str, str]:
    """The fields of a frame that carries `data`."""
    try:
        return {"data": data.decode()}
    except UnicodeDecodeError:
        return {"data": base64.b64encode(data).decode(), "encoding": "base64"}
