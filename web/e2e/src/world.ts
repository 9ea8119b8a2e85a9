import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { Box } from "./box";
import { Cluster } from "./cluster";
import { OUTPUT } from "./paths";
import { Program } from "./process";

export interface User {
  name: string;
  email: string;
  password: string;
}

export interface Options {
  /** Environment of the server. */
  settings?: Record<string, string>;
  /** Without one, the server has no cluster to talk to. */
  cluster?: boolean;
  /** Multiplies the time that the cluster takes. */
  latencyScale?: number;
}

// Nothing dials the machines, nothing slows requests down, and the pool is compared only when asked for.
const SETTINGS = {
  NIMBUS_READY_SSH_PROBE: "false",
  NIMBUS_READY_POLL: "50ms",
  NIMBUS_READY_TIMEOUT_SECONDS: "30s",
  NIMBUS_LOGIN_BURST: "0",
  RATE_LIMIT_ADDRESS_PER_SECOND: "0",
  RATE_LIMIT_USER_PER_SECOND: "0",
  RECONCILE_INTERVAL_SECONDS: "0",
  NIMBUS_MACHINE_RECONCILE_SECONDS: "0",
  NIMBUS_MACHINE_WATCH_SECONDS: "1",
};

/** An image that the engine has, with a shell and nothing to pull. */
export const IMAGE = "nimbus.test/busybox:1";

interface Sandbox {
  metadata: { id: string };
  status: { lifecycleState: string };
}

const POOL = { IP_POOL_START: "10.77.0.50", IP_POOL_END: "10.77.0.69", GATEWAY_IP: "10.77.0.1" };

/** A server, its cluster, and who is known to it. */
export class World {
  private readonly tokens = new Map<string, string>();
  private admins: Promise<User> | null = null;
  private program: Program<{ url: string }> | null = null;
  private port = "0";

  private constructor(
    private readonly folder: string,
    private readonly data: string,
    private readonly simulated: Cluster | null,
    private readonly settings: Record<string, string>,
  ) {}

  static async start(name: string, options: Options = {}): Promise<World> {
    const folder = path.join(OUTPUT, name);
    // What the last one said is kept for whoever wonders why a second try was needed.
    fs.rmSync(`${folder}.before`, { recursive: true, force: true });
    if (fs.existsSync(folder)) fs.renameSync(folder, `${folder}.before`);
    fs.mkdirSync(folder, { recursive: true });
    const cluster = options.cluster === false ? null : await Cluster.start(folder, options.latencyScale ?? 0.02);
    const data = fs.mkdtempSync(path.join(os.tmpdir(), "nimbus-e2e-"));
    const settings = { ...SETTINGS, ...(cluster === null ? {} : { ...POOL, ...cluster.settings }), ...options.settings };
    const world = new World(folder, data, cluster, settings);
    try {
      await world.boot();
    } catch (error) {
      await world.stop();
      throw error;
    }
    return world;
  }

  get url(): string {
    if (this.program === null) throw new Error("the server does not run");
    return this.program.facts.url.replace(/\/$/, "");
  }

  get cluster(): Cluster {
    if (this.simulated === null) throw new Error("this world has no cluster");
    return this.simulated;
  }

  /** Starts the server, under the same address as before. */
  async boot(more: Record<string, string> = {}): Promise<void> {
    const environment = { ...this.settings, ...more, NIMBUS_DATA_DIR: this.data, NIMBUS_HOST: "127.0.0.1", PORT: this.port };
    this.program = await Program.start<{ url: string }>("server", this.folder, ["start"], environment);
    this.port = new URL(this.url).port;
  }

  /** Takes the server away. */
  async halt(signal?: NodeJS.Signals): Promise<void> {
    await this.program?.stop(signal);
  }

  async stop(): Promise<void> {
    await this.halt();
    await this.simulated?.stop();
    this.sweep();
    fs.rmSync(this.data, { recursive: true, force: true });
  }

  /** Sandboxes outlive their server on purpose; those of this world end here. */
  private sweep(): void {
    const file = path.join(this.data, "sandboxes", "installation");
    if (!fs.existsSync(file)) return;
    const label = `label=io.nimbus.installation=${fs.readFileSync(file, "utf8").trim()}`;
    const ids = execFileSync("docker", ["ps", "--all", "--quiet", "--filter", label], { encoding: "utf8" }).split("\n").filter((id) => id !== "");
    if (ids.length > 0) execFileSync("docker", ["rm", "--force", "--volumes", ...ids], { stdio: "ignore" });
  }

  /** The administrator: whoever registers first. */
  admin(): Promise<User> {
    this.admins ??= this.register("Ada Lovelace", "ada@example.org");
    return this.admins;
  }

  /** Someone who registers later. */
  async member(name: string, email: string): Promise<User> {
    await this.admin();
    return this.register(name, email);
  }

  /** Asks the API on behalf of a user; answers the data of the envelope. */
  async ask<T>(user: User, method: string, route: string, body?: unknown): Promise<T> {
    const answer = await this.send(method, route, body, { authorization: `Bearer ${await this.token(user)}` });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${route} was answered with ${answer.status}: ${text}`);
    return (text === "" ? undefined : (JSON.parse(text) as { data: T }).data) as T;
  }

  /** Makes a machine and waits until it runs. */
  async machine(user: User, hostname: string, more: Record<string, unknown> = {}): Promise<{ id: string; ip: string; node: string }> {
    return this.ask(user, "POST", "/api/vms", { hostname, tier: "small", os_template: "ubuntu-24.04", generate_key: true, ...more });
  }

  /** The id of a user's personal tenant. */
  async tenant(user: User): Promise<string> {
    return (await this.ask<{ tenant_id: string }>(user, "GET", "/api/me")).tenant_id;
  }

  /** Asks a route that answers with the bare resource. */
  async work<T>(user: User, method: string, route: string, body?: unknown): Promise<T> {
    const answer = await this.send(method, route, body, { authorization: `Bearer ${await this.token(user)}` });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${route} was answered with ${answer.status}: ${text}`);
    return (text === "" ? undefined : JSON.parse(text)) as T;
  }

  /** Makes a sandbox that waits for what comes, and waits until it is ready. */
  async sandbox(user: User, name: string, more: Record<string, unknown> = {}): Promise<string> {
    const tenant = await this.tenant(user);
    const spec = {
      owner: { kind: "standalone", displayName: name },
      backend: "container",
      root: { kind: "oci_image", source: { kind: "reference", reference: IMAGE } },
      process: { argv: ["sh", "-c", "echo here I am; exec sleep 3600"] },
      ttlMs: 600_000,
      ...more,
    };
    const made = await this.work<Sandbox>(user, "POST", `/api/tenants/${tenant}/sandboxes`, { profile: "worker", spec });
    const { id } = made.metadata;
    const until = Date.now() + 60_000;
    for (let seen = made; seen.status.lifecycleState !== "ready"; ) {
      if (Date.now() > until || ["failed", "stopped"].includes(seen.status.lifecycleState)) throw new Error(`${name} did not get ready: ${JSON.stringify(seen.status)}`);
      await pause(100);
      seen = await this.work<Sandbox>(user, "GET", `/api/tenants/${tenant}/sandboxes/${id}`);
    }
    return id;
  }

  /** Pairs a GPU box, which works from then on. */
  async box(name: string, options: { model?: boolean } = {}): Promise<Box> {
    const { token } = await this.ask<{ token: string }>(await this.admin(), "POST", "/api/settings/gpu/pairing");
    return (await Box.register(this.url, token, name, options)).work();
  }

  private async register(name: string, email: string): Promise<User> {
    const user = { name, email, password: `correct horse of ${name}` };
    const answer = await this.send("POST", "/api/auth/register", user);
    if (!answer.ok) throw new Error(`${email} was not registered: ${await answer.text()}`);
    return user;
  }

  private async token(user: User): Promise<string> {
    const known = this.tokens.get(user.email);
    if (known !== undefined) return known;
    const login = await this.send("POST", "/api/auth/login", { email: user.email, password: user.password });
    if (!login.ok) throw new Error(`${user.email} could not sign in: ${await login.text()}`);
    const cookie = login.headers.getSetCookie().map((item) => item.split(";")[0]).join("; ");
    const admin = user === (await this.admin());
    const scopes = ["machines:read", "machines:write", "workloads:read", "workloads:write", "gpu", ...(admin ? ["admin"] : [])];
    const made = await this.send("POST", "/api/tokens", { name: "browser tests", scopes }, { cookie, origin: this.url });
    const text = await made.text();
    if (!made.ok) throw new Error(`no token for ${user.email}: ${text}`);
    const { token } = (JSON.parse(text) as { data: { token: string } }).data;
    this.tokens.set(user.email, token);
    return token;
  }

  private send(method: string, route: string, body?: unknown, headers: Record<string, string> = {}): Promise<Response> {
    return fetch(`${this.url}${route}`, {
      method,
      headers: { ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  }
}
