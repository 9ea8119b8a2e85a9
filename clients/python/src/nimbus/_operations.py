"""Every operation of the API as steps, for the blocking and the async client alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from . import specs
from ._calls import Answer, Call, Content, Steps, fetch, path, send
from ._commands import CommandInfo
from ._wait import check, one_of, wait_for
from .errors import NimbusInputError
from .models import (
    FileEntry,
    Page,
    PageMetadata,
    PreviewLink,
    Service,
    Tenant,
    decode,
)

T = TypeVar("T")


class Operations:
    def __init__(self, tenant_id: str | None, max_retries: int) -> None:
        self.tenant_id = tenant_id
        self._retries = max_retries

    def tenant(self, given: str | None) -> str:
        """The tenant of a call, or an error that says where to name one."""
        tenant = given or self.tenant_id
        if not tenant:
            raise NimbusInputError("no tenant: pass `tenant_id` to this call or to the client")
        return tenant

    def fetch(self, call: Call) -> Steps[Any]:
        return fetch(call, self._retries)

    def done(self, call: Call) -> Steps[None]:
        yield from send(call, self._retries)

    def whole(self, call: Call) -> Steps[Answer]:
        return send(call, self._retries)

    def page(self, cls: type[T], call: Call) -> Steps[Page[T]]:
        data = yield from self.fetch(call)
        return Page(decode(PageMetadata, data["metadata"]), [decode(cls, item) for item in data["items"]])

    def one(self, cls: type[T], call: Call) -> Steps[T]:
        return decode(cls, (yield from self.fetch(call)))

    # tenants

    def tenant_create(self, tenant_id: str) -> Steps[Tenant]:
        return self.one(Tenant, Call("POST", "/api/tenants", json={"id": tenant_id}, creates=True))

    def tenant_get(self, tenant_id: str) -> Steps[Tenant]:
        return self.one(Tenant, Call("GET", path("api", "tenants", tenant_id)))

    def tenant_list(self) -> Steps[list[str]]:
        data = yield from self.fetch(Call("GET", "/api/tenants"))
        return list(data["tenants"])

    def tenant_delete(self, tenant_id: str) -> Steps[None]:
        return self.done(Call("DELETE", path("api", "tenants", tenant_id), repeatable=True))

    # secrets and volumes

    def named_list(self, cls: type[T], kind: str, tenant_id: str | None) -> Steps[list[T]]:
        data = yield from self.fetch(Call("GET", path("api", "tenants", self.tenant(tenant_id), kind)))
        return [decode(cls, item) for item in data["items"]]

    def named_put(
        self, cls: type[T], kind: str, name: str, body: Mapping[str, Any] | None, tenant_id: str | None
    ) -> Steps[T]:
        return self.one(cls, Call("PUT", path("api", "tenants", self.tenant(tenant_id), kind, name), json=body))

    def named_delete(self, kind: str, name: str, tenant_id: str | None) -> Steps[None]:
        return self.done(Call("DELETE", path("api", "tenants", self.tenant(tenant_id), kind, name)))

    # services

    def service_path(self, name: str, tenant_id: str | None) -> str:
        return path("api", "tenants", self.tenant(tenant_id), "services", name)

    def service_create(
        self, name: str, backend: specs.ServiceBackend, labels: Mapping[str, str] | None, tenant_id: str | None
    ) -> Steps[Service]:
        tenant = self.tenant(tenant_id)
        body = _definition(tenant, name, backend, labels, None)
        return self.one(Service, Call("POST", path("api", "tenants", tenant, "services"), json=body, creates=True))

    def service_get(self, name: str, tenant_id: str | None) -> Steps[Service]:
        return self.one(Service, Call("GET", self.service_path(name, tenant_id)))

    def service_list(self, query: Mapping[str, str | int | None], tenant_id: str | None) -> Steps[Page[Service]]:
        return self.page(Service, Call("GET", path("api", "tenants", self.tenant(tenant_id), "services"), query))

    def service_update(
        self,
        name: str,
        backend: specs.ServiceBackend,
        generation: int,
        labels: Mapping[str, str] | None,
        tenant_id: str | None,
    ) -> Steps[Service]:
        body = _definition(self.tenant(tenant_id), name, backend, labels, generation)
        return self.one(Service, Call("PUT", self.service_path(name, tenant_id), json=body))

    def service_delete(self, name: str, generation: int, force: bool, tenant_id: str | None) -> Steps[None]:
        query = {"ifMatchGeneration": generation, "force": True if force else None}
        return self.done(Call("DELETE", self.service_path(name, tenant_id), query))

    def service_act(
        self, verb: str, name: str, until: str | None, timeout: float, interval: float, tenant_id: str | None
    ) -> Steps[Service]:
        check(timeout, interval)
        if until is not None:
            one_of("wait_until", ("stopped",) if verb == "stop" else ("ready", "healthy"), until)
        call = Call("POST", f"{self.service_path(name, tenant_id)}/{verb}", json={})
        service = yield from self.one(Service, call)
        if until is None:
            return service
        return (yield from self.service_wait(name, until, timeout, interval, tenant_id))

    def service_wait(
        self, name: str, until: str, timeout: float, interval: float, tenant_id: str | None
    ) -> Steps[Service]:
        check(timeout, interval)
        one_of("until", ("ready", "healthy", "stopped"), until)
        return wait_for("service", name, until, lambda: self.service_get(name, tenant_id), timeout, interval)

    # sandboxes

    def sandbox_path(self, sandbox_id: str, tenant_id: str | None) -> str:
        return path("api", "tenants", self.tenant(tenant_id), "sandboxes", sandbox_id)

    def sandbox_create(
        self, cls: type[T], spec: specs.Sandbox, profile: str, labels: Mapping[str, str] | None, tenant_id: str | None
    ) -> Steps[T]:
        body = {"profile": profile, "spec": spec, "labels": None if labels is None else dict(labels)}
        return self.one(
            cls, Call("POST", path("api", "tenants", self.tenant(tenant_id), "sandboxes"), json=body, creates=True)
        )

    def sandbox_get(self, cls: type[T], sandbox_id: str, tenant_id: str | None) -> Steps[T]:
        return self.one(cls, Call("GET", self.sandbox_path(sandbox_id, tenant_id)))

    def sandbox_list(
        self, cls: type[T], query: Mapping[str, str | int | None], tenant_id: str | None
    ) -> Steps[Page[T]]:
        return self.page(cls, Call("GET", path("api", "tenants", self.tenant(tenant_id), "sandboxes"), query))

    def sandbox_stop(self, cls: type[T], sandbox_id: str, tenant_id: str | None) -> Steps[T]:
        return self.one(cls, Call("POST", f"{self.sandbox_path(sandbox_id, tenant_id)}/stop", json={}))

    def sandbox_extend(
        self, cls: type[T], sandbox_id: str, ttl: float | None, idle_timeout: float | None, tenant_id: str | None
    ) -> Steps[T]:
        body = {"ttlMs": _ms(ttl), "idleTimeoutMs": _ms(idle_timeout)}
        return self.one(cls, Call("POST", f"{self.sandbox_path(sandbox_id, tenant_id)}/extend", json=body))

    def sandbox_delete(self, sandbox_id: str, force: bool, tenant_id: str | None) -> Steps[None]:
        return self.done(
            Call("DELETE", self.sandbox_path(sandbox_id, tenant_id), {"force": True if force else None})
        )

    def sandbox_wait(
        self, cls: type[T], sandbox_id: str, until: str, timeout: float, interval: float, tenant_id: str | None
    ) -> Steps[T]:
        check(timeout, interval)
        one_of("until", ("ready", "healthy", "stopped"), until)
        look = lambda: self.sandbox_get(cls, sandbox_id, tenant_id)  # noqa: E731
        return wait_for("sandbox", sandbox_id, until, look, timeout, interval)

    def sandbox_commands(self, sandbox_id: str, tenant_id: str | None) -> Steps[list[CommandInfo]]:
        data = yield from self.fetch(Call("GET", f"{self.sandbox_path(sandbox_id, tenant_id)}/commands"))
        return [CommandInfo(item["commandId"], item) for item in data["items"]]

    def sandbox_preview(
        self, sandbox_id: str, port: int, ttl: float | None, tenant_id: str | None
    ) -> Steps[PreviewLink]:
        body = {"port": port, "ttlMs": _ms(ttl)}
        return self.one(
            PreviewLink, Call("POST", f"{self.sandbox_path(sandbox_id, tenant_id)}/preview-links", json=body)
        )

    # sessions

    def session_open(
        self,
        cls: type[T],
        target: specs.Target,
        channels: Sequence[specs.Channel],
        ttl: float | None,
        tenant_id: str | None,
    ) -> Steps[T]:
        body = {
            "tenantId": self.tenant(tenant_id),
            "target": target,
            "channels": list(channels),
            "requestedTtlMs": _ms(ttl),
        }
        return self.one(cls, Call("POST", "/api/sessions", json=body, creates=True))

    def session_get(self, cls: type[T], session_id: str, tenant_id: str | None) -> Steps[T]:
        return self.one(cls, Call("GET", path("api", "sessions", session_id), self._hint(tenant_id)))

    def session_list(
        self, cls: type[T], query: Mapping[str, str | int | None], tenant_id: str | None
    ) -> Steps[Page[T]]:
        return self.page(cls, Call("GET", "/api/sessions", {"tenantId": self.tenant(tenant_id), **query}))

    def session_close(self, cls: type[T], session_id: str, reason: str | None, tenant_id: str | None) -> Steps[T]:
        route = f"{path('api', 'sessions', session_id)}/close"
        return self.one(cls, Call("POST", route, self._hint(tenant_id), json={"reason": reason}))

    def _hint(self, tenant_id: str | None) -> dict[str, str | int | bool | None]:
        """Sessions are found by id alone; naming the tenant spares the server a search."""
        return {"tenantId": tenant_id or self.tenant_id}

    # files

    def file_list(self, base: str, directory: str, limit: int | None, token: str | None) -> Steps[Any]:
        return self.fetch(Call("GET", f"{base}/list", {"path": directory, "limit": limit, "pageToken": token}))

    def file_stat(self, base: str, file: str) -> Steps[FileEntry]:
        return self.one(FileEntry, Call("GET", f"{base}/stat", {"path": file}))

    def file_write(
        self,
        base: str,
        file: str,
        content: Content,
        mode: int | None,
        create_parents: bool,
        if_match: str | None,
        if_none_match: str | None,
    ) -> Steps[FileEntry]:
        conditions = {"if-match": if_match, "if-none-match": if_none_match}
        headers = {name: _tag(value) for name, value in conditions.items() if value is not None}
        query = {"path": file, "mode": _octal(mode), "createParents": 1 if create_parents else None}
        call = Call(
            "PUT",
            f"{base}/content",
            query,
            content=content,
            headers={"content-type": "application/octet-stream", **headers},
        )
        return self.one(FileEntry, call)

    def file_remove(self, base: str, file: str, recursive: bool) -> Steps[None]:
        return self.done(Call("DELETE", f"{base}/content", {"path": file, "recursive": 1 if recursive else None}))

    def file_mkdir(self, base: str, directory: str, mode: int | None, create_parents: bool) -> Steps[None]:
        body = {"path": directory, "mode": _octal(mode), "createParents": True if create_parents else None}
        return self.done(Call("POST", f"{base}/mkdir", json=body))

    def file_move(self, base: str, source: str, target: str, replace: bool) -> Steps[None]:
        body = {"from": source, "to": target, "replace": True if replace else None}
        return self.done(Call("POST", f"{base}/move", json=body))

    def file_extract(self, base: str, directory: str, tar: Content) -> Steps[None]:
        headers = {"content-type": "application/x-tar"}
        return self.done(Call("PUT", f"{base}/archive", {"path": directory}, content=tar, headers=headers))


def file_read(base: str, file: str, offset: int, length: int | None) -> Call:
    """Reads a file, or part of it."""
    headers = {"accept": "*/*"}
    if offset or length is not None:
        headers["range"] = f"bytes={offset}-{'' if length is None else offset + length - 1}"
    return Call("GET", f"{base}/content", {"path": file}, headers=headers)


def file_archive(base: str, directory: str) -> Call:
    return Call("GET", f"{base}/archive", {"path": directory}, headers={"accept": "*/*"})


def logs(route: str, tail: int | None, since: str | None, follow: bool) -> Call:
    query = {"tail": tail, "since": since, "follow": True if follow else None}
    return Call("GET", f"{route}/logs", query, headers={"accept": "application/x-ndjson"})


def _tag(etag: str) -> str:
    """An ETag as headers want it: in quotes. Entries have it without."""
    return etag if etag == "*" or '"' in etag else f'"{etag}"'


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _octal(mode: int | None) -> str | None:
    return None if mode is None else f"0{mode:o}"


def _definition(
    tenant: str,
    name: str,
    backend: specs.ServiceBackend,
    labels: Mapping[str, str] | None,
    generation: int | None,
) -> dict[str, Any]:
    return {
        "metadata": {
            "tenantId": tenant,
            "name": name,
            "generation": generation,
            # Without labels the server keeps those it has.
            "labels": None if labels is None else dict(labels),
        },
        "spec": {"backend": backend},
    }
