import { describe, expect, it } from "vitest";
import {
  decodeNimbusErrorEnvelope,
  isNimbusCommitError,
  Nimbus,
  type NimbusApiError,
  NimbusAuthError,
  NimbusConflictError,
  NimbusNotFoundError,
  NimbusPreconditionFailedError,
  NimbusRateLimitedError,
  NimbusTransportError,
} from "../../src/index.js";
import { NimbusRestClient } from "../../src/rest.js";
import { all, failureOf, spec, world } from "../world.js";

describe("errors", () => {
  it("carry what the server said", async () => {
    await using here = await world();
    const { nimbus } = here;
    await nimbus.services.create({ name: "worker", backend: { kind: "builtIn", provider: "loadBalancer" } });
    await nimbus.services.update({ name: "worker", backend: { kind: "builtIn", provider: "browser" }, ifMatchGeneration: 1 });
    const stale = await failureOf(nimbus.services.update({ name: "worker", backend: { kind: "builtIn", provider: "browser" }, ifMatchGeneration: 1 }));
    expect(stale).toBeInstanceOf(NimbusPreconditionFailedError);
    expect(stale).toMatchObject({
      name: "NimbusPreconditionFailedError",
      code: "op.precondition_failed",
      status: 412,
      retryable: false,
      detail: { expectedGeneration: 1, currentGeneration: 2 },
      remediation: { action: "refresh_resource" },
    });
    expect((stale as NimbusApiError).requestId).toMatch(/^req-/);
    const missing = await failureOf(nimbus.services.get({ name: "nobody" }));
    expect(missing).toBeInstanceOf(NimbusNotFoundError);
    expect(missing).toMatchObject({ code: "op.not_found", detail: { kind: "service", name: "nobody" } });
    expect(await failureOf(nimbus.services.start({ name: "worker" }))).toBeInstanceOf(NimbusConflictError);
    expect(await failureOf(here.client({ token: "wrong" }).tenants.list())).toBeInstanceOf(NimbusAuthError);
  });

  it("are made of answers that are no envelope", async () => {
    await using here = await world();
    here.fake.breakNext(/^GET/, { status: 502, times: 9, text: "<html>bad gateway</html>" });
    expect(await failureOf(here.client({ maxRetries: 0 }).tenants.list())).toMatchObject({ code: "service.unavailable", status: 502, retryable: true });
    expect(decodeNimbusErrorEnvelope(undefined, { status: 404 })).toMatchObject({ code: "op.not_found", retryable: false });
    expect(decodeNimbusErrorEnvelope({ success: false, error: "no", fault: { code: "machine.busy", message: "busy", retryable: true } }, { status: 409 })).toMatchObject({
      code: "machine.busy",
      message: "busy",
      retryable: true,
    });
  });

  it("say what a repeat needs", () => {
    const limited = new NimbusRateLimitedError(decodeNimbusErrorEnvelope({ error: { code: "rate.limited", message: "m", retryable: true, detail: { retryAfterMs: 1500 } } }, { status: 429 }));
    expect(limited).toMatchObject({ kind: "limited", retryability: "retryable_after_backoff", retryAfterMs: 1500 });
    const told = new NimbusConflictError(decodeNimbusErrorEnvelope({ error: { code: "op.conflict", message: "m", detail: { retryability: "retryable" } } }, { status: 409 }));
    expect(told.retryability).toBe("retryable");
    expect(isNimbusCommitError(told)).toBe(true);
    expect(isNimbusCommitError(new NimbusTransportError("m"))).toBe(false);
  });

  it("name a server that cannot be reached", async () => {
    const nimbus = new Nimbus({ endpoint: "http://127.0.0.1:1", token: "t", maxRetries: 0 });
    const error = await failureOf(nimbus.tenants.list());
    expect(error).toBeInstanceOf(NimbusTransportError);
    expect(error).toMatchObject({ code: "client.transport", status: 0, retryable: true });
    expect(String(error)).toContain("http://127.0.0.1:1/api/tenants");
  });
});

describe("retries", () => {
  it("repeat what only reads", async () => {
    await using here = await world();
    here.fake.breakNext(/^GET/, {});
    here.fake.breakNext(/^GET/, { status: 503, times: 2 });
    expect(await here.nimbus.tenants.list()).toEqual(["demo"]);
    expect(here.fake.requests).toHaveLength(4);
  });

  it("repeat a creation under the same key, so that it happens once", async () => {
    await using here = await world();
    here.fake.breakNext(/^POST .*sandboxes$/, { after: true });
    const made = await here.nimbus.sandboxes.create({ profile: "worker", spec: spec() });
    const posts = here.fake.requests.filter((request) => request.method === "POST");
    expect(posts).toHaveLength(2);
    expect(posts[0]?.headers["idempotency-key"]).toMatch(/^[0-9a-f]{32}$/);
    expect(posts[1]?.headers["idempotency-key"]).toBe(posts[0]?.headers["idempotency-key"]);
    expect((await all(here.nimbus.sandboxes.list())).map((one) => one.id)).toEqual([made.id]);
  });

  it("leave alone what may have been done, and what will not pass", async () => {
    await using here = await world();
    const { nimbus, fake } = here;
    await nimbus.services.create({ name: "worker", backend: { kind: "sandbox", sandbox: { ...spec(), owner: { kind: "service" } } } });
    fake.requests.length = 0;
    fake.breakNext(/^(POST|PUT|DELETE)/, { status: 503, times: 3 });
    await failureOf(nimbus.services.start({ name: "worker" }));
    await failureOf(nimbus.services.update({ name: "worker", backend: { kind: "builtIn", provider: "browser" }, ifMatchGeneration: 1 }));
    await failureOf(nimbus.services.delete({ name: "worker", ifMatchGeneration: 1 }));
    expect(fake.requests).toHaveLength(3);
    fake.breakNext(/^GET/, { status: 503, retryable: false, code: "service.sandbox_backend_unavailable" });
    await failureOf(nimbus.services.get({ name: "worker" }));
    fake.breakNext(/^GET/, { status: 429, code: "rate.resource_exhausted" });
    await failureOf(nimbus.services.get({ name: "worker" }));
    fake.breakNext(/^GET/, { status: 429, code: "rate.limited", headers: { "retry-after": "60" } });
    expect(await failureOf(nimbus.services.get({ name: "worker" }))).toMatchObject({ code: "rate.limited", retryAfterMs: 60_000 });
    expect(fake.requests).toHaveLength(6);
  });

  it("end after a few", async () => {
    await using here = await world();
    here.fake.breakNext(/^GET/, { status: 503, times: 99 });
    await failureOf(here.client({ maxRetries: 1 }).tenants.list());
    expect(here.fake.requests).toHaveLength(2);
  });

  it("end when the caller gives up", async () => {
    await using here = await world();
    here.fake.breakNext(/^GET/, { status: 429, code: "rate.limited", headers: { "retry-after": "9" }, times: 99 });
    const given = new AbortController();
    const asked = here.nimbus.tenants.list({ signal: given.signal });
    setTimeout(() => { given.abort(new Error("enough")); }, 20);
    expect(String(await failureOf(asked))).toContain("enough");
  });
});

describe("lists", () => {
  it("are one page when awaited and everything in a loop", async () => {
    await using here = await world();
    const names = ["a", "b", "c", "d", "e"];
    for (const name of names) await here.nimbus.services.create({ name, backend: { kind: "builtIn", provider: "browser" }, labels: name < "d" ? { early: "yes" } : {} });
    const page = await here.nimbus.services.list({ limit: 2 });
    expect(page.items.map((one) => one.metadata.name)).toEqual(["a", "b"]);
    expect(page.metadata).toMatchObject({ tenantId: "demo", limit: 2, nextPageToken: "b", remainingCount: 3 });
    expect((await here.nimbus.services.list({ limit: 2, pageToken: page.metadata.nextPageToken })).items.map((one) => one.metadata.name)).toEqual(["c", "d"]);
    expect((await all(here.nimbus.services.list({ limit: 2 }))).map((one) => one.metadata.name)).toEqual(names);
    expect(await all(here.nimbus.services.list({ labelKey: "early" }))).toHaveLength(3);
    here.fake.requests.length = 0;
    here.nimbus.services.list();
    expect(here.fake.requests).toHaveLength(0);
  });
});

describe("paths", () => {
  it("take names as they are", async () => {
    await using here = await world();
    await failureOf(here.nimbus.services.get({ name: "../tenants?x=1#y" }));
    expect(here.fake.requests[0]?.path).toBe("/api/tenants/demo/services/..%2Ftenants%3Fx%3D1%23y");
  });
});

describe("rest client", () => {
  it("sends what it is told to, and no credential that lies around", async () => {
    await using here = await world();
    const rest = new NimbusRestClient(here.fake.url, { headers: { authorization: `Bearer ${here.fake.token}` } });
    expect(await rest.health()).toEqual({ status: "ok" });
    expect(await rest.createTenant("other")).toEqual({ id: "other" });
    expect(await rest.listTenants()).toEqual(["demo", "other"]);
    await rest.deleteTenant("other");
    expect(await rest.request("GET", "/api/tenants/demo/services", { query: { limit: 1 } })).toMatchObject({ items: [] });
    expect(await failureOf(rest.getTenant("other"))).toMatchObject({ code: "session.tenant_not_found" });
    const stranger = new NimbusRestClient(here.fake.url);
    expect(await stranger.health()).toEqual({ status: "ok" });
    expect(here.fake.requests.at(-1)?.headers["authorization"]).toBeUndefined();
  });
});
