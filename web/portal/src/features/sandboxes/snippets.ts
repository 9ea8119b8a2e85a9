import type { CreateSandbox } from "~/api/workloads";
import { quoteWord } from "./argv";

const MINUTE = 60_000;

function span(ms: number): string {
  return ms % (60 * MINUTE) === 0 ? `${ms / (60 * MINUTE)}h` : ms % MINUTE === 0 ? `${ms / MINUTE}m` : `${ms / 1000}s`;
}

function size(bytes: number): string {
  const mib = bytes / 1024 ** 2;
  return mib % 1024 === 0 ? `${mib / 1024}GiB` : `${mib}MiB`;
}

/** A value as TypeScript writes it: names bare where they may be. */
function literal(value: unknown, indent: string): string {
  if (Array.isArray(value)) {
    const items = value.map((item) => literal(item, `${indent}  `));
    const line = `[${items.join(", ")}]`;
    return line.length + indent.length <= 76 ? line : `[\n${items.map((item) => `${indent}  ${item},`).join("\n")}\n${indent}]`;
  }
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value).filter(([, each]) => each !== undefined);
    if (entries.length === 0) return "{}";
    const name = (key: string) => (/^[A-Za-z_$][\w$]*$/.test(key) ? key : JSON.stringify(key));
    const line = `{ ${entries.map(([key, each]) => `${name(key)}: ${literal(each, indent)}`).join(", ")} }`;
    if (line.length + indent.length <= 64 && !line.includes("\n")) return line;
    return `{\n${entries.map(([key, each]) => `${indent}  ${name(key)}: ${literal(each, `${indent}  `)},`).join("\n")}\n${indent}}`;
  }
  return JSON.stringify(value);
}

export function sdkSnippet(request: CreateSandbox, origin: string, tenant: string): string {
  return `import { Nimbus } from "@nimbus/nimbus";

const nimbus = new Nimbus({
  endpoint: "${origin}",
  tenantId: "${tenant}",
  apiKey: process.env.NIMBUS_API_KEY,
});

const sandbox = await nimbus.sandboxes.create(${literal(request, "")});
console.log(sandbox.metadata.id);`;
}

export function cliSnippet({ profile, spec, labels }: CreateSandbox, tenant: string): string {
  const parts = ["nimbus sandbox create", quoteWord(spec.root.source.reference)];
  const flag = (name: string, value: string) => parts.push(`--${name} ${quoteWord(value)}`);
  flag("tenant", tenant);
  if (spec.owner.kind === "standalone" && spec.owner.displayName !== undefined) flag("name", spec.owner.displayName);
  if (profile !== "worker") flag("profile", profile);
  if (spec.ttlMs !== undefined) flag("ttl", span(spec.ttlMs));
  if (spec.idleTimeoutMs !== undefined) flag("idle-timeout", span(spec.idleTimeoutMs));
  if (spec.resources?.vcpus !== undefined) flag("cpus", String(spec.resources.vcpus));
  if (spec.resources?.memoryBytes !== undefined) flag("memory", size(spec.resources.memoryBytes));
  if (spec.resources?.diskBytes !== undefined) flag("disk", size(spec.resources.diskBytes));
  if (spec.resources?.pids !== undefined) flag("pids", String(spec.resources.pids));
  for (const port of spec.ports ?? []) flag("port", `${port.guestPort}/${port.protocol}`);
  for (const each of spec.process?.env ?? []) flag("env", each);
  for (const each of spec.process?.secrets ?? []) flag("secret", `${each.secret}=${each.variable}`);
  for (const rule of spec.network?.egress.allow ?? []) flag("allow", `${rule.protocol}://${rule.host}:${rule.port}`);
  for (const mount of spec.mounts ?? []) if (mount.kind === "volume") flag("volume", `${mount.name}:${mount.target}`);
  if (spec.process?.cwd !== undefined) flag("workdir", spec.process.cwd);
  if (spec.process?.user !== undefined) flag("user", spec.process.user);
  if (spec.process?.terminal === true) parts.push("--tty");
  if (spec.readOnlyRoot === true) parts.push("--read-only");
  for (const [name, value] of Object.entries(labels ?? {})) flag("label", `${name}=${value}`);
  const argv = spec.process?.argv;
  if (argv !== undefined) parts.push(`-- ${argv.map(quoteWord).join(" ")}`);
  return wrap(parts);
}

/** Long commands go on in the next line. */
function wrap(parts: readonly string[]): string {
  const lines: string[] = [];
  let line = "";
  for (const part of parts) {
    if (line !== "" && line.length + part.length > 68) {
      lines.push(line);
      line = `  ${part}`;
    } else line = line === "" ? part : `${line} ${part}`;
  }
  return [...lines, line].join(" \\\n");
}

export function curlSnippet(request: CreateSandbox, origin: string, tenant: string): string {
  const body = JSON.stringify(request, null, 2).replaceAll("'", `'\\''`);
  return `curl -sS ${origin}/api/tenants/${tenant}/sandboxes \\
  -H "X-Nimbus-Api-Key: $NIMBUS_API_KEY" \\
  -H 'content-type: application/json' \\
  -d '${body}'`;
}

/** The ways into a sandbox that is there. */
export function snippetsFor(id: string, origin: string, tenant: string): { sdk: string; cli: string; curl: string } {
  return {
    sdk: `import { Nimbus } from "@nimbus/nimbus";

const nimbus = new Nimbus({
  endpoint: "${origin}",
  tenantId: "${tenant}",
  apiKey: process.env.NIMBUS_API_KEY,
});

const done = await nimbus.sandboxes.exec({
  id: "${id}",
  argv: ["uname", "-a"],
});
console.log(done.stdout);`,
    cli: `nimbus sandbox exec ${id} --tenant ${tenant} -- uname -a
nimbus sandbox shell ${id} --tenant ${tenant}
nimbus sandbox logs ${id} --tenant ${tenant} --follow
nimbus sandbox stop ${id} --tenant ${tenant}`,
    curl: `curl -sS ${origin}/api/tenants/${tenant}/sandboxes/${id}/exec \\
  -H "X-Nimbus-Api-Key: $NIMBUS_API_KEY" \\
  -H 'content-type: application/json' \\
  -d '{"argv":["uname","-a"]}'`,
  };
}
