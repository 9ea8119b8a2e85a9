/** Made-up sandboxes, services and sessions, and the routes that give them. */
import { http, HttpResponse } from "msw";
import type { ApiKey, CommandInfo, FileEntry, Host, Lifecycle, Sandbox, SecretInfo, Service, Tenant, WorkSession } from "~/api/workloads";
import { me, NOW } from "./data";
import { fault } from "./fault";

export const TENANT = me.tenant_id;
const ago = (seconds: number) => new Date(NOW - seconds * 1000).toISOString();
const ULID = "01jzzzzzzzzzzzzzzzzzzzzzz";

/** A refusal as the routes of workloads write it. */
export function denied(status: number, code: string, message: string, detail: Record<string, unknown> | null = null) {
  return HttpResponse.json({ error: fault(code, message, { detail }) }, { status });
}

export function collection(items: readonly unknown[]) {
  return HttpResponse.json({ metadata: { tenantId: TENANT, resourceVersion: "7", limit: 100, remainingCount: 0 }, items });
}

export interface SandboxOptions {
  name: string;
  n: number;
  state?: Lifecycle;
  image?: string;
  profile?: string;
  start?: "warm" | "cold";
  ms?: number;
  status?: Partial<Sandbox["status"]>;
}

export function sandbox({ name, n, state = "ready", image = "docker.io/library/python:3.12-slim", profile = "worker", start = "warm", ms = 3.8, status }: SandboxOptions): Sandbox {
  const isUp = state === "ready" || state === "not_ready";
  return {
    metadata: { tenantId: TENANT, id: `${name}-${ULID}${n}`, generation: 1, resourceVersion: `sandbox-${n}`, createdAt: ago(n * 600), updatedAt: ago(n * 600), labels: n === 1 ? { purpose: "batch" } : {} },
    spec: {
      profile,
      sandbox: {
        owner: { kind: "standalone", displayName: name },
        backend: "container",
        root: { kind: "oci_image", source: { reference: image } },
        process: { argv: { redacted: true, valueCount: 2 }, environment: { redacted: true, valueCount: 0 }, cwd: "/", terminal: false },
        resources: { vcpus: 1, memoryBytes: 512 * 1024 ** 2, diskBytes: 5 * 1024 ** 3, pids: 512 },
        network: { egress: { allow: [] } },
      },
    },
    status: {
      lifecycleState: state,
      readiness: isUp ? "ready" : "stopped",
      health: isUp ? "healthy" : "unknown",
      backend: "container",
      endpoints: [],
      conditions: [{ type: "Ready", status: isUp ? "True" : "False", reason: "BackendState", message: "the process runs", observedGeneration: 1, lastTransitionTime: ago(n * 600) }],
      exitCode: null,
      expiresAt: isUp ? ago(-1_800) : null,
      imageDigest: "sha256:7f1c0d2e3a4b5c6d7e8f90123456789abcdef0123456789abcdef0123456789a",
      start,
      startedAfterMs: ms,
      host: "host-a",
      restartCount: 0,
      ...status,
    },
  };
}

export function sandboxes(): Sandbox[] {
  return [
    sandbox({ name: "batch-job", n: 1 }),
    sandbox({ name: "browser-agent", n: 2, profile: "desktop", image: "ghcr.io/nimbus/desktop:1", start: "cold", ms: 2140 }),
    sandbox({ name: "build", n: 3, state: "starting", image: "docker.io/library/node:22-slim", status: { start: null, startedAfterMs: null, host: null } }),
    sandbox({
      name: "import",
      n: 4,
      state: "failed",
      status: { exitCode: 3, conditions: [{ type: "Ready", status: "False", reason: "LaunchFailed", message: "no such file: /app/run", observedGeneration: 1, lastTransitionTime: ago(900) }] },
    }),
    sandbox({ name: "scratch", n: 5, state: "stopped" }),
  ];
}

export function service(name: string, state: Lifecycle, backend: Service["spec"]["backend"], generation = 3): Service {
  return {
    metadata: { tenantId: TENANT, name, generation, resourceVersion: `svcdef-${generation}`, createdAt: ago(86_400), updatedAt: ago(3_600), labels: { team: "search" }, source: "dynamic" },
    spec: { backend },
    status: {
      backend: backend.kind,
      lifecycleState: state,
      readiness: state === "ready" ? "ready" : "stopped",
      health: state === "ready" ? "healthy" : "unknown",
      sandboxId: state === "ready" ? `${name}-${ULID}9` : null,
      restartCount: 1,
      observedGeneration: generation,
      endpoints: state === "ready" ? [{ name: "tcp-8080", protocol: "tcp", host: "127.0.0.1", port: 15_000 }] : [],
      conditions: [{ type: "Admitted", status: "True", reason: "DefinitionValidated", message: "", observedGeneration: generation, lastTransitionTime: ago(3_600) }],
    },
  };
}

export function services(): Service[] {
  return [
    service("worker", "ready", {
      kind: "sandbox",
      sandbox: {
        owner: { kind: "service", serviceName: "worker" },
        backend: "container",
        root: { kind: "oci_image", source: { reference: "docker.io/library/redis:7-alpine" } },
        process: { argv: { redacted: true, valueCount: 2 }, environment: { redacted: true, valueCount: 1 }, cwd: "/", terminal: false },
        resources: { vcpus: 1, memoryBytes: 512 * 1024 ** 2 },
      },
    }),
    service("directory", "declared", { kind: "external", endpoint: { url: "https://ldap.example.org" }, auth: { kind: "none" }, health: { kind: "http", path: "/health" } }, 1),
    service("balancer", "declared", { kind: "builtIn", provider: "loadBalancer" }, 1),
  ];
}

export function session(n: number, state: WorkSession["status"]["lifecycleState"] = "open"): WorkSession {
  const target = n === 2 ? { service: { name: "worker" } } : { sandbox: { id: `batch-job-${ULID}1` } };
  return {
    metadata: { tenantId: TENANT, id: `ses_${ULID}${n}`, generation: state === "open" ? 1 : 2, resourceVersion: `session-${n}`, createdAt: ago(n * 60), updatedAt: ago(n * 60) },
    spec: { target, channels: ["stdio", "files"], expiresAt: ago(-600) },
    status: {
      lifecycleState: state,
      expiresAt: new Date(Date.now() + 600_000).toISOString(),
      ...(state === "open" ? {} : { closedAt: ago(30), closeReason: "client_close" }),
      conditions: [{ type: "Open", status: state === "open" ? "True" : "False", reason: state === "open" ? "LeaseActive" : "ClientClosed", message: "" }],
    },
  };
}

export const workSessions = () => [session(1), session(2), session(3, "closed")];

export const files: FileEntry[] = [
  { name: "app", path: "/app", type: "dir", size: 0, mode: "0755" },
  { name: "etc", path: "/etc", type: "dir", size: 0, mode: "0755" },
  { name: "notes.txt", path: "/notes.txt", type: "file", size: 2_048, mode: "0644" },
  { name: "sh", path: "/sh", type: "symlink", size: 0, mode: "0777" },
];

export const commands: CommandInfo[] = [
  { id: "main", argv: ["sleep", "infinity"], state: "running", startedAt: ago(600) },
  { id: "c1", argv: ["sh", "-c", "exit 3"], state: "exited", exitCode: 3, startedAt: ago(120) },
];

export const tenant: Tenant = {
  id: TENANT,
  policy: { resources: true, ports: true, egress: true, mounts: true },
  quota: { limit: { vcpus: 8, memoryBytes: 8 * 1024 ** 3, sandboxes: 20 }, used: { vcpus: 2, memoryBytes: 1024 ** 3, sandboxes: 3 } },
};

export const secrets: SecretInfo[] = [{ name: "registry-token", version: 2, createdAt: ago(86_400), updatedAt: ago(3_600) }];
export const apiKeys: ApiKey[] = [
  { id: "key_1", name: "agent-runner", grants: [{ actions: ["sandboxes.create", "sandboxes.stop", "sandboxes.exec", "data.read"], sandboxes: "own" }], createdAt: ago(86_400), expiresAt: null, lastUsedAt: ago(300) },
];
export const hosts: Host[] = [
  {
    name: "host-a",
    engine: "docker 27.3.1",
    arch: "x86_64",
    vcpus: 16,
    memoryBytes: 64 * 1024 ** 3,
    diskBytes: 400 * 1024 ** 3,
    backends: ["container"],
    missing: ["krun: /dev/kvm is missing"],
    seenAt: ago(2),
    lost: false,
    used: { vcpus: 4, memoryBytes: 6 * 1024 ** 3 },
    sandboxes: 3,
    warm: [{ image: "docker.io/library/python:3.12-slim", count: 4 }],
  },
  { name: "host-b", engine: "podman 5.3.0", arch: "aarch64", vcpus: 8, memoryBytes: 32 * 1024 ** 3, diskBytes: 100 * 1024 ** 3, backends: ["container"], missing: [], seenAt: ago(75), lost: true, used: { vcpus: 0, memoryBytes: 0 }, sandboxes: 0, warm: [] },
];

const missing = (what: string) => denied(404, "op.not_found", `there is no such ${what}`);

export const workHandlers = [
  http.get("*/api/tenants", () => HttpResponse.json({ tenants: ["search-team"] })),
  http.get("*/api/tenants/:tenant", () => HttpResponse.json(tenant)),
  http.get("*/api/tenants/:tenant/sandboxes", () => collection(sandboxes())),
  http.get("*/api/tenants/:tenant/sandboxes/:id", ({ params }) => {
    const found = sandboxes().find((item) => item.metadata.id === params["id"]);
    return found ? HttpResponse.json(found) : missing("sandbox");
  }),
  http.get("*/api/tenants/:tenant/sandboxes/:id/commands", () => HttpResponse.json({ items: commands })),
  http.get("*/api/tenants/:tenant/sandboxes/:id/files/list", () => HttpResponse.json({ entries: files })),
  http.get("*/api/tenants/:tenant/sandboxes/:id/logs", () => HttpResponse.text(`${JSON.stringify({ ts: ago(5), stream: "stdout", data: "listening on 8080\n" })}\n`)),
  http.get("*/api/tenants/:tenant/services", () => collection(services())),
  http.get("*/api/tenants/:tenant/services/:name", ({ params }) => {
    const found = services().find((item) => item.metadata.name === params["name"]);
    return found ? HttpResponse.json(found) : missing("service");
  }),
  http.get("*/api/tenants/:tenant/services/:name/logs", () => HttpResponse.text("")),
  http.get("*/api/tenants/:tenant/secrets", () => HttpResponse.json({ items: secrets })),
  http.get("*/api/tenants/:tenant/volumes", () => HttpResponse.json({ items: [{ name: "data", host: "host-a", usedBy: [] }] })),
  http.get("*/api/tenants/:tenant/api-keys", () => HttpResponse.json({ items: apiKeys })),
  http.get("*/api/sessions", () => collection(workSessions())),
  http.get("*/api/sessions/:id", ({ params }) => {
    const found = workSessions().find((item) => item.metadata.id === params["id"]);
    return found ? HttpResponse.json(found) : missing("session");
  }),
  http.get("*/api/sessions/:id/channels/files/list", () => HttpResponse.json({ entries: files })),
  http.post("*/api/sessions", () => HttpResponse.json(session(1), { status: 201 })),
  http.post("*/api/sessions/:id/close", () => HttpResponse.json(session(1, "closed"))),
  http.post("*/api/sessions/:id/tickets", () => HttpResponse.json({ ticket: "t-1", expiresAt: ago(-60) })),
  http.get("*/api/hosts", () => HttpResponse.json({ items: hosts })),
];
