/**
 * Tenants, sandboxes, services and sessions: the shapes of their routes, which answer with bare resources, and the
 * calls. Whatever arrives is looked at before it is believed; what an older or newer server leaves out is filled in.
 */
import { address, ask, ApiError, open, type Call } from "./client";

export const LIFECYCLES = ["starting", "ready", "not_ready", "stopping", "stopped", "failed", "declared", "unknown"] as const;
export type Lifecycle = (typeof LIFECYCLES)[number];
export const CHANNELS = ["stdio", "files", "cdp", "page"] as const;
export type Channel = (typeof CHANNELS)[number];
export type Labels = Record<string, string>;

export interface Condition {
  type: string;
  status: string;
  reason: string;
  message: string;
  observedGeneration?: number;
  lastTransitionTime?: string;
}

export interface Endpoint {
  name: string;
  protocol: string;
  host: string;
  port: number;
}

export interface Resources {
  vcpus?: number;
  memoryBytes?: number;
  diskBytes?: number;
  logBytes?: number;
  pids?: number;
}

export interface Port {
  name?: string;
  guestPort: number;
  protocol: "tcp" | "http" | "https";
  hostPort?: number;
}

export interface EgressRule {
  name: string;
  protocol: "tcp" | "http" | "https";
  host: string;
  port: number;
  allowInternalIps?: boolean;
}

export type Mount =
  | { kind: "volume"; name: string; target: string; readOnly?: boolean }
  | { kind: "tmpfs"; target: string; sizeBytes?: number };

export interface SecretUse {
  secret: string;
  variable: string;
}

/** What a sandbox shall be. */
export interface SandboxSpec {
  owner: { kind: "standalone"; displayName?: string } | { kind: "service"; serviceName?: string };
  backend: "container" | "krun";
  root: { kind: "oci_image"; source: { kind: "reference"; reference: string } };
  process?: { argv?: string[]; env?: string[]; secrets?: SecretUse[]; cwd?: string; user?: string; terminal?: boolean };
  resources?: Resources;
  ports?: Port[];
  network?: { egress: { allow: EgressRule[] } };
  mounts?: Mount[];
  ttlMs?: number;
  idleTimeoutMs?: number;
  readOnlyRoot?: boolean;
}

export interface CreateSandbox {
  profile: "worker" | "desktop";
  spec: SandboxSpec;
  labels?: Labels;
}

interface Redacted {
  redacted: true;
  valueCount: number;
}

/** The same as it is given back: without arguments and values. */
export interface ShownSpec {
  owner?: { kind: string; displayName?: string; serviceName?: string };
  backend?: string;
  root?: { kind: string; source?: { reference?: string } };
  process?: { argv?: Redacted; environment?: Redacted; secrets?: SecretUse[]; cwd?: string; user?: string; terminal?: boolean };
  resources?: Resources;
  ports?: Port[] | null;
  network?: { egress?: { allow?: EgressRule[] } | null };
  mounts?: Mount[];
  lifecycle?: Record<string, unknown>;
  health?: Record<string, unknown> | null;
  ttlMs?: number | null;
  idleTimeoutMs?: number | null;
  readOnlyRoot?: boolean;
}

export interface Sandbox {
  metadata: { tenantId: string; id: string; generation: number; resourceVersion: string; createdAt: string; updatedAt: string; labels: Labels };
  spec: { profile: string; sandbox: ShownSpec };
  status: {
    lifecycleState: Lifecycle;
    readiness: string;
    health: string;
    backend?: string;
    endpoints: Endpoint[];
    conditions: Condition[];
    exitCode?: number | null;
    outOfMemory?: boolean | null;
    expiresAt?: string | null;
    imageDigest?: string | null;
    start?: string | null;
    startedAfterMs?: number | null;
    host?: string | null;
    restartCount?: number;
  };
}

export type ServiceBackend =
  | { kind: "sandbox"; sandbox: ShownSpec }
  | { kind: "builtIn"; provider: string }
  | { kind: "external"; endpoint: { url: string }; auth?: { kind: string }; health?: { kind: string; path: string } }
  | { kind: "redacted"; backend?: string; reason?: string };

export interface Service {
  metadata: {
    tenantId: string;
    name: string;
    uid?: string;
    generation: number;
    resourceVersion: string;
    createdAt: string;
    updatedAt: string;
    labels: Labels;
    source?: string;
  };
  spec: { backend: ServiceBackend };
  status: {
    backend?: string;
    lifecycleState: Lifecycle;
    readiness: string;
    health: string;
    sandboxId?: string | null;
    restartCount?: number;
    observedGeneration?: number;
    endpoints: Endpoint[];
    conditions: Condition[];
  };
}

/** A definition as it is written; the backend is what somebody typed, and the server judges it. */
export interface WriteService {
  metadata: { name: string; generation?: number; labels?: Labels };
  spec: { backend: unknown };
}

export type SessionTarget = { service: { name: string } } | { sandbox: { id: string } };

export const SESSION_STATES = ["open", "closed", "expired"] as const;
export type SessionState = (typeof SESSION_STATES)[number];

export interface WorkSession {
  metadata: { tenantId: string; id: string; generation: number; resourceVersion: string; createdAt: string; updatedAt: string };
  spec: { target: SessionTarget; targetSnapshot?: Record<string, unknown>; channels: Channel[]; expiresAt?: string };
  status: { lifecycleState: SessionState; expiresAt: string; closedAt?: string | null; closeReason?: string | null; conditions: Condition[] };
}

export interface Policy {
  resources: boolean;
  ports: boolean;
  egress: boolean;
  mounts: boolean;
}

type Amounts = Resources & { sandboxes?: number };

export interface Tenant {
  id: string;
  createdAt?: string;
  policy?: Policy;
  quota?: { limit: Amounts; used: Amounts };
}

export interface FileEntry {
  name: string;
  path: string;
  type: "file" | "dir" | "symlink" | "other";
  size: number;
  mode?: number | string;
  mtime?: string;
}

export interface CommandInfo {
  id: string;
  argv?: string[];
  state: "running" | "exited";
  exitCode?: number | null;
  signal?: number | string | null;
  startedAt?: string;
  endedAt?: string | null;
  tty?: boolean;
}

export interface ExecAnswer {
  exitCode: number | null;
  signal?: string;
  timedOut?: boolean;
  stdout: string;
  stdoutEncoding?: string;
  stderr: string;
  stderrEncoding?: string;
  truncated: boolean;
}

export interface PreviewLink {
  url: string;
  expiresAt?: string;
}

export interface SecretInfo {
  name: string;
  version?: number;
  createdAt?: string;
  updatedAt?: string;
}

export interface Volume {
  name: string;
  host?: string | null;
  createdAt?: string;
  usedBy?: string[];
}

export interface Grant {
  actions: string[];
  services?: string[];
  sandboxes?: "own" | "all";
  channels?: string[];
}

export interface ApiKey {
  id: string;
  name: string;
  grants: Grant[];
  createdAt?: string;
  expiresAt?: string | null;
  lastUsedAt?: string | null;
}

export interface NewApiKey extends ApiKey {
  key: string;
}

export interface Host {
  name: string;
  engine?: string;
  arch?: string;
  vcpus?: number;
  memoryBytes?: number;
  diskBytes?: number;
  backends?: string[];
  missing?: string[];
  seenAt?: string;
  lost?: boolean;
  used?: { vcpus?: number; memoryBytes?: number };
  sandboxes?: number;
  warm?: { image: string; count: number }[];
}

export interface LogLine {
  ts: string;
  stream: "stdout" | "stderr";
  data: string;
  encoding?: string;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function hasText(value: unknown, ...names: string[]): value is Record<string, unknown> {
  return isRecord(value) && names.every((name) => typeof value[name] === "string");
}

function broken(what: string): ApiError {
  return new ApiError(0, `The server's answer is no ${what} that this page can read.`, null);
}

function isSandbox(value: unknown): value is Sandbox {
  return isRecord(value) && hasText(value["metadata"], "id", "tenantId") && hasText(value["status"], "lifecycleState") && isRecord(value["spec"]) && isRecord(value["spec"]["sandbox"]);
}
function isService(value: unknown): value is Service {
  return isRecord(value) && hasText(value["metadata"], "name", "tenantId") && hasText(value["status"], "lifecycleState") && isRecord(value["spec"]) && hasText(value["spec"]["backend"], "kind");
}
function isWorkSession(value: unknown): value is WorkSession {
  return isRecord(value) && hasText(value["metadata"], "id", "tenantId") && hasText(value["status"], "lifecycleState", "expiresAt") && isRecord(value["spec"]) && isRecord(value["spec"]["target"]);
}

/** A state of a newer server is shown as unknown. */
function state(text: string): Lifecycle {
  return LIFECYCLES.find((known) => known === text) ?? "unknown";
}

function list<T>(value: readonly T[] | undefined | null): T[] {
  return value == null ? [] : [...value];
}

export function toSandbox(value: unknown): Sandbox {
  if (!isSandbox(value)) throw broken("sandbox");
  const { metadata, status } = value;
  return {
    ...value,
    metadata: { ...metadata, labels: isRecord(metadata.labels) ? metadata.labels : {} },
    status: { ...status, lifecycleState: state(status.lifecycleState), endpoints: list(status.endpoints), conditions: list(status.conditions) },
  };
}

export function toService(value: unknown): Service {
  if (!isService(value)) throw broken("service");
  const { metadata, status } = value;
  return {
    metadata: { ...metadata, labels: isRecord(metadata.labels) ? metadata.labels : {} },
    spec: value.spec,
    status: { ...status, lifecycleState: state(status.lifecycleState), endpoints: list(status.endpoints), conditions: list(status.conditions) },
  };
}

export function toSession(value: unknown): WorkSession {
  if (!isWorkSession(value)) throw broken("session");
  const { status } = value;
  return {
    ...value,
    spec: { ...value.spec, channels: list(value.spec.channels) },
    status: { ...status, lifecycleState: SESSION_STATES.find((known) => known === status.lifecycleState) ?? "closed", conditions: list(status.conditions) },
  };
}

/** The items of a collection, or of a bare array. */
function items(value: unknown): unknown[] {
  if (Array.isArray(value)) return value;
  if (isRecord(value) && Array.isArray(value["items"])) return value["items"];
  throw broken("list");
}

function named<T extends object>(is: (value: unknown) => value is T) {
  return (value: unknown): T[] => items(value).filter(is);
}
const isTenant = (value: unknown): value is Tenant => hasText(value, "id");
const isEntry = (value: unknown): value is FileEntry => hasText(value, "name", "path", "type");
const isCommand = (value: unknown): value is CommandInfo => hasText(value, "id");
const isSecret = (value: unknown): value is SecretInfo => hasText(value, "name");
const isVolume = (value: unknown): value is Volume => hasText(value, "name");
const isHost = (value: unknown): value is Host => hasText(value, "name");
const isKey = (value: unknown): value is ApiKey => hasText(value, "id", "name");
const isNewKey = (value: unknown): value is NewApiKey => hasText(value, "id", "name", "key");
const isLink = (value: unknown): value is PreviewLink => hasText(value, "url");
const isExec = (value: unknown): value is ExecAnswer => hasText(value, "stdout", "stderr");
const isTicket = (value: unknown): value is { ticket: string } => hasText(value, "ticket");
const isLine = (value: unknown): value is LogLine => hasText(value, "stream", "data");

function one<T>(what: string, is: (value: unknown) => value is T) {
  return (value: unknown): T => {
    if (!is(value)) throw broken(what);
    return value;
  };
}
const nothing = () => undefined;
const tidy = <T extends { grants: Grant[] }>(key: T): T => ({ ...key, grants: list(key.grants) });

const tenantPath = (tenant: string) => `/api/tenants/${encodeURIComponent(tenant)}`;
const sandboxPath = (tenant: string, id: string) => `${tenantPath(tenant)}/sandboxes/${encodeURIComponent(id)}`;
const servicePath = (tenant: string, name: string) => `${tenantPath(tenant)}/services/${encodeURIComponent(name)}`;
const sessionPath = (id: string) => `/api/sessions/${encodeURIComponent(id)}`;

const PAGE = 100;
const MOST = 1_000;

/** All pages, up to a bound: the portal filters on its own side. */
async function every<T>(path: string, read: (value: unknown) => T, query: NonNullable<Call["query"]> = {}): Promise<T[]> {
  const all: T[] = [];
  let pageToken: string | undefined;
  do {
    const page: { items: T[]; next: string | undefined } = await ask(
      path,
      (value) => ({
        items: items(value).map(read),
        next: isRecord(value) && isRecord(value["metadata"]) && typeof value["metadata"]["nextPageToken"] === "string" ? value["metadata"]["nextPageToken"] : undefined,
      }),
      { query: { ...query, limit: PAGE, pageToken } },
    );
    all.push(...page.items);
    pageToken = page.next;
  } while (pageToken !== undefined && all.length < MOST);
  return all;
}

/** Where files are: in a sandbox of a tenant, or behind an open session. */
export type Files = { tenant: string; sandbox: string } | { session: string };

export function filesPath(at: Files, route: string): string {
  return "session" in at ? `${sessionPath(at.session)}/channels/files/${route}` : `${sandboxPath(at.tenant, at.sandbox)}/files/${route}`;
}

export const work = {
  tenants: () =>
    ask("/api/tenants", (value) => {
      const found = isRecord(value) ? value["tenants"] : value;
      if (!Array.isArray(found)) throw broken("list of tenants");
      return found.flatMap((item: unknown) => (typeof item === "string" ? [item] : isTenant(item) ? [item.id] : []));
    }),
  tenant: (id: string) => ask(tenantPath(id), one("tenant", isTenant)),
  createTenant: (id: string) => ask("/api/tenants", one("tenant", isTenant), { method: "POST", body: { id } }),
  configureTenant: (id: string, change: { policy: Policy; sandboxes?: number }) => ask(tenantPath(id), one("tenant", isTenant), { method: "PATCH", body: change }),
  deleteTenant: (id: string) => ask(tenantPath(id), nothing, { method: "DELETE" }),

  sandboxes: (tenant: string) => every(`${tenantPath(tenant)}/sandboxes`, toSandbox),
  sandbox: (tenant: string, id: string) => ask(sandboxPath(tenant, id), toSandbox),
  createSandbox: (tenant: string, body: CreateSandbox, key: string) =>
    ask(`${tenantPath(tenant)}/sandboxes`, toSandbox, { method: "POST", body, headers: { "Idempotency-Key": key } }),
  stopSandbox: (tenant: string, id: string) => ask(`${sandboxPath(tenant, id)}/stop`, toSandbox, { method: "POST" }),
  deleteSandbox: (tenant: string, id: string, force: boolean) =>
    ask(sandboxPath(tenant, id), nothing, { method: "DELETE", query: { force: force ? true : undefined } }),
  extendSandbox: (tenant: string, id: string, more: { ttlMs?: number; idleTimeoutMs?: number }) =>
    ask(`${sandboxPath(tenant, id)}/extend`, toSandbox, { method: "POST", body: more }),
  exec: (tenant: string, id: string, body: { argv: string[]; timeoutMs?: number }) =>
    ask(`${sandboxPath(tenant, id)}/exec`, one("outcome", isExec), { method: "POST", body }),
  commands: (tenant: string, id: string) => ask(`${sandboxPath(tenant, id)}/commands`, named(isCommand)),
  preview: (tenant: string, id: string, port: number, ttlMs: number) =>
    ask(`${sandboxPath(tenant, id)}/preview-links`, one("link", isLink), { method: "POST", body: { port, ttlMs } }),

  services: (tenant: string) => every(`${tenantPath(tenant)}/services`, toService),
  service: (tenant: string, name: string) => ask(servicePath(tenant, name), toService),
  createService: (tenant: string, body: WriteService, key: string) =>
    ask(`${tenantPath(tenant)}/services`, toService, { method: "POST", body, headers: { "Idempotency-Key": key } }),
  updateService: (tenant: string, name: string, body: WriteService) => ask(servicePath(tenant, name), toService, { method: "PUT", body }),
  deleteService: (tenant: string, name: string, generation: number, force: boolean) =>
    ask(servicePath(tenant, name), nothing, { method: "DELETE", query: { ifMatchGeneration: generation, force: force ? true : undefined } }),
  serviceVerb: (tenant: string, name: string, verb: "start" | "stop" | "restart") =>
    ask(`${servicePath(tenant, name)}/${verb}`, toService, { method: "POST" }),

  sessions: (tenant: string) => every("/api/sessions", toSession, { tenantId: tenant }),
  session: (id: string) => ask(sessionPath(id), toSession),
  openSession: (body: { tenantId: string; target: SessionTarget; channels: Channel[]; requestedTtlMs?: number }) =>
    ask("/api/sessions", toSession, { method: "POST", body }),
  closeSession: (id: string, reason: string) => ask(`${sessionPath(id)}/close`, toSession, { method: "POST", body: { reason }, keepalive: true }),
  ticket: (id: string) => ask(`${sessionPath(id)}/tickets`, one("ticket", isTicket), { method: "POST" }),

  /** A whole directory, up to a bound. */
  files: async (at: Files, path: string): Promise<FileEntry[]> => {
    const all: FileEntry[] = [];
    let pageToken: string | undefined;
    do {
      const page: { entries: FileEntry[]; next: string | undefined } = await ask(
        filesPath(at, "list"),
        (value) => {
          if (!isRecord(value) || !Array.isArray(value["entries"])) throw broken("directory");
          return { entries: value["entries"].filter(isEntry), next: typeof value["nextPageToken"] === "string" ? value["nextPageToken"] : undefined };
        },
        { query: { path, pageToken } },
      );
      all.push(...page.entries);
      pageToken = page.next;
    } while (pageToken !== undefined && all.length < MOST);
    return all;
  },
  makeDirectory: (at: Files, path: string) => ask(filesPath(at, "mkdir"), nothing, { method: "POST", body: { path } }),
  moveFile: (at: Files, from: string, to: string) => ask(filesPath(at, "move"), nothing, { method: "POST", body: { from, to } }),
  deleteFile: (at: Files, path: string, recursive: boolean) =>
    ask(filesPath(at, "content"), nothing, { method: "DELETE", query: { path, recursive: recursive ? 1 : undefined } }),

  secrets: (tenant: string) => ask(`${tenantPath(tenant)}/secrets`, named(isSecret)),
  putSecret: (tenant: string, name: string, value: string) =>
    ask(`${tenantPath(tenant)}/secrets/${encodeURIComponent(name)}`, nothing, { method: "PUT", body: { value } }),
  deleteSecret: (tenant: string, name: string) => ask(`${tenantPath(tenant)}/secrets/${encodeURIComponent(name)}`, nothing, { method: "DELETE" }),
  volumes: (tenant: string) => ask(`${tenantPath(tenant)}/volumes`, named(isVolume)),
  apiKeys: (tenant: string) => ask(`${tenantPath(tenant)}/api-keys`, (value) => named(isKey)(value).map(tidy)),
  createApiKey: (tenant: string, body: { name: string; grants: Grant[]; expiresAt?: string }) =>
    ask(`${tenantPath(tenant)}/api-keys`, one("key", isNewKey), { method: "POST", body }),
  deleteApiKey: (tenant: string, id: string) => ask(`${tenantPath(tenant)}/api-keys/${encodeURIComponent(id)}`, nothing, { method: "DELETE" }),

  hosts: () => ask("/api/hosts", named(isHost)),
  forgetHost: (name: string) => ask(`/api/hosts/${encodeURIComponent(name)}`, nothing, { method: "DELETE" }),
};

/** Where the log of a sandbox or a service is. */
export type LogSource = { tenant: string; sandbox: string } | { tenant: string; service: string };

/** Reads a log line by line until it ends or `signal` says so. */
export async function readLog(
  source: LogSource,
  query: { tail: number; follow: boolean; since?: string },
  onLines: (lines: LogLine[]) => void,
  signal: AbortSignal,
): Promise<void> {
  const path = "service" in source ? servicePath(source.tenant, source.service) : sandboxPath(source.tenant, source.sandbox);
  const response = await open(`${path}/logs`, { query, signal, headers: { accept: "application/x-ndjson" } });
  if (response.body === null) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    const parts = (rest + (value ?? "")).split("\n");
    rest = done ? "" : (parts.pop() ?? "");
    const lines = parts.flatMap((text) => {
      if (text.trim() === "") return [];
      try {
        const line: unknown = JSON.parse(text);
        return isLine(line) ? [line] : [];
      } catch {
        return [];
      }
    });
    if (lines.length > 0) onLines(lines);
    if (done) return;
  }
}

/** Text as it was written; bytes that are no text are shown as far as they are. */
export function decoded(data: string, encoding: string | undefined): string {
  if (encoding !== "base64") return data;
  try {
    return new TextDecoder().decode(Uint8Array.from(atob(data), (char) => char.charCodeAt(0)));
  } catch {
    return data;
  }
}

export function contentUrl(at: Files, path: string): string {
  return address(filesPath(at, "content"), { path });
}
export function archiveUrl(at: Files, path: string): string {
  return address(filesPath(at, "archive"), { path });
}
