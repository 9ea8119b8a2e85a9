// A small Nimbus server for tests, over real HTTP: definitions and records in memory, commands as child processes,
// files in a temporary folder. It isolates nothing. `node server.mjs` prints {"url","token"} and runs until stdin ends.
//
// `faults` make it misbehave: see `breakNext` and `cutAfter`.
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { WebSocketServer } from "ws";

const CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz";
const ulid = () => Array.from(randomBytes(26), (byte) => CROCKFORD[byte % 32]).join("");
const now = () => new Date().toISOString();

class Failure extends Error {
  constructor(status, code, message, detail = null, retryable = false) {
    super(message);
    Object.assign(this, { status, code, detail, retryable });
  }
}

/** Output of one command: numbered bytes of both streams, kept whole. */
class Command {
  records = [];
  length = 0;
  exit = null;
  started = 0;
  #input = 0;
  #watchers = new Set();

  constructor(id, spec, root) {
    this.id = id;
    this.spec = JSON.stringify([spec.argv, spec.cwd ?? null, spec.env ?? {}]);
    this.argv = spec.argv;
    this.child = spawn(spec.argv[0], spec.argv.slice(1), {
      cwd: path.join(root, spec.cwd ?? ""),
      env: { PATH: process.env.PATH, ...spec.env },
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.child.stdin.on("error", () => undefined);
    for (const stream of ["stdout", "stderr"]) this.child[stream].on("data", (data) => this.#add(stream, data));
    this.child.on("error", (error) => this.#end({ code: 127, message: error.message }));
    this.child.on("close", (code, signal) => this.#end({ code, ...(signal === null ? {} : { signal: signal.slice(3) }), ...(this.timedOut ? { timedOut: true } : {}) }));
    if (spec.stdin !== undefined) this.child.stdin.end(spec.stdin);
    else if (!spec.stdinOpen && !spec.terminal) this.child.stdin.end();
    if (spec.timeoutMs) this.timer = setTimeout(() => { this.timedOut = true; this.child.kill("SIGKILL"); }, spec.timeoutMs);
  }

  input(offset, bytes, eof) {
    const from = offset === undefined ? 0 : this.#input - offset;
    if (from < 0) throw new Failure(409, "op.conflict", "input is missing before this");
    const fresh = bytes.subarray(Math.min(from, bytes.length));
    this.#input += fresh.length;
    if (fresh.length > 0) this.child.stdin.write(fresh);
    if (eof) this.child.stdin.end();
  }

  #add(stream, data) {
    this.records.push({ stream, offset: this.length, data });
    this.length += data.length;
    this.#wake();
  }

  #end(exit) {
    clearTimeout(this.timer);
    this.exit ??= exit;
    this.#wake();
  }

  #wake() {
    for (const wake of this.#watchers) wake();
  }

  /** Records from an offset on, then the exit; ends when `gone()` holds. */
  async *follow(from, gone) {
    let index = 0;
    for (;;) {
      while (index < this.records.length) {
        const { stream, offset, data } = this.records[index];
        index += 1;
        if (offset + data.length > from) {
          const skip = Math.max(0, from - offset);
          yield { stream, offset: offset + skip, data: data.subarray(skip) };
        }
      }
      if (this.exit !== null || gone()) return;
      await new Promise((resolve) => {
        const wake = () => { this.#watchers.delete(wake); resolve(); };
        this.#watchers.add(wake);
        this.wakeAll = () => this.#wake();
      });
    }
  }
}

/** An answer that nobody gets. */
const NOWHERE = {
  setHeader() {},
  writeHead() {
    return this;
  },
  write(_text, done) {
    done?.();
  },
  end() {},
  on() {},
};

/** Data of a frame: text where it is text. */
function carried(bytes) {
  try {
    return { data: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes) };
  } catch {
    return { data: bytes.toString("base64"), encoding: "base64" };
  }
}

export class FakeNimbus {
  token = `nimbus_at_${randomBytes(32).toString("base64url")}`;
  apiKey = `nimbus_ak_${randomBytes(16).toString("hex")}`;
  /** Answers WebSockets as a server does that cannot open the channel. */
  refuseUpgrades = false;
  /** Every request: method, path with query, headers. */
  requests = [];
  #tenants = new Map();
  #sessions = new Map();
  #tickets = new Map();
  #keys = new Map();
  #faults = [];
  #cuts = [];
  #version = 0;
  #sockets = new WebSocketServer({ noServer: true, handleProtocols: () => "nimbus.session.v1" });

  static async start() {
    const fake = new FakeNimbus();
    fake.folder = fs.mkdtempSync(path.join(os.tmpdir(), "nimbus-fake-"));
    fake.server = http.createServer((request, response) => void fake.#answer(request, response));
    fake.server.on("upgrade", (request, socket, head) => fake.#upgrade(request, socket, head));
    await new Promise((resolve) => fake.server.listen(0, "127.0.0.1", resolve));
    fake.url = `http://127.0.0.1:${fake.server.address().port}`;
    return fake;
  }

  async stop() {
    for (const tenant of this.#tenants.values()) {
      for (const sandbox of tenant.sandboxes.values()) this.#kill(sandbox);
    }
    this.#sockets.close();
    for (const client of this.#sockets.clients) client.terminate();
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
    fs.rmSync(this.folder, { recursive: true, force: true });
  }

  /** The next `times` requests whose `METHOD /path` matches get this status, or lose their connection without one. */
  breakNext(match, { status, code = "service.unavailable", retryable = true, headers = {}, times = 1, after = false, text } = {}) {
    this.#faults.push({ match, status, code, retryable, headers, left: times, after, text });
  }

  /** Each number cuts one stream of command output after so many payload bytes, in the middle of a record if need be. */
  cutAfter(...bytes) {
    this.#cuts.push(...bytes);
  }

  async #answer(request, response) {
    const requestId = `req-${randomBytes(6).toString("hex")}`;
    response.setHeader("x-request-id", requestId);
    const url = new URL(request.url, this.url);
    const chunks = [];
    try {
      for await (const chunk of request) chunks.push(chunk);
    } catch {
      return;
    }
    const body = Buffer.concat(chunks);
    this.requests.push({ method: request.method, path: request.url, headers: request.headers, body: body.toString() });
    const fault = this.#faults.find((one) => one.left > 0 && one.match.test(`${request.method} ${url.pathname}`));
    try {
      if (fault !== undefined) {
        fault.left -= 1;
        // The work is done, only the answer is lost.
        if (fault.after) await this.#route(request, url, body, NOWHERE).catch(() => undefined);
        if (fault.status === undefined) return void request.socket.destroy();
        for (const [name, value] of Object.entries(fault.headers)) response.setHeader(name, value);
        if (fault.text !== undefined) return void response.writeHead(fault.status).end(fault.text);
        throw new Failure(fault.status, fault.code, "broken on purpose", null, fault.retryable);
      }
      if (!this.#knows(request.headers) && url.pathname !== "/health") throw new Failure(401, "auth.unauthorized", "no valid credential");
      await this.#route(request, url, body, response);
    } catch (error) {
      if (response.headersSent) return void request.socket.destroy();
      const known = error instanceof Failure ? error : new Failure(500, "service.internal", String(error.stack));
      response.writeHead(known.status, { "content-type": "application/json" }).end(
        JSON.stringify({
          error: {
            code: known.code,
            message: known.message,
            requestId,
            timestamp: now(),
            severity: known.status >= 500 ? "error" : "warning",
            retryable: known.retryable,
            detail: known.detail,
            remediation: { action: known.status === 412 ? "refresh_resource" : "fix_request", message: "Look again." },
          },
        }),
      );
    }
  }

  #knows(headers) {
    return headers.authorization === `Bearer ${this.token}` || headers["x-nimbus-api-key"] === this.apiKey;
  }

  async #route(request, url, body, response) {
    const query = url.searchParams;
    const json = () => (body.length === 0 ? {} : JSON.parse(body.toString()));
    const say = (status, value) => {
      const key = request.headers["idempotency-key"];
      if (key !== undefined && status < 300) this.#keys.set(key, [status, value]);
      response.writeHead(status, { "content-type": "application/json" });
      response.end(value === undefined ? "" : JSON.stringify(value));
    };
    const before = this.#keys.get(request.headers["idempotency-key"]);
    if (before !== undefined) return say(...before);
    const parts = url.pathname.split("/").slice(1).map(decodeURIComponent);
    const is = (method, pattern) => {
      const names = pattern.split("/").slice(1);
      return request.method === method && names.length === parts.length && names.every((name, at) => name === "*" || name === parts[at]);
    };
    if (is("GET", "/health")) return say(200, { status: "ok" });
    if (is("POST", "/api/tenants")) {
      const { id } = json();
      if (this.#tenants.has(id)) throw new Failure(409, "op.already_exists", `tenant ${id} exists`);
      this.#tenants.set(id, { id, createdAt: now(), services: new Map(), sandboxes: new Map(), secrets: new Map(), volumes: new Map() });
      return say(201, { id });
    }
    if (is("GET", "/api/tenants")) return say(200, { tenants: [...this.#tenants.keys()].sort() });
    if (parts[1] === "sessions") return this.#sessionRoute(is, parts, query, json, body, request, response, say);
    const tenant = this.#tenants.get(parts[2]);
    if (parts[1] !== "tenants") throw new Failure(404, "service.route_not_found", `no route ${url.pathname}`);
    if (tenant === undefined) throw new Failure(404, "session.tenant_not_found", `no tenant ${parts[2]}`, { tenantId: parts[2] });
    if (is("GET", "/api/tenants/*")) return say(200, { id: tenant.id, createdAt: tenant.createdAt });
    if (is("DELETE", "/api/tenants/*")) {
      for (const sandbox of tenant.sandboxes.values()) this.#kill(sandbox);
      this.#tenants.delete(tenant.id);
      return say(204);
    }
    if (parts[3] === "services") return this.#serviceRoute(is, tenant, parts, query, json, say, response);
    if (parts[3] === "sandboxes") return this.#sandboxRoute(is, tenant, parts, query, json, body, request, response, say);
    if (parts[3] === "secrets" || parts[3] === "volumes") return this.#named(tenant[parts[3]], request.method, parts[4], json, say);
    throw new Failure(404, "service.route_not_found", `no route ${url.pathname}`);
  }

  #named(all, method, name, json, say) {
    if (name === undefined) return say(200, { items: [...all.values()] });
    if (method === "PUT") {
      const { value } = json();
      const kept = value === undefined ? { name, host: null, createdAt: now(), usedBy: [] } : { name, version: (all.get(name)?.version ?? 0) + 1, createdAt: now(), updatedAt: now() };
      all.set(name, kept);
      return say(200, kept);
    }
    if (!all.delete(name)) throw new Failure(404, "op.not_found", `no ${name}`);
    return say(204);
  }

  // ── services

  #serviceRoute(is, tenant, parts, query, json, say, response) {
    const root = "/api/tenants/*/services";
    const name = parts[4];
    const service = tenant.services.get(name);
    const need = () => {
      if (service === undefined) throw new Failure(404, "op.not_found", `no service ${name}`, { kind: "service", tenantId: tenant.id, name });
      return service;
    };
    const matches = (wanted) => {
      if (wanted !== need().generation) {
        throw new Failure(412, "op.precondition_failed", `service ${name} is at generation ${service.generation}`, { expectedGeneration: wanted, currentGeneration: service.generation });
      }
    };
    if (is("POST", root)) {
      const { metadata, spec } = json();
      if (tenant.services.has(metadata.name)) throw new Failure(409, "op.already_exists", `service ${metadata.name} exists`);
      const made = { name: metadata.name, generation: 1, labels: metadata.labels ?? {}, backend: spec.backend, createdAt: now(), updatedAt: now(), sandbox: null };
      tenant.services.set(made.name, made);
      return say(201, this.#serviceView(tenant, made));
    }
    if (is("GET", root)) return say(200, this.#page(tenant.id, query, [...tenant.services.values()], (one) => one.name, (one) => this.#serviceView(tenant, one)));
    if (is("GET", `${root}/*`)) return say(200, this.#serviceView(tenant, need()));
    if (is("PUT", `${root}/*`)) {
      const { metadata, spec } = json();
      matches(metadata.generation);
      if (service.sandbox !== null) this.#kill(service.sandbox);
      Object.assign(service, { generation: service.generation + 1, backend: spec.backend, labels: metadata.labels ?? service.labels, sandbox: null, updatedAt: now() });
      return say(200, this.#serviceView(tenant, service));
    }
    if (is("DELETE", `${root}/*`)) {
      matches(Number(query.get("ifMatchGeneration")));
      if (service.sandbox?.state === "ready" && query.get("force") !== "true") throw new Failure(409, "op.conflict", `service ${name} runs`, { reason: "running" });
      if (service.sandbox !== null) this.#kill(service.sandbox);
      tenant.services.delete(name);
      return say(204);
    }
    if (is("GET", `${root}/*/logs`)) return this.#logs(need().sandbox, query, response);
    const verb = parts[5];
    need();
    if (service.backend.kind !== "sandbox") throw new Failure(409, "op.conflict", `service ${name} is not run`, { reason: "backend_not_launchable" });
    if (verb !== "start" && service.sandbox !== null) this.#kill(service.sandbox);
    if (verb === "restart" || (verb === "start" && !["starting", "ready"].includes(service.sandbox?.state))) {
      service.sandbox = this.#launch(tenant, name, "worker", service.backend.sandbox, {});
    }
    return say(200, this.#serviceView(tenant, service));
  }

  #serviceView(tenant, service) {
    const sandbox = service.sandbox;
    const declared = service.backend.kind !== "sandbox";
    const state = declared ? "declared" : (sandbox?.state ?? "stopped");
    const live = declared ? { readiness: "unknown", health: "unknown" } : vitals(state);
    return {
      metadata: { tenantId: tenant.id, name: service.name, uid: "01J", generation: service.generation, resourceVersion: String((this.#version += 1)), createdAt: service.createdAt, updatedAt: service.updatedAt, labels: service.labels, source: "dynamic" },
      spec: { backend: declared ? service.backend : { kind: "sandbox", sandbox: redact(service.backend.sandbox) } },
      status: { backend: service.backend.kind, lifecycleState: state, ...live, restartCount: 0, endpoints: [], conditions: [condition(declared ? "DeclaredOnly" : "BackendState", state)] },
      name: service.name,
      tenantId: tenant.id,
      state,
      lifecycleState: state,
      ...live,
      ...(sandbox === null ? {} : { sandboxId: sandbox.id, backend: "container" }),
      endpoints: [],
    };
  }

  // ── sandboxes

  async #sandboxRoute(is, tenant, parts, query, json, body, request, response, say) {
    const root = "/api/tenants/*/sandboxes";
    if (is("POST", root)) {
      const { profile, spec, labels = {} } = json();
      return say(201, this.#sandboxView(tenant, this.#launch(tenant, spec.owner.displayName ?? "sandbox", profile, spec, labels)));
    }
    if (is("GET", root)) {
      const all = [...tenant.sandboxes.values()].filter((one) => query.get("status") === null || one.state === query.get("status"));
      return say(200, this.#page(tenant.id, query, all, (one) => one.id, (one) => this.#sandboxView(tenant, one)));
    }
    const sandbox = tenant.sandboxes.get(parts[4]);
    if (sandbox === undefined) throw new Failure(404, "op.not_found", `no sandbox ${parts[4]}`, { kind: "sandbox", tenantId: tenant.id, id: parts[4] });
    const rest = parts.slice(5);
    if (is("GET", `${root}/*`)) return say(200, this.#sandboxView(tenant, sandbox));
    if (is("POST", `${root}/*/stop`)) {
      this.#kill(sandbox);
      return say(200, this.#sandboxView(tenant, sandbox));
    }
    if (is("DELETE", `${root}/*`)) {
      if (sandbox.state === "ready" && query.get("force") !== "true") throw new Failure(409, "op.conflict", "it runs", { reason: "running" });
      this.#kill(sandbox);
      tenant.sandboxes.delete(sandbox.id);
      return say(204);
    }
    if (is("GET", `${root}/*/logs`)) return this.#logs(sandbox, query, response);
    if (is("POST", `${root}/*/extend`)) {
      sandbox.expiresAt = new Date(Date.now() + json().ttlMs).toISOString();
      return say(200, this.#sandboxView(tenant, sandbox));
    }
    if (is("POST", `${root}/*/preview-links`)) return say(201, { url: `http://p${json().port}.preview.localhost/`, expiresAt: now() });
    if (rest[0] === "files") return this.#files(sandbox, rest[1], request.method, query, json, body, response, say);
    if (sandbox.state !== "ready") throw new Failure(409, "op.conflict", "the sandbox is not ready", { lifecycleState: sandbox.state });
    if (is("POST", `${root}/*/exec`)) {
      const spec = json();
      const id = spec.commandId ?? ulid();
      let command = sandbox.commands.get(id);
      if (command === undefined) {
        command = new Command(id, spec, sandbox.root);
        sandbox.commands.set(id, command);
      } else if (command.spec !== JSON.stringify([spec.argv, spec.cwd ?? null, spec.env ?? {}])) {
        throw new Failure(409, "op.conflict", `command ${id} is another one`);
      }
      command.started += 1;
      return this.#stream(command, 0, response);
    }
    if (is("GET", `${root}/*/commands`)) {
      return say(200, { items: [...sandbox.commands.values()].map((one) => ({ commandId: one.id, state: one.exit === null ? "running" : "exited", ...(one.exit === null ? {} : { exitCode: one.exit.code }) })) });
    }
    const command = sandbox.commands.get(rest[1]);
    if (rest[0] !== "commands" || command === undefined) throw new Failure(404, "op.not_found", `no command ${rest[1]}`, { kind: "command" });
    if (is("GET", `${root}/*/commands/*`)) return this.#stream(command, Number(query.get("from") ?? 0), response);
    if (is("POST", `${root}/*/commands/*/signal`)) {
      command.child.kill(`SIG${json().signal}`);
      return say(204);
    }
    if (is("POST", `${root}/*/commands/*/input`)) {
      const { offset, data, encoding, eof } = json();
      command.input(offset, Buffer.from(data, encoding === "base64" ? "base64" : "utf8"), eof);
      return say(202, {});
    }
    throw new Failure(404, "service.route_not_found", "no such route");
  }

  #launch(tenant, name, profile, spec, labels) {
    const id = `${name}-${ulid()}`;
    const root = path.join(this.folder, id);
    fs.mkdirSync(root, { recursive: true });
    const sandbox = { id, profile, spec, labels, root, state: "starting", createdAt: now(), exitCode: null, commands: new Map() };
    tenant.sandboxes.set(id, sandbox);
    const env = Object.fromEntries((spec.process?.env ?? []).map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]));
    const argv = spec.process?.argv ?? ["sh", "-c", "cat >/dev/null"];
    setTimeout(() => {
      if (sandbox.state !== "starting") return;
      const main = new Command("main", { argv, env, stdinOpen: true, cwd: undefined }, root);
      sandbox.commands.set("main", main);
      sandbox.state = "ready";
      main.child.once("close", (code) => {
        if (sandbox.state !== "ready") return;
        sandbox.exitCode = code;
        sandbox.state = code === 0 ? "stopped" : "failed";
      });
    }, 30);
    return sandbox;
  }

  #kill(sandbox) {
    if (!["stopped", "failed"].includes(sandbox.state)) sandbox.state = "stopped";
    for (const command of sandbox.commands.values()) if (command.exit === null) command.child.kill("SIGKILL");
    for (const session of this.#sessions.values()) if (session.sandbox === sandbox && session.state === "open") this.#end(session, "target_stopped");
  }

  #sandboxView(tenant, sandbox) {
    return {
      metadata: { tenantId: tenant.id, id: sandbox.id, generation: 1, resourceVersion: String((this.#version += 1)), createdAt: sandbox.createdAt, updatedAt: now(), labels: sandbox.labels },
      spec: { profile: sandbox.profile, sandbox: redact(sandbox.spec) },
      status: { lifecycleState: sandbox.state, ...vitals(sandbox.state), backend: "container", endpoints: [], exitCode: sandbox.exitCode, expiresAt: sandbox.expiresAt ?? null, conditions: [condition("BackendState", sandbox.state)] },
    };
  }

  async #stream(command, from, response) {
    response.writeHead(200, { "content-type": "application/x-ndjson", "cache-control": "no-store" });
    response.write(`${JSON.stringify({ kind: "opened", commandId: command.id, offset: from })}\n`);
    let left = this.#cuts.shift() ?? Infinity;
    let gone = false;
    response.on("close", () => { gone = true; command.wakeAll?.(); });
    for await (const { stream, offset, data } of command.follow(from, () => gone)) {
      if (gone) return;
      const kept = data.subarray(0, left);
      left -= kept.length;
      await new Promise((resolve) => { response.write(`${JSON.stringify({ kind: stream, offset, ...carried(kept) })}\n`, resolve); });
      if (left <= 0) return void response.socket.destroy();
    }
    const { code, signal, timedOut } = command.exit ?? {};
    response.end(`\n${JSON.stringify({ kind: "exit", code, signal, timedOut })}\n`);
  }

  async #logs(sandbox, query, response) {
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    const main = sandbox?.commands.get("main");
    const line = (stream, data) => response.write(`${JSON.stringify({ ts: now(), stream, ...carried(data) })}\n`);
    let gone = false;
    response.on("close", () => { gone = true; main?.wakeAll?.(); });
    if (query.get("follow") === "true" && main !== undefined) {
      for await (const { stream, data } of main.follow(0, () => gone)) line(stream, data);
    } else {
      for (const { stream, data } of (main?.records ?? []).slice(-Number(query.get("tail") ?? 200))) line(stream, data);
    }
    response.end();
  }

  #files(sandbox, route, method, query, json, body, response, say) {
    const real = (name) => path.join(sandbox.root, path.posix.normalize(`/${name}`));
    const entry = (name) => {
      let stat;
      try {
        stat = fs.statSync(real(name));
      } catch {
        throw new Failure(404, "op.not_found", `no file ${name}`, { kind: "file", path: name });
      }
      return { name: path.posix.basename(name), path: name, type: stat.isDirectory() ? "dir" : "file", size: stat.size, mode: `0${(stat.mode & 0o7777).toString(8)}`, mtime: stat.mtime.toISOString(), etag: String(stat.mtimeMs) };
    };
    const at = query.get("path");
    switch (`${method} ${route}`) {
      case "GET list": {
        const limit = Number(query.get("limit") ?? 100);
        const all = fs.readdirSync(real(at)).sort().filter((name) => name > (query.get("pageToken") ?? ""));
        const entries = all.slice(0, limit).map((name) => entry(path.posix.join(at, name)));
        return say(200, { entries, ...(all.length > limit ? { nextPageToken: entries.at(-1).name } : {}) });
      }
      case "GET stat":
        return say(200, entry(at));
      case "GET content": {
        entry(at);
        const bytes = fs.readFileSync(real(at));
        const [, from, to] = /bytes=(\d+)-(\d*)/.exec(query.range ?? response.req.headers.range ?? "") ?? [];
        if (from === undefined) return void response.writeHead(200).end(bytes);
        return void response.writeHead(206).end(bytes.subarray(Number(from), to === "" ? undefined : Number(to) + 1));
      }
      case "PUT content": {
        const there = fs.existsSync(real(at));
        if (there && response.req.headers["if-none-match"] === "*") throw new Failure(412, "op.precondition_failed", `${at} exists`);
        const wanted = response.req.headers["if-match"];
        if (wanted !== undefined && wanted !== `"${entry(at).etag}"`) throw new Failure(412, "op.precondition_failed", `${at} has changed`);
        if (query.get("createParents") === "1") fs.mkdirSync(path.dirname(real(at)), { recursive: true });
        fs.writeFileSync(real(at), body);
        fs.chmodSync(real(at), parseInt(query.get("mode") ?? "0644", 8));
        return say(there ? 200 : 201, entry(at));
      }
      case "DELETE content":
        entry(at);
        fs.rmSync(real(at), { recursive: query.get("recursive") === "1" });
        return say(204);
      case "POST mkdir":
        fs.mkdirSync(real(json().path), { recursive: true });
        return say(201, entry(json().path));
      case "POST move":
        fs.renameSync(real(json().from), real(json().to));
        return say(200, entry(json().to));
      case "GET archive":
        response.writeHead(200, { "content-type": "application/x-tar" });
        return void spawn("tar", ["-C", real(at), "-cf", "-", "."]).stdout.pipe(response);
      case "PUT archive": {
        fs.mkdirSync(real(at), { recursive: true });
        const tar = spawn("tar", ["-C", real(at), "-xf", "-"]);
        tar.stdin.end(body);
        return new Promise((resolve) => tar.on("close", () => resolve(say(200, {}))));
      }
      default:
        throw new Failure(404, "service.route_not_found", `no route files/${route}`);
    }
  }

  // ── sessions

  #sessionRoute(is, parts, query, json, body, request, response, say) {
    if (is("POST", "/api/sessions")) {
      const { tenantId, target, channels, requestedTtlMs = 900_000 } = json();
      const tenant = this.#tenants.get(tenantId);
      if (tenant === undefined) throw new Failure(404, "session.tenant_not_found", "no such tenant", { tenantId });
      const service = target.service === undefined ? undefined : tenant.services.get(target.service.name);
      const sandbox = target.service === undefined ? tenant.sandboxes.get(target.sandbox.id) : service?.sandbox;
      if (sandbox === undefined) throw new Failure(404, "op.not_found", "no such target");
      if (sandbox?.state !== "ready") throw new Failure(409, "op.conflict", "the target is not ready", { lifecycleState: sandbox?.state ?? "stopped" });
      const snapshot = service === undefined ? { sandbox: { id: sandbox.id, generation: 1, profile: sandbox.profile, backend: "container" } } : { service: { name: service.name, generation: service.generation, backend: "sandbox", sandboxId: sandbox.id } };
      const session = { id: `ses_${ulid()}`, tenantId, sandbox, target, snapshot, channels, state: "open", createdAt: now(), expiresAt: new Date(Date.now() + Math.min(requestedTtlMs, 3_600_000)).toISOString(), sockets: new Set() };
      this.#sessions.set(session.id, session);
      return say(201, this.#sessionView(session));
    }
    if (is("GET", "/api/sessions")) {
      const all = [...this.#sessions.values()].filter((one) => one.tenantId === query.get("tenantId") && (query.get("state") === null || one.state === query.get("state")));
      return say(200, this.#page(query.get("tenantId"), query, all, (one) => one.id, (one) => this.#sessionView(one)));
    }
    const session = this.#sessions.get(parts[2]);
    if (session === undefined) throw new Failure(404, "op.not_found", `no session ${parts[2]}`, { kind: "session", id: parts[2] });
    if (is("GET", "/api/sessions/*")) return say(200, this.#sessionView(session));
    if (is("POST", "/api/sessions/*/close")) {
      if (session.state === "open") this.#end(session, json().reason ?? "client_close");
      return say(200, this.#sessionView(session));
    }
    if (session.state !== "open") throw new Failure(409, "op.conflict", "the session is closed");
    if (is("POST", "/api/sessions/*/tickets")) {
      const ticket = randomBytes(16).toString("hex");
      this.#tickets.set(ticket, session.id);
      return say(201, { ticket, expiresAt: now() });
    }
    if (parts[4] === "files") return this.#files(session.sandbox, parts[5], request.method, query, json, body, response, say);
    if (is("GET", "/api/sessions/*/channels/stdio/stream")) return this.#attachLines(session, this.#target(session, query), response);
    if (is("POST", "/api/sessions/*/channels/stdio/input")) {
      const { offset, data, encoding, eof, signal } = json();
      const command = session.sandbox.commands.get(query.get("command") ?? "main");
      if (command === undefined) throw new Failure(404, "op.not_found", "no such command");
      if (signal !== undefined) command.child.kill(`SIG${signal}`);
      command.input(offset, Buffer.from(data, encoding === "base64" ? "base64" : "utf8"), eof);
      return say(202, {});
    }
    throw new Failure(404, "service.route_not_found", "no such route");
  }

  #target(session, query) {
    const argv = query.get("argv");
    const id = query.get("command") ?? (argv === null ? "main" : ulid());
    const known = session.sandbox.commands.get(id);
    if (known !== undefined) return known;
    const command = new Command(id, { argv: JSON.parse(argv), stdinOpen: true }, session.sandbox.root);
    session.sandbox.commands.set(command.id, command);
    return command;
  }

  async #attachLines(session, command, response) {
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    response.write('{"kind":"opened","channel":"stdio","targetGeneration":1}\n');
    let gone = false;
    session.leave = () => { gone = true; command.wakeAll?.(); };
    response.on("close", session.leave);
    for await (const { stream, data } of command.follow(0, () => gone)) response.write(`${JSON.stringify({ kind: stream, ...carried(data) })}\n`);
    response.end(`${JSON.stringify(command.exit === null ? { kind: "closed", reason: session.reason } : { kind: "exit", ...command.exit })}\n`);
  }

  #upgrade(request, socket, head) {
    if (this.refuseUpgrades) return void socket.end("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    const url = new URL(request.url, this.url);
    this.requests.push({ method: "GET", path: request.url, headers: request.headers, body: "" });
    const [, , , id, , channel] = url.pathname.split("/");
    const ticket = url.searchParams.get("ticket");
    const session = this.#sessions.get(id);
    const known = this.#tickets.get(ticket) === id && session?.state === "open";
    this.#tickets.delete(ticket);
    this.#sockets.handleUpgrade(request, socket, head, (client) => {
      if (!known) return client.close(1008, "auth.unauthorized");
      session.sockets.add(client);
      if (channel === "stdio") void this.#attachSocket(session, this.#target(session, url.searchParams), client);
      else this.#attachPage(client);
    });
  }

  async #attachSocket(session, command, client) {
    const control = (message) => client.send(Buffer.concat([Buffer.of(3), Buffer.from(JSON.stringify(message))]));
    let gone = false;
    client.on("close", () => { gone = true; command.wakeAll?.(); });
    client.on("message", (data) => {
      if (data[0] === 0) return command.input(undefined, data.subarray(1), false);
      const message = JSON.parse(data.subarray(1).toString());
      if (message.type === "eof") command.input(undefined, Buffer.alloc(0), true);
      if (message.type === "signal") command.child.kill(`SIG${message.name}`);
      if (message.type === "resize") this.resized = message;
    });
    control({ type: "opened", targetGeneration: 1 });
    for await (const { stream, data } of command.follow(0, () => gone)) client.send(Buffer.concat([Buffer.of(stream === "stdout" ? 1 : 2), data]));
    if (gone) return;
    control({ type: "exit", code: command.exit.code });
    client.close(1000, "exit");
  }

  /** A page that knows three methods. */
  #attachPage(client) {
    client.on("message", (data) => {
      const { id, method, params } = JSON.parse(data.toString());
      const say = (message) => client.send(JSON.stringify({ id, ...message }));
      if (method === "goto") {
        client.send(JSON.stringify({ event: "navigated", url: params.url }));
        say({ result: { url: params.url } });
      } else if (method === "text") say({ result: "hello" });
      else if (method === "screenshot") say({ result: { format: "png", data: Buffer.from("picture").toString("base64") } });
      else say({ error: { code: "op.invalid_input", message: `no method ${method}` } });
    });
  }

  #end(session, reason) {
    Object.assign(session, { state: "closed", closedAt: now(), reason });
    session.leave?.();
    for (const client of session.sockets) client.close(reason === "target_stopped" ? 4003 : 4002, reason);
  }

  #sessionView(session) {
    return {
      metadata: { tenantId: session.tenantId, id: session.id, generation: session.state === "open" ? 1 : 2, resourceVersion: String((this.#version += 1)), createdAt: session.createdAt, updatedAt: session.closedAt ?? session.createdAt },
      spec: { target: session.target, targetSnapshot: session.snapshot, channels: session.channels, expiresAt: session.expiresAt },
      status: { lifecycleState: session.state, expiresAt: session.expiresAt, ...(session.closedAt === undefined ? {} : { closedAt: session.closedAt, closeReason: session.reason }), conditions: [] },
    };
  }

  #page(tenantId, query, all, key, view) {
    const limit = Math.min(100, Math.max(1, Number(query.get("limit") ?? 100)));
    const label = query.get("labelKey");
    const kept = all
      .filter((one) => label === null || (label in one.labels && (query.get("labelValue") ?? one.labels[label]) === one.labels[label]))
      .sort((a, b) => (key(a) < key(b) ? -1 : 1))
      .filter((one) => key(one) > (query.get("pageToken") ?? ""));
    const items = kept.slice(0, limit);
    const rest = kept.length - items.length;
    return { metadata: { tenantId, resourceVersion: "1", limit, ...(rest > 0 ? { nextPageToken: key(items.at(-1)) } : {}), remainingCount: rest }, items: items.map(view) };
  }
}

function vitals(state) {
  if (state === "ready") return { readiness: "ready", health: "healthy" };
  return { readiness: state === "starting" ? "not_ready" : state, health: state === "failed" ? "unhealthy" : "unknown" };
}

function condition(reason, state) {
  return { type: "Ready", status: state === "ready" ? "True" : "False", reason, message: `it is ${state}`, observedGeneration: 1, lastTransitionTime: now() };
}

function redact(spec) {
  const { process: inputs = {}, ...rest } = spec;
  return {
    ...rest,
    process: {
      argv: { redacted: true, valueCount: inputs.argv?.length ?? 0 },
      environment: { redacted: true, valueCount: inputs.env?.length ?? 0 },
      cwd: inputs.cwd ?? "/",
      terminal: inputs.terminal ?? false,
    },
  };
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const fake = await FakeNimbus.start();
  process.stdout.write(`${JSON.stringify({ url: fake.url, token: fake.token })}\n`);
  for await (const line of process.stdin) {
    // Orders of a test in another language, one a line: {"breakNext":["^POST /x",{"status":503}]}, {"cutAfter":[10,20]}.
    // Each is answered by the requests that came since the last one.
    const { breakNext, cutAfter } = JSON.parse(line.toString());
    if (breakNext !== undefined) fake.breakNext(new RegExp(breakNext[0]), breakNext[1]);
    if (cutAfter !== undefined) fake.cutAfter(...cutAfter);
    process.stdout.write(`${JSON.stringify(fake.requests.splice(0))}\n`);
  }
  await fake.stop();
}
