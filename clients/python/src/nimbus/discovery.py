"""Finds endpoint and credential: arguments, then environment, then credential file, then token file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from .errors import NimbusDiscoveryError

# How long a token file is believed before it is read again.
_TOKEN_FILE_S = 60.0


@dataclass(frozen=True, slots=True)
class Credential:
    """Who the caller is. Issuer, audience and subject are hints of the client; the server checks the token itself."""

    kind: Literal["bearer", "api_key", "workload_identity"]
    secret: str = field(repr=False)
    issuer: str | None = None
    audience: str | None = None
    subject: str | None = None

    def header(self) -> tuple[str, str]:
        secret = self.secret.strip()
        if not secret:
            raise NimbusDiscoveryError(f"the credential of kind {self.kind} is empty")
        return ("x-nimbus-api-key", secret) if self.kind == "api_key" else ("authorization", f"Bearer {secret}")


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send requests, and the header that says who sends them."""

    endpoint: str
    authorization: Callable[[], tuple[str, str] | None]


def discover(
    *,
    endpoint: str | None = None,
    token: str | None = None,
    api_key: str | None = None,
    credential: Credential | None = None,
    anonymous: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Target:
    """`anonymous`: a credential is not looked for, since the caller has its own way."""
    endpoint = _filled(endpoint) or _variable("NIMBUS_ENDPOINT")
    credential = credential or _given(token, api_key) or (None if anonymous else _from_environment())
    # The file is only read for what is still missing.
    if endpoint is None or (credential is None and not anonymous):
        file_endpoint, file_credential = _from_file()
        endpoint = endpoint or file_endpoint
        if not anonymous:
            credential = credential or file_credential
    if endpoint is None:
        raise NimbusDiscoveryError(
            "no endpoint: pass `endpoint`, set NIMBUS_ENDPOINT, or name one in the credential file"
        )
    endpoint = _checked(endpoint)
    if credential is not None:
        header = credential.header()
        return Target(endpoint, lambda: header)
    if anonymous:
        return Target(endpoint, lambda: None)
    token_file = _variable("NIMBUS_WORKLOAD_IDENTITY_TOKEN_FILE")
    if token_file is not None:
        read = _TokenFile(Path(token_file), clock)
        read()
        return Target(endpoint, read)
    raise NimbusDiscoveryError(
        "no credential: pass `token`, `api_key` or `credential`, or set NIMBUS_TOKEN, NIMBUS_API_KEY, "
        "NIMBUS_WORKLOAD_IDENTITY_TOKEN or NIMBUS_WORKLOAD_IDENTITY_TOKEN_FILE, or write a credential file "
        "(NIMBUS_APPLICATION_CREDENTIALS, ~/.config/nimbus/application_default_credentials.json)"
    )


def _given(token: str | None, api_key: str | None) -> Credential | None:
    if (token := _filled(token)) is not None:
        return Credential("bearer", token)
    if (api_key := _filled(api_key)) is not None:
        return Credential("api_key", api_key)
    return None


def _from_environment() -> Credential | None:
    token = _variable("NIMBUS_TOKEN") or _variable("NIMBUS_BEARER_TOKEN")
    if token is not None:
        return Credential("bearer", token)
    if (api_key := _variable("NIMBUS_API_KEY")) is not None:
        return Credential("api_key", api_key)
    if (workload := _variable("NIMBUS_WORKLOAD_IDENTITY_TOKEN")) is not None:
        prefix = "NIMBUS_WORKLOAD_IDENTITY_"
        return Credential(
            "workload_identity",
            workload,
            _variable(f"{prefix}ISSUER"),
            _variable(f"{prefix}AUDIENCE"),
            _variable(f"{prefix}SUBJECT"),
        )
    return None


def _file_path() -> Path | None:
    if (named := _variable("NIMBUS_APPLICATION_CREDENTIALS")) is not None:
        return Path(named)
    config = _variable("XDG_CONFIG_HOME")
    home = _variable("HOME") or _variable("USERPROFILE")
    if config is None and home is None:
        return None
    folder = Path(config) if config is not None else Path(home or "") / ".config"
    return folder / "nimbus" / "application_default_credentials.json"


def _from_file() -> tuple[str | None, Credential | None]:
    path = _file_path()
    if path is None:
        return None, None
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except (OSError, UnicodeDecodeError) as error:
        raise NimbusDiscoveryError(f"the credential file {path} cannot be read") from error
    try:
        content = json.loads(text)
    except ValueError:
        # The parser's own message may quote the text, and the text holds a secret.
        raise NimbusDiscoveryError(f"the credential file {path} is not JSON") from None
    if not isinstance(content, dict):
        raise NimbusDiscoveryError(f"the credential file {path} is not a JSON object")
    top = _Fields(content, path)
    return top.text("endpoint"), _nested(content, path) or _top_level(top)


def _top_level(top: _Fields) -> Credential | None:
    return _given(top.text("token", "access_token"), top.text("api_key", "apiKey"))


def _nested(content: dict[str, Any], path: Path) -> Credential | None:
    found = content.get("credential")
    if found is None:
        return None
    if not isinstance(found, dict):
        raise NimbusDiscoveryError(f"`credential` in the credential file {path} is not an object")
    fields = _Fields(found, path)
    kind = fields.text("kind", "type")
    if kind == "api_key":
        if (api_key := fields.text("apiKey", "api_key")) is None:
            raise NimbusDiscoveryError(f"`credential` in the credential file {path} has no `apiKey`")
        return Credential("api_key", api_key)
    if kind not in ("bearer", "access_token", "workload_identity"):
        raise NimbusDiscoveryError(
            f"`credential.kind` in the credential file {path} is none of bearer, access_token, workload_identity, api_key"
        )
    if (token := fields.text("token", "access_token")) is None:
        raise NimbusDiscoveryError(f"`credential` in the credential file {path} has no `token`")
    if kind != "workload_identity":
        return Credential("bearer", token)
    return Credential("workload_identity", token, fields.text("issuer"), fields.text("audience"), fields.text("subject"))


class _Fields:
    """Fields of a file that are texts with something in them."""

    def __init__(self, content: dict[str, Any], path: Path) -> None:
        self._content = content
        self._path = path

    def text(self, *names: str) -> str | None:
        for name in names:
            value = self._content.get(name)
            if value is None or value == "":
                continue
            if not isinstance(value, str):
                raise NimbusDiscoveryError(f"`{name}` in the credential file {self._path} is not a text")
            return _filled(value)
        return None


class _TokenFile:
    """A token that somebody else renews."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._until = float("-inf")
        self._token = ""

    def __call__(self) -> tuple[str, str]:
        if self._clock() >= self._until:
            try:
                token = self._path.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise NimbusDiscoveryError(
                    f"NIMBUS_WORKLOAD_IDENTITY_TOKEN_FILE: {self._path} cannot be read"
                ) from error
            if not token:
                raise NimbusDiscoveryError(f"NIMBUS_WORKLOAD_IDENTITY_TOKEN_FILE: there is no token in {self._path}")
            self._token = token
            self._until = self._clock() + _TOKEN_FILE_S
        return Credential("workload_identity", self._token).header()


def _checked(endpoint: str) -> str:
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise NimbusDiscoveryError(f"the endpoint {endpoint!r} is not a URL like http://127.0.0.1:8080")
    if url.username is not None or url.password is not None:
        raise NimbusDiscoveryError("the endpoint must not hold a user or a password")
    return f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}"


def _variable(name: str) -> str | None:
    """An environment variable; an empty one counts as unset."""
    return _filled(os.environ.get(name))


def _filled(value: str | None) -> str | None:
    return (value or "").strip() or None
