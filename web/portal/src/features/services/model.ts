import type { Policy, Service, ServiceBackend, ShownSpec } from "~/api/workloads";
import { splitCommand } from "~/features/sandboxes/argv";
import { imageName } from "~/features/sandboxes/name";

export const PROVIDERS = [
  { key: "loadBalancer", label: "Load balancer" },
  { key: "serviceDiscovery", label: "Service discovery" },
  { key: "browser", label: "Browser" },
  { key: "modelGateway", label: "Model gateway" },
] as const;

export function backendText(backend: ServiceBackend): string {
  switch (backend.kind) {
    case "sandbox": {
      const reference = backend.sandbox.root?.source?.reference;
      return reference === undefined ? "sandbox" : imageName(reference);
    }
    case "builtIn":
      return PROVIDERS.find((provider) => provider.key === backend.provider)?.label ?? backend.provider;
    case "external":
      return backend.endpoint.url;
    case "redacted":
      return "not shown";
  }
}

export function kindText(backend: ServiceBackend): string {
  switch (backend.kind) {
    case "sandbox":
      return "sandbox";
    case "builtIn":
      return "built in";
    case "external":
      return "external";
    case "redacted":
      return backend.backend ?? "not shown";
  }
}

export type Kind = "sandbox" | "external" | "builtIn";

export interface ServiceDraft {
  name: string;
  kind: Kind;
  image: string;
  command: string;
  ports: string;
  url: string;
  healthPath: string;
  provider: string;
}

export const EMPTY: ServiceDraft = { name: "", kind: "sandbox", image: "", command: "", ports: "", url: "", healthPath: "/", provider: "loadBalancer" };

const SERVICE_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

export function nameProblem(name: string): string | null {
  if (name === "") return "Enter a name.";
  return SERVICE_NAME.test(name) ? null : "Use letters, digits, dots, - and _, at most 63, beginning with a letter or a digit.";
}

/** `8080/http, 5432` as ports; null when it cannot be read. */
export function parsePorts(text: string): { guestPort: number; protocol: string }[] | null {
  const parts = text.split(/[\s,]+/).filter((part) => part !== "");
  const ports = parts.map((part) => {
    const found = /^(\d{1,5})(?:\/(tcp|http|https))?$/.exec(part);
    const port = Number(found?.[1]);
    return found !== null && port >= 1 && port <= 65_535 ? { guestPort: port, protocol: found[2] ?? "tcp" } : null;
  });
  const good = ports.filter((port) => port !== null);
  return good.length === ports.length ? good : null;
}

export function draftProblems(draft: ServiceDraft): Partial<Record<keyof ServiceDraft, string>> {
  const found: Partial<Record<keyof ServiceDraft, string>> = {};
  const name = nameProblem(draft.name);
  if (name !== null) found.name = name;
  if (draft.kind === "sandbox") {
    if (draft.image.trim() === "") found.image = "Enter an image.";
    if (splitCommand(draft.command) === null) found.command = "A quote is left open.";
    if (parsePorts(draft.ports) === null) found.ports = "Write ports as 8080/http, 5432/tcp.";
  }
  if (draft.kind === "external") {
    if (!/^https?:\/\/[^\s/@]+(\/\S*)?$/.test(draft.url)) found.url = "Enter an address that begins with http:// or https://.";
    if (!draft.healthPath.startsWith("/")) found.healthPath = "Begin with a slash.";
  }
  return found;
}

/** The backend that a draft describes. */
export function toBackend(draft: ServiceDraft): unknown {
  switch (draft.kind) {
    case "sandbox": {
      const argv = splitCommand(draft.command) ?? [];
      const ports = parsePorts(draft.ports) ?? [];
      return {
        kind: "sandbox",
        sandbox: {
          owner: { kind: "service" },
          backend: "container",
          root: { kind: "oci_image", source: { kind: "reference", reference: draft.image.trim() } },
          ...(argv.length === 0 ? {} : { process: { argv } }),
          ...(ports.length === 0 ? {} : { ports }),
        },
      };
    }
    case "external":
      return { kind: "external", endpoint: { url: draft.url }, auth: { kind: "none" }, health: { kind: "http", path: draft.healthPath } };
    case "builtIn":
      return { kind: "builtIn", provider: draft.provider };
  }
}

const SEALED = ["argv", "environment", "entrypoint", "command"];

/** A definition to write, from one that was read: what was sealed is left out, because nobody can say it again. */
function writable(spec: ShownSpec, policy: Policy): unknown {
  const { process, resources, ports, network, mounts, ...rest } = spec;
  const open = Object.entries(process ?? {}).filter(([name, value]) => !SEALED.includes(name) && !(Array.isArray(value) && value.length === 0));
  return {
    ...rest,
    tenantId: undefined,
    ...(open.length === 0 ? {} : { process: Object.fromEntries(open) }),
    // What is there by default must not be asked for where the policy forbids to ask.
    ...(policy.resources ? { resources } : {}),
    ...(policy.ports ? { ports } : {}),
    ...(policy.egress && (network?.egress?.allow ?? []).length > 0 ? { network } : {}),
    ...(policy.mounts && (mounts ?? []).length > 0 ? { mounts } : {}),
  };
}

/** Until the server has said what a tenant may set, nothing is hidden: it refuses by itself. */
export const OPEN: Policy = { resources: true, ports: true, egress: true, mounts: true };

/** What the editor begins with. */
export function toText(service: Service, policy: Policy = OPEN): string {
  const { backend } = service.spec;
  const shown = backend.kind === "sandbox" ? { kind: "sandbox", sandbox: writable(backend.sandbox, policy) } : backend;
  return JSON.stringify({ labels: service.metadata.labels, backend: shown }, null, 2);
}

/** Whether a definition has parts that its text leaves out. */
export function isSealed(service: Service): boolean {
  const { backend } = service.spec;
  if (backend.kind !== "sandbox") return false;
  const { process } = backend.sandbox;
  return (process?.argv?.valueCount ?? 0) > 0 || (process?.environment?.valueCount ?? 0) > 0;
}

export type Parsed = { ok: true; labels: Record<string, string> | null; backend: unknown } | { ok: false; problem: string };

/** Reads the editor's text; the server judges what is in it. */
export function parseText(text: string): Parsed {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { ok: false, problem: error instanceof Error ? `This is no JSON: ${error.message}` : "This is no JSON." };
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return { ok: false, problem: "Begin with { and name a backend." };
  const backend: unknown = Reflect.get(value, "backend");
  if (typeof backend !== "object" || backend === null) return { ok: false, problem: "There is no backend." };
  const labels: unknown = Reflect.get(value, "labels");
  if (labels === undefined) return { ok: true, labels: null, backend };
  if (typeof labels !== "object" || labels === null || Object.values(labels).some((each) => typeof each !== "string")) {
    return { ok: false, problem: "Labels are pairs of text." };
  }
  return { ok: true, labels: Object.fromEntries(Object.entries(labels).map(([key, each]) => [key, String(each)])), backend };
}

export interface DiffLine {
  kind: "same" | "mine" | "theirs";
  text: string;
}

/** What two texts have in common, line by line, and what only one of them has. */
export function diff(mine: string, theirs: string): DiffLine[] {
  const a = mine.split("\n");
  const b = theirs.split("\n");
  const longest = Array.from({ length: a.length + 1 }, () => new Array<number>(b.length + 1).fill(0));
  const at = (i: number, j: number) => longest[i]?.[j] ?? 0;
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      const row = longest[i];
      if (row) row[j] = a[i] === b[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const lines: DiffLine[] = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    const left = a[i];
    const right = b[j];
    if (left !== undefined && left === right) {
      lines.push({ kind: "same", text: left });
      i += 1;
      j += 1;
    } else if (left !== undefined && (right === undefined || at(i + 1, j) >= at(i, j + 1))) {
      lines.push({ kind: "mine", text: left });
      i += 1;
    } else if (right !== undefined) {
      lines.push({ kind: "theirs", text: right });
      j += 1;
    }
  }
  return lines;
}
