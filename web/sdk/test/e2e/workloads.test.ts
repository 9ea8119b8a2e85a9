import { expect, it } from "vitest";
import { NimbusInputError, NimbusWaitFailedError, NimbusWaitTimeoutError } from "../../src/index.js";
import { all, failureOf } from "../world.js";
import { client, fresh, onServer, place, running, spec, START } from "./place.js";

onServer("services", (tenant, nimbus) => {
  const backend = { kind: "sandbox", sandbox: { ...spec(), owner: { kind: "service" } } } as const;

  it("go through the generations", async () => {
    const made = await nimbus.services.create({ name: "worker", backend, labels: { team: "search" } });
    expect(made).toMatchObject({
      metadata: { tenantId: tenant, name: "worker", generation: 1, labels: { team: "search" }, source: "dynamic" },
      spec: { backend: { kind: "sandbox", sandbox: { process: { argv: { redacted: true, valueCount: 2 }, environment: { redacted: true, valueCount: 0 } } } } },
      status: { backend: "sandbox", lifecycleState: "stopped", readiness: "stopped", health: "unknown" },
    });
    const started = await nimbus.services.start({ name: "worker", waitUntil: "ready", ...START });
    expect(started).toMatchObject({ name: "worker", readiness: "ready", lifecycleState: "ready", backend: "container", status: { readiness: "ready" } });
    const current = await nimbus.services.get({ name: "worker" });
    expect(current.metadata.generation).toBe(1);
    const updated = await nimbus.services.update({ name: "worker", backend: { kind: "builtIn", provider: "loadBalancer" }, ifMatchGeneration: 1 });
    expect(updated).toMatchObject({ metadata: { generation: 2, labels: { team: "search" } }, status: { lifecycleState: "declared", readiness: "unknown" } });
    const stale = await failureOf(nimbus.services.update({ name: "worker", backend: { kind: "builtIn", provider: "browser" }, ifMatchGeneration: 1 }));
    expect(stale).toMatchObject({ status: 412, code: "op.precondition_failed", detail: { expectedGeneration: 1, currentGeneration: 2 }, remediation: { action: "refresh_resource" } });
    expect(await failureOf(nimbus.services.start({ name: "worker" }))).toMatchObject({ code: "op.conflict", detail: { reason: "backend_not_launchable" } });
    expect(await failureOf(nimbus.services.delete({ name: "worker", ifMatchGeneration: 1 }))).toMatchObject({ status: 412 });
    await nimbus.services.delete({ name: "worker", ifMatchGeneration: 2 });
    expect(await failureOf(nimbus.services.get({ name: "worker" }))).toMatchObject({ code: "op.not_found", detail: { kind: "service", tenantId: tenant, name: "worker" } });
  });

  it("stop, restart with another sandbox, and are not deleted while they run", async () => {
    await nimbus.services.create({ name: "again", backend });
    const first = await nimbus.services.start({ name: "again", waitUntil: "healthy", ...START });
    expect(await failureOf(nimbus.services.delete({ name: "again", ifMatchGeneration: 1 }))).toMatchObject({ code: "op.conflict", detail: { reason: "running" } });
    const second = await nimbus.services.restart({ name: "again", waitUntil: "ready", ...START });
    expect(second.sandboxId).not.toBe(first.sandboxId);
    const stopped = await nimbus.services.stop({ name: "again", waitUntil: "stopped" });
    expect(stopped.readiness).toBe("stopped");
    const late = await failureOf(nimbus.services.wait({ name: "again", until: "ready", timeoutMs: 600 }));
    expect(late).toBeInstanceOf(NimbusWaitTimeoutError);
    expect(String(late)).toContain("service again was not ready within 600 ms; last seen: lifecycleState stopped");
    await nimbus.services.delete({ name: "again", ifMatchGeneration: 1 });
  });

  it("fail visibly when what they run is not there", async () => {
    await nimbus.services.create({ name: "broken", backend: { kind: "sandbox", sandbox: { ...spec(["sh", "-c", "exit 9"]), owner: { kind: "service" }, lifecycle: { restartPolicy: { kind: "never" } } } } });
    const error = await failureOf(nimbus.services.start({ name: "broken", waitUntil: "healthy", ...START }).then(() => nimbus.services.wait({ name: "broken", until: "stopped", timeoutMs: 5_000 })));
    expect(error instanceof NimbusWaitFailedError || error instanceof NimbusWaitTimeoutError).toBe(true);
    expect(String(error)).toContain("lifecycleState failed");
    await nimbus.services.delete({ name: "broken", ifMatchGeneration: 1, force: true });
  });

  it("are listed page by page and by label", async () => {
    const names = ["a", "b", "c"].map((letter) => `${letter}-listed`);
    for (const name of names) await nimbus.services.create({ name, backend: { kind: "builtIn", provider: "serviceDiscovery" }, labels: { listed: name[0] ?? "" } });
    const page = await nimbus.services.list({ labelKey: "listed", limit: 2 });
    expect(page.metadata).toMatchObject({ tenantId: tenant, limit: 2, remainingCount: 1 });
    expect(page.items.map((one) => one.metadata.name)).toEqual(names.slice(0, 2));
    const rest = await nimbus.services.list({ labelKey: "listed", limit: 2, pageToken: page.metadata.nextPageToken });
    expect(rest.items.map((one) => one.metadata.name)).toEqual(names.slice(2));
    expect(rest.metadata.nextPageToken).toBeUndefined();
    expect((await all(nimbus.services.list({ labelKey: "listed", limit: 1 }))).map((one) => one.metadata.name)).toEqual(names);
    expect(await all(nimbus.services.list({ labelKey: "listed", labelValue: "b" }))).toHaveLength(1);
    expect(await failureOf(nimbus.services.list({ labelValue: "b" }))).toMatchObject({ code: "op.invalid_input" });
    for (const name of names) await nimbus.services.delete({ name, ifMatchGeneration: 1 });
  });

  it("may be somebody else's, and are looked at all the same", async () => {
    const made = await nimbus.services.create({
      name: "elsewhere",
      backend: { kind: "external", endpoint: { url: place.url }, auth: { kind: "none" }, health: { kind: "http", path: "/health" } },
    });
    expect(made.status).toMatchObject({ backend: "external", lifecycleState: "declared" });
    await nimbus.services.delete({ name: "elsewhere", ifMatchGeneration: 1 });
  });
});

onServer("sandboxes", (tenant, nimbus) => {
  it("live once", async () => {
    const created = await nimbus.sandboxes.create({ profile: "worker", spec: spec(["sleep", "600"], "batch-job"), labels: { purpose: "batch" } });
    expect(created.id).toMatch(/^batch-job-[0-9a-hjkmnp-tv-z]{26}$/);
    expect(created.metadata).toMatchObject({ tenantId: tenant, generation: 1, labels: { purpose: "batch" } });
    const sandbox = await created.wait("ready", START);
    expect(sandbox.spec).toMatchObject({ profile: "worker", sandbox: { owner: { kind: "standalone", displayName: "batch-job" }, process: { argv: { redacted: true, valueCount: 2 } } } });
    expect((await all(nimbus.sandboxes.list({ status: "ready", labelKey: "purpose" }))).map((one) => one.id)).toEqual([sandbox.id]);
    expect(await failureOf(sandbox.delete())).toMatchObject({ code: "op.conflict" });
    await sandbox.stop();
    expect((await sandbox.wait("stopped")).status.endpoints).toEqual([]);
    expect(await failureOf(sandbox.wait("ready"))).toBeInstanceOf(NimbusWaitFailedError);
    await sandbox.delete();
    expect(await failureOf(sandbox.refresh())).toMatchObject({ code: "op.not_found", detail: { kind: "sandbox", id: sandbox.id } });
  });

  it("say how they ended", async () => {
    const sandbox = await nimbus.sandboxes.create({ profile: "worker", spec: spec(["sh", "-c", "echo last words; exit 3"]) });
    const error = await failureOf(sandbox.wait("stopped", START));
    expect(error).toBeInstanceOf(NimbusWaitFailedError);
    expect(String(error)).toContain("exitCode 3");
    expect((await all(sandbox.logs())).map((line) => line.data).join("")).toContain("last words");
  });

  it("follow their log", async () => {
    const sandbox = await running(nimbus, ["sh", "-c", "echo one; echo two >&2; read line; echo got $line"]);
    const session = await nimbus.sessions.open({ target: { sandbox: { id: sandbox.id } }, channels: ["stdio"] });
    const seen: string[] = [];
    const following = (async () => {
      for await (const line of sandbox.logs({ follow: true })) seen.push(`${line.stream} ${line.data.trim()}`);
    })();
    const stdio = await session.stdio();
    const writer = stdio.stdin.getWriter();
    await writer.write("it\n");
    await following;
    expect(seen).toEqual(expect.arrayContaining(["stdout one", "stderr two", "stdout got it"]));
  });

  it("belong to one tenant", async () => {
    const other = client(fresh("sdk"));
    await other.tenants.create({ id: other.tenantId ?? "" });
    const sandbox = await nimbus.sandboxes.create({ profile: "worker", spec: spec() });
    try {
      expect(await failureOf(other.sandboxes.get({ id: sandbox.id }))).toMatchObject({ code: "op.not_found" });
      expect(await failureOf(nimbus.sandboxes.get({ id: sandbox.id, tenantId: "nobody-has-this" }))).toMatchObject({ code: "session.tenant_not_found", detail: { tenantId: "nobody-has-this" } });
      expect(await failureOf(new Promise((_, reject) => { client("").sandboxes.list().catch(reject); }))).toBeInstanceOf(NimbusInputError);
    } finally {
      await sandbox.stop();
      await other.tenants.delete({ id: other.tenantId ?? "" });
    }
  });

  it("refuse what is not offered", async () => {
    expect(await failureOf(nimbus.sandboxes.create({ profile: "worker", spec: { ...spec(), backend: "krun" } }))).toMatchObject({ code: "service.sandbox_backend_unavailable", retryable: false });
    expect(await failureOf(nimbus.sandboxes.create({ profile: "worker", spec: { ...spec(), owner: { kind: "service", serviceName: "x" } } }))).toMatchObject({ code: "op.invalid_input" });
    expect(await failureOf(client(tenant, { token: "nonsense" }).sandboxes.list())).toMatchObject({ code: "auth.unauthorized" });
  });
});

onServer("secrets", (_, nimbus) => {
  it("reach a sandbox and nobody else", async () => {
    await nimbus.secrets.put({ name: "api-key", value: "s3cret-value" });
    expect(JSON.stringify(await nimbus.secrets.list())).not.toContain("s3cret-value");
    const own = spec();
    const created = await nimbus.sandboxes.create({ profile: "worker", spec: { ...own, process: { ...own.process, secrets: [{ secret: "api-key", variable: "API_KEY" }] } } });
    await using sandbox = await created.wait("ready", START);
    expect(JSON.stringify(sandbox)).not.toContain("s3cret-value");
    expect((await sandbox.exec({ argv: ["sh", "-c", "printf %s $API_KEY"] })).stdout).toBe("s3cret-value");
    await nimbus.secrets.delete({ name: "api-key" });
    expect(await nimbus.secrets.list()).toEqual([]);
  });
});
