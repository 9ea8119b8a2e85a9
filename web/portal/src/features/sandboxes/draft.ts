import type { CreateSandbox, EgressRule, Policy, Port, SandboxSpec } from "~/api/workloads";
import { splitCommand } from "./argv";

export type Run = "idle" | "image" | "command";
export type Protocol = "tcp" | "http" | "https";

/** What the form holds: text as it was typed, so that nothing typed is lost. */
export interface SandboxDraft {
  name: string;
  image: string;
  run: Run;
  command: string;
  profile: "worker" | "desktop";
  ttl: string;
  idle: string;
  vcpus: string;
  memoryMib: string;
  diskGib: string;
  pids: string;
  cwd: string;
  user: string;
  terminal: boolean;
  readOnlyRoot: boolean;
  ports: { port: string; protocol: Protocol }[];
  env: { name: string; value: string }[];
  secrets: { secret: string; variable: string }[];
  egress: { protocol: Protocol; host: string; port: string }[];
  volumes: { name: string; target: string }[];
  labels: { name: string; value: string }[];
}

export const EMPTY: SandboxDraft = {
  name: "",
  image: "",
  run: "idle",
  command: "",
  profile: "worker",
  ttl: "3600000",
  idle: "none",
  vcpus: "",
  memoryMib: "",
  diskGib: "",
  pids: "",
  cwd: "",
  user: "",
  terminal: false,
  readOnlyRoot: false,
  ports: [],
  env: [],
  secrets: [],
  egress: [],
  volumes: [],
  labels: [],
};

export const LIFETIMES = [
  { key: "900000", label: "15 minutes", short: "15m" },
  { key: "3600000", label: "1 hour", short: "1h" },
  { key: "28800000", label: "8 hours", short: "8h" },
  { key: "86400000", label: "24 hours", short: "24h" },
  { key: "none", label: "Until stopped", short: "" },
] as const;

export const IDLE_TIMES = [
  { key: "none", label: "Stays", short: "" },
  { key: "600000", label: "Stops after 10 minutes", short: "10m" },
  { key: "1800000", label: "Stops after 30 minutes", short: "30m" },
  { key: "7200000", label: "Stops after 2 hours", short: "2h" },
] as const;

const STORE = "nimbus-sandbox-draft";

/** What was chosen last time. Values of variables are launch input that nobody shows again: they are not kept. */
export function loadDraft(): SandboxDraft {
  try {
    const text = sessionStorage.getItem(STORE);
    const value: unknown = text === null ? null : JSON.parse(text);
    if (typeof value !== "object" || value === null) return EMPTY;
    const text_ = (name: string, otherwise: string): string => {
      const found: unknown = Reflect.get(value, name);
      return typeof found === "string" ? found : otherwise;
    };
    const run = text_("run", EMPTY.run);
    return {
      ...EMPTY,
      image: text_("image", ""),
      command: text_("command", ""),
      run: run === "image" || run === "command" ? run : "idle",
      profile: text_("profile", "worker") === "desktop" ? "desktop" : "worker",
      ttl: text_("ttl", EMPTY.ttl),
      idle: text_("idle", EMPTY.idle),
    };
  } catch {
    return EMPTY;
  }
}

export function saveDraft({ image, command, run, profile, ttl, idle }: SandboxDraft): void {
  try {
    sessionStorage.setItem(STORE, JSON.stringify({ image, command, run, profile, ttl, idle }));
  } catch {
    // Without storage the draft lasts as long as the page.
  }
}

const IMAGE = /^[a-z0-9]+((?:[._-]+|\/|:|@)[a-z0-9]+)*$/i;
const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]*$/;
const HOST = /^[A-Za-z0-9.:[\]-]+$/;

export type Problems = Partial<Record<"name" | "image" | "command" | "vcpus" | "memoryMib" | "diskGib" | "pids" | "ports" | "env" | "secrets" | "egress" | "volumes" | "labels" | "cwd", string>>;

function amount(text: string, least: number, most: number): boolean {
  if (text === "") return true;
  const value = Number(text);
  return Number.isFinite(value) && value >= least && value <= most;
}

function isPort(text: string): boolean {
  const port = Number(text);
  return Number.isInteger(port) && port >= 1 && port <= 65_535;
}

/** What is wrong with it, by field; the server has the last word. */
export function problems(draft: SandboxDraft): Problems {
  const found: Problems = {};
  if (draft.name.length > 128) found.name = "At most 128 characters.";
  if (draft.image.trim() === "") found.image = "Enter an image.";
  else if (!IMAGE.test(draft.image.trim())) found.image = "Write it as registry/name:tag, or only name:tag.";
  if (draft.run === "command") {
    const words = splitCommand(draft.command);
    if (words === null) found.command = "A quote is left open.";
    else if (words.length === 0) found.command = "Enter a command.";
  }
  if (!amount(draft.vcpus, 0.05, 256)) found.vcpus = "A number of CPUs, such as 0.5 or 2.";
  if (!amount(draft.memoryMib, 1, 4_194_304)) found.memoryMib = "A number of MiB, 1 or more.";
  if (!amount(draft.diskGib, 0.001, 65_536)) found.diskGib = "A number of GiB.";
  if (!amount(draft.pids, 1, 4_194_304)) found.pids = "A whole number, 1 or more.";
  if (draft.cwd !== "" && !draft.cwd.startsWith("/")) found.cwd = "Begin with a slash.";
  if (draft.ports.some((port) => !isPort(port.port))) found.ports = "A port is a number from 1 to 65535.";
  else if (new Set(draft.ports.map((port) => port.port)).size < draft.ports.length) found.ports = "A port is named twice.";
  if (draft.env.some((each) => !VARIABLE.test(each.name))) found.env = "A name has letters, digits and _, and begins with no digit.";
  else if (draft.env.some((each) => each.name.startsWith("NIMBUS_SANDBOX_"))) found.env = "Names that begin with NIMBUS_SANDBOX_ are taken.";
  if (draft.secrets.some((each) => each.secret === "" || !VARIABLE.test(each.variable))) found.secrets = "Choose a secret and the variable that shall hold it.";
  if (draft.egress.some((each) => !HOST.test(each.host) || !isPort(each.port))) found.egress = "Enter one host name, without a scheme, and a port.";
  if (draft.volumes.some((each) => each.name === "" || !each.target.startsWith("/"))) found.volumes = "Enter a name and an absolute path.";
  if (draft.labels.some((each) => !/^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$/.test(each.name))) found.labels = "A label begins and ends with a letter or a digit.";
  return found;
}

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;

function resources(draft: SandboxDraft): SandboxSpec["resources"] {
  const found = {
    ...(draft.vcpus === "" ? {} : { vcpus: Number(draft.vcpus) }),
    ...(draft.memoryMib === "" ? {} : { memoryBytes: Math.round(Number(draft.memoryMib) * MIB) }),
    ...(draft.diskGib === "" ? {} : { diskBytes: Math.round(Number(draft.diskGib) * GIB) }),
    ...(draft.pids === "" ? {} : { pids: Number(draft.pids) }),
  };
  return Object.keys(found).length === 0 ? undefined : found;
}

/** Nothing to do but wait for what comes in by a shell. */
const IDLE_ARGV = ["sleep", "infinity"];

function argv(draft: SandboxDraft): string[] | undefined {
  switch (draft.run) {
    case "idle":
      return IDLE_ARGV;
    case "image":
      return undefined;
    case "command":
      return splitCommand(draft.command) ?? undefined;
  }
}

/** The request for what the form holds; parts that the tenant's policy forbids are left out. */
export function toRequest(draft: SandboxDraft, policy: Policy): CreateSandbox {
  const words = argv(draft);
  const process = {
    ...(words === undefined ? {} : { argv: words }),
    ...(draft.env.length === 0 ? {} : { env: draft.env.map((each) => `${each.name}=${each.value}`) }),
    ...(draft.secrets.length === 0 ? {} : { secrets: draft.secrets.map((each) => ({ ...each })) }),
    ...(draft.cwd === "" ? {} : { cwd: draft.cwd }),
    ...(draft.user === "" ? {} : { user: draft.user }),
    ...(draft.terminal ? { terminal: true } : {}),
  };
  const limits = policy.resources ? resources(draft) : undefined;
  const ports: Port[] = policy.ports ? draft.ports.map((each) => ({ guestPort: Number(each.port), protocol: each.protocol })) : [];
  const allow: EgressRule[] = policy.egress
    ? draft.egress.map((each) => ({ name: `${each.host}-${each.port}`, protocol: each.protocol, host: each.host, port: Number(each.port) }))
    : [];
  const volumes = policy.mounts ? draft.volumes : [];
  const spec: SandboxSpec = {
    owner: { kind: "standalone", ...(draft.name.trim() === "" ? {} : { displayName: draft.name.trim() }) },
    backend: "container",
    root: { kind: "oci_image", source: { kind: "reference", reference: draft.image.trim() } },
    ...(Object.keys(process).length === 0 ? {} : { process }),
    ...(limits === undefined ? {} : { resources: limits }),
    ...(ports.length === 0 ? {} : { ports }),
    ...(allow.length === 0 ? {} : { network: { egress: { allow } } }),
    ...(volumes.length === 0 ? {} : { mounts: volumes.map((each) => ({ kind: "volume" as const, name: each.name, target: each.target })) }),
    ...(draft.ttl === "none" ? {} : { ttlMs: Number(draft.ttl) }),
    ...(draft.idle === "none" ? {} : { idleTimeoutMs: Number(draft.idle) }),
    ...(draft.readOnlyRoot ? { readOnlyRoot: true } : {}),
  };
  return {
    profile: draft.profile,
    spec,
    ...(draft.labels.length === 0 ? {} : { labels: Object.fromEntries(draft.labels.map((each) => [each.name, each.value])) }),
  };
}
