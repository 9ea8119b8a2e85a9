import { describe, expect, it } from "vitest";
import { NimbusInputError, NimbusWaitFailedError, NimbusWaitTimeoutError, type NimbusSandbox, type NimbusService } from "../../src/index.js";
import { all, failureOf, spec, textOf, world } from "../world.js";

const sandboxBackend = (argv?: readonly string[]) => ({ kind: "sandbox", sandbox: { ...spec(argv), owner: { kind: "service" } } }) as const;

describe("services", () => {
  it("live from definition to deletion", async () => {
    await using here = await world();
    const { nimbus } = here;
    const made = await nimbus.services.create({ name: "worker", backend: sandboxBackend(), labels: { team: "search" } });
    expect(made).toMatchObject({ metadata: { generation: 1, labels: { team: "search" } }, status: { lifecycleState: "stopped" } });
    expect(JSON.parse(here.fake.requests[0]!.body)).toMatchObject({ metadata: { tenantId: "demo", name: "worker" }, spec: { backend: { kind: "sandbox" } } });
    const ready = await nimbus.services.start({ name: "worker", waitUntil: "ready", intervalMs: 10 });
    expect(ready.readiness).toBe("ready");
    const current = await nimbus.services.get({ name: "worker" });
    expect(current.metadata.generation).toBe(1);
    const updated = await nimbus.services.update({ name: "worker", backend: { kind: "builtIn", provider: "loadBalancer" }, ifMatchGeneration: current.metadata.generation });
    expect(updated.metadata).toMatchObject({ generation: 2, labels: { team: "search" } });
    await nimbus.services.delete({ name: "worker", ifMatchGeneration: updated.metadata.generation });
    expect((await nimbus.services.list()).items).toEqual([]);
  });

  it("stop and restart", async () => {
    await using here = await world();
    const { nimbus } = here;
    await nimbus.services.create({ name: "worker", backend: sandboxBackend() });
    const first = await nimbus.services.start({ name: "worker", waitUntil: "healthy", intervalMs: 10 });
    const second = await nimbus.services.restart({ name: "worker", waitUntil: "ready", intervalMs: 10 });
    expect(second.sandboxId).not.toBe(first.sandboxId);
    expect((await nimbus.services.stop({ name: "worker", waitUntil: "stopped" })).lifecycleState).toBe("stopped");
  });
});

describe("waits", () => {
  it("say in the end what they saw last", async () => {
    await using here = await world();
    await here.nimbus.services.create({ name: "worker", backend: sandboxBackend() });
    const error = await failureOf(here.nimbus.services.wait({ name: "worker", until: "ready", timeoutMs: 60, intervalMs: 20 }));
    expect(error).toBeInstanceOf(NimbusWaitTimeoutError);
    expect(String(error)).toMatch(/service worker was not ready within 60 ms; last seen: lifecycleState stopped, readiness stopped, health unknown \(Ready=False BackendState: it is stopped\)/);
    expect((error as NimbusWaitTimeoutError<NimbusService>).last?.metadata.name).toBe("worker");
  });

  it("look every 250 ms for 30 s unless told otherwise", async () => {
    await using here = await world();
    await here.nimbus.services.create({ name: "worker", backend: sandboxBackend() });
    here.fake.requests.length = 0;
    const error = await failureOf(here.nimbus.services.wait({ name: "worker", until: "ready", timeoutMs: 600 }));
    expect(error).toBeInstanceOf(NimbusWaitTimeoutError);
    expect(here.fake.requests.length).toBeGreaterThanOrEqual(3);
    expect(here.fake.requests.length).toBeLessThanOrEqual(5);
  });

  it("refuse what cannot be meant before any request", async () => {
    await using here = await world();
    const { services, sandboxes } = here.nimbus;
    const wrong = [
      services.start({ name: "w", waitUntil: "stopped" as "ready" }),
      services.stop({ name: "w", waitUntil: "ready" as "stopped" }),
      services.wait({ name: "w", until: "gone" as "ready" }),
      services.wait({ name: "w", until: "ready", timeoutMs: 0 }),
      services.wait({ name: "w", until: "ready", intervalMs: Number.NaN }),
      sandboxes.wait({ id: "w", until: "ready", timeoutMs: Number.POSITIVE_INFINITY }),
    ];
    for (const call of wrong) expect(await failureOf(call)).toBeInstanceOf(NimbusInputError);
    expect(here.fake.requests).toEqual([]);
  });

  it("end at once for what has failed or does not run", async () => {
    await using here = await world();
    await here.nimbus.services.create({ name: "balancer", backend: { kind: "builtIn", provider: "loadBalancer" } });
    expect(await failureOf(here.nimbus.services.wait({ name: "balancer", until: "ready" }))).toBeInstanceOf(NimbusWaitFailedError);
    const sandbox = await here.nimbus.sandboxes.create({ profile: "worker", spec: spec(["sh", "-c", "exit 3"]) });
    const error = await failureOf(sandbox.wait("healthy", { intervalMs: 10 }).then((ready) => ready.wait("stopped", { intervalMs: 10 })));
    expect(error).toBeInstanceOf(NimbusWaitFailedError);
    expect(String(error)).toContain("exitCode 3");
    expect((error as NimbusWaitFailedError<NimbusSandbox>).last.status.lifecycleState).toBe("failed");
  });

  it("outlive short troubles of the server", async () => {
    await using here = await world();
    await here.nimbus.services.create({ name: "worker", backend: sandboxBackend() });
    here.fake.breakNext(/^GET/, { status: 503, times: 6 });
    expect((await here.nimbus.services.start({ name: "worker", waitUntil: "ready", intervalMs: 10 })).readiness).toBe("ready");
  });

  it("end when the caller gives up", async () => {
    await using here = await world();
    await here.nimbus.services.create({ name: "worker", backend: sandboxBackend() });
    const given = AbortSignal.timeout(30);
    await failureOf(here.nimbus.services.wait({ name: "worker", until: "ready", signal: given }));
    expect(given.aborted).toBe(true);
  });
});

describe("secrets and volumes", () => {
  it("are named, kept and removed", async () => {
    await using here = await world();
    const { secrets, volumes } = here.nimbus;
    await secrets.put({ name: "key", value: "one" });
    expect((await secrets.put({ name: "key", value: "two" })).version).toBe(2);
    expect(JSON.stringify(await secrets.list())).not.toContain("two");
    await secrets.delete({ name: "key" });
    expect(await secrets.list()).toEqual([]);
    expect((await volumes.ensure({ name: "data" })).usedBy).toEqual([]);
    expect((await volumes.list()).map((volume) => volume.name)).toEqual(["data"]);
    await volumes.delete({ name: "data" });
    expect(await failureOf(volumes.delete({ name: "data" }))).toMatchObject({ code: "op.not_found" });
  });
});

describe("sandboxes", () => {
  it("are created, found, and stopped at the end of a block", async () => {
    await using here = await world();
    let id: string;
    {
      await using sandbox = await here.nimbus.sandboxes.create({ profile: "worker", spec: spec(["sh", "-c", "echo hello; cat"]), labels: { purpose: "test" } });
      id = sandbox.id;
      expect(sandbox.status.lifecycleState).toBe("starting");
      expect((await sandbox.wait("ready", { intervalMs: 10 })).status.readiness).toBe("ready");
      expect(sandbox.spec.sandbox.process?.argv).toEqual({ redacted: true, valueCount: 3 });
      expect((await all(here.nimbus.sandboxes.list({ status: "ready", labelKey: "purpose", labelValue: "test" }))).map((one) => one.id)).toEqual([id]);
      expect(Date.parse((await sandbox.extend({ ttlMs: 60_000 })).status.expiresAt ?? "")).toBeGreaterThan(Date.now());
      expect(await sandbox.preview({ port: 8080 })).toMatchObject({ url: expect.stringContaining("8080") as string });
    }
    expect((await here.nimbus.sandboxes.get({ id })).status.lifecycleState).toBe("stopped");
    await here.nimbus.sandboxes.delete({ id });
    expect(await failureOf(here.nimbus.sandboxes.get({ id }))).toMatchObject({ code: "op.not_found" });
  });

  it("show their log, and follow it", async () => {
    await using here = await world();
    const sandbox = await here.nimbus.sandboxes.create({ profile: "worker", spec: spec(["sh", "-c", "echo one; echo two >&2; sleep 0.1; echo three"]) });
    await sandbox.wait("ready", { intervalMs: 10 });
    const lines = await all(sandbox.logs({ follow: true }));
    expect(lines.map((line) => `${line.stream} ${line.data}`).join("")).toContain("three");
    expect(lines.map((line) => line.stream)).toContain("stderr");
    expect(await all(sandbox.logs({ tail: 1 }))).toHaveLength(1);
  });

  it("hold files", async () => {
    await using here = await world();
    await using sandbox = await here.nimbus.sandboxes.create({ profile: "worker", spec: spec() });
    const { files } = await sandbox.wait("ready", { intervalMs: 10 });
    await files.write("/box/a.txt", "grüße", { createParents: true, mode: 0o600 });
    expect(await files.stat("/box/a.txt")).toMatchObject({ name: "a.txt", type: "file", size: 7, mode: "0600" });
    expect(await files.readText("/box/a.txt")).toBe("grüße");
    const bytes = Uint8Array.from({ length: 300 }, (_, index) => index % 256);
    await files.write("/box/b.bin", bytes);
    expect(await files.read("/box/b.bin")).toEqual(bytes);
    expect(await files.read("/box/b.bin", { offset: 10, length: 5 })).toEqual(bytes.subarray(10, 15));
    await files.write("/box/c", new Blob(["streamed"]).stream());
    expect(await textOf(await files.readStream("/box/c"))).toBe("streamed");
    expect(await failureOf(files.write("/box/c", "again", { ifNoneMatch: "*" }))).toMatchObject({ status: 412 });
    const { etag } = await files.stat("/box/c");
    await files.write("/box/c", "streamed", { ifMatch: etag });
    expect(await failureOf(files.write("/box/c", "late", { ifMatch: "other" }))).toMatchObject({ status: 412 });
    here.fake.breakNext(/^GET .*content/);
    expect(await files.readText("/box/c")).toBe("streamed");
    await files.mkdir("/box/sub");
    await files.move("/box/c", "/box/sub/d");
    expect((await all(files.list("/box", { limit: 1 }))).map((entry) => entry.name)).toEqual(["a.txt", "b.bin", "sub"]);
    const tar = await files.archive("/box");
    await files.extract("/copy", new Uint8Array(await new Response(tar).arrayBuffer()));
    expect(await files.readText("/copy/sub/d")).toBe("streamed");
    await files.remove("/box", { recursive: true });
    expect(await failureOf(files.stat("/box"))).toMatchObject({ code: "op.not_found" });
  });
});
