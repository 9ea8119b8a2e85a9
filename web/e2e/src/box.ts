import { createHash } from "node:crypto";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as pause } from "node:timers/promises";

/** A job as the server gives it to a box. */
export interface Assignment {
  job: string;
  attempt: number;
  image: string;
  command: "image" | { shell: string } | { argv: string[] };
  env: { name: string; value: string }[];
  datasets: { name: string; writable: boolean }[];
  limits: { time_s: number; memory_bytes: number | null };
}

interface Held {
  assignment: Assignment;
  phase: "assigned" | "pulling" | "running" | "ending";
  note: string | null;
  startedAt: number | null;
  end: number;
  artifact: Buffer | null;
}

interface Registered {
  worker_id: string;
  worker_token: string;
  inference_api_key: string;
}

const BEAT_MS = 300;
const CLAIM_MS = 1_000;
const CHUNK = 256 * 1024;
const micros = () => Date.now() * 1_000;

/** What the model on the box says, whatever it is asked. */
export const ANSWER = ["Air ", "scatters ", "short ", "waves ", "more."];
export const MODEL = "tiny/model-1";

/**
 * A GPU box that does what a test says. It speaks the worker's protocol over HTTP as a real one does, and serves a
 * model that knows one answer; only the containers are not there.
 */
export class Box {
  private held: Held | null = null;
  private readonly waiting: ((assignment: Assignment) => void)[] = [];
  private readonly came: Assignment[] = [];
  private readonly cancelled = new Set<string>();
  private readonly watchers = new Set<() => void>();
  private isStopped = false;
  private busyPercent = 3;
  private readonly boot = Math.random().toString(16).slice(2);

  private constructor(
    readonly name: string,
    private readonly url: string,
    private readonly registered: Registered,
    private readonly model: http.Server | null,
  ) {}

  /** Registers with a pairing token and begins to work. */
  static async register(url: string, token: string, name: string, options: { model?: boolean } = {}): Promise<Box> {
    let key = "";
    const model = options.model === true ? await serveModel(() => key) : null;
    const answer = await fetch(`${url}/api/gpu/register`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ pairing_token: token, hostname: name, ip: "127.0.0.1", ...(model === null ? {} : { model: MODEL, port: (model.address() as AddressInfo).port }) }),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${name} could not register: ${answer.status} ${text}`);
    const registered = JSON.parse(text) as Registered;
    key = registered.inference_api_key;
    return new Box(name, url, registered, model);
  }

  /** Begins to beat and to take jobs. */
  work(): this {
    void (async () => {
      // Who asks for a job before the first beat is taken for a worker of old.
      while (!this.isStopped && !(await this.beat().then(() => true, () => false))) await pause(BEAT_MS);
      void this.repeat(() => this.beat(), BEAT_MS);
      void this.repeat(() => this.claim(), 50);
    })();
    return this;
  }

  /** The next job that the server gives. */
  next(): Promise<Assignment> {
    const first = this.came.shift();
    if (first !== undefined) return Promise.resolve(first);
    return new Promise((resolve) => this.waiting.push(resolve));
  }

  /** Settles when the server wants the job gone. */
  async gone(job: string): Promise<void> {
    while (!this.cancelled.has(job)) {
      await new Promise<void>((resolve) => this.watchers.add(resolve));
    }
  }

  async pulling(note: string): Promise<void> {
    Object.assign(this.mine(), { phase: "pulling", note });
    await this.beat();
  }

  async running(): Promise<void> {
    Object.assign(this.mine(), { phase: "running", note: null, startedAt: micros() });
    this.busyPercent = 91;
    await this.beat();
  }

  /** Prints, as the first process of the job would. */
  async print(text: string | Uint8Array): Promise<void> {
    const held = this.mine();
    held.end = await this.send("logs", held, Buffer.from(text), held.end);
  }

  /** What the job leaves in its folder, packed. */
  leave(bytes: Buffer): void {
    this.mine().artifact = bytes;
  }

  async finish(exit: { code: number; reason?: string; message?: string }): Promise<void> {
    const held = this.mine();
    held.phase = "ending";
    if (held.artifact !== null) await this.send("artifact", held, held.artifact, 0);
    const state = exit.code === 0 ? "succeeded" : "failed";
    const outcome = {
      attempt: held.assignment.attempt,
      state,
      exit_code: exit.code,
      code: exit.reason ?? null,
      error: exit.message ?? null,
      log_bytes: held.end,
      artifact_bytes: held.artifact?.length ?? null,
      artifact_sha256: held.artifact === null ? null : createHash("sha256").update(held.artifact).digest("hex"),
      artifact_note: null,
      started_at: held.startedAt,
      finished_at: micros(),
    };
    await this.ask(`jobs/${held.assignment.job}/status`, JSON.stringify({ status: state, exit_code: exit.code, outcome }), { "content-type": "application/json" });
    this.held = null;
    this.busyPercent = 3;
    await this.beat();
  }

  /** Asks a route of workers with the box' own token; answers the status. */
  async knock(): Promise<number> {
    return (await this.raw("beat", JSON.stringify(this.sign()), { "content-type": "application/json" })).status;
  }

  /** Falls silent, as a box that is switched off. */
  async stop(): Promise<void> {
    this.isStopped = true;
    if (this.model !== null) {
      this.model.closeAllConnections();
      await new Promise((closed) => this.model?.close(closed));
    }
  }

  private mine(): Held {
    if (this.held === null) throw new Error(`${this.name} holds no job`);
    return this.held;
  }

  private async repeat(work: () => Promise<void>, everyMs: number): Promise<void> {
    while (!this.isStopped) {
      // A server that is away comes back; a worker waits for it.
      await work().catch(() => undefined);
      await pause(everyMs);
    }
  }

  private sign(): object {
    const held = this.held;
    return {
      protocol: 1,
      version: "0.1.0",
      boot: this.boot,
      link: "http",
      held: held === null ? [] : [{ job: held.assignment.job, attempt: held.assignment.attempt, phase: held.phase, started_at: held.startedAt, note: held.note }],
      trouble: null,
      gpus: [
        {
          name: "NVIDIA GB10",
          memory_bytes: 137_438_953_472,
          driver: "580.95.05",
          usage: { busy_percent: this.busyPercent, memory_used_bytes: 21_474_836_480, temperature_c: 44, power_w: 38 },
        },
      ],
      arch: "aarch64",
      cpus: 20,
      memory_bytes: 137_438_953_472,
      disk_free_bytes: 900_000_000_000,
    };
  }

  private async beat(): Promise<void> {
    const answer = await this.ask("beat", JSON.stringify(this.sign()), { "content-type": "application/json" });
    const { cancel } = JSON.parse(answer) as { cancel: string[] };
    for (const job of cancel) {
      if (this.held?.assignment.job === job) this.held = null;
      this.cancelled.add(job);
    }
    for (const watcher of this.watchers) watcher();
    this.watchers.clear();
  }

  private async claim(): Promise<void> {
    if (this.held !== null) return;
    const answer = await this.ask(`claim?wait_ms=${CLAIM_MS}`, "", { "nimbus-protocol": "1" });
    if (answer === "") return;
    const assignment = JSON.parse(answer) as Assignment;
    this.held = { assignment, phase: "assigned", note: null, startedAt: null, end: 0, artifact: null };
    // A beat that gets lost is followed by another one.
    await this.beat().catch(() => undefined);
    const first = this.waiting.shift();
    if (first === undefined) this.came.push(assignment);
    else first(assignment);
  }

  private async send(what: "logs" | "artifact", held: Held, bytes: Buffer, from: number): Promise<number> {
    let end = from;
    for (let at = 0; at < bytes.length; at += CHUNK) {
      const answer = await this.ask(`jobs/${held.assignment.job}/${what}`, new Uint8Array(bytes.subarray(at, at + CHUNK)), { "content-type": "application/octet-stream", "nimbus-offset": String(end) });
      end = (JSON.parse(answer) as { end: number }).end;
    }
    return end;
  }

  private raw(path: string, body: string | Uint8Array<ArrayBuffer>, headers: Record<string, string>): Promise<Response> {
    return fetch(`${this.url}/api/gpu/worker/${path}`, {
      method: "POST",
      headers: { authorization: `Bearer ${this.registered.worker_token}`, "x-worker-id": this.registered.worker_id, ...headers },
      body,
    });
  }

  private async ask(path: string, body: string | Uint8Array<ArrayBuffer>, headers: Record<string, string>): Promise<string> {
    const answer = await this.raw(path, body, headers);
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${path} was answered with ${answer.status}: ${text}`);
    return text;
  }
}

/** What vLLM would serve: a list of models, and one answer in pieces, for those who know the key. */
async function serveModel(key: () => string): Promise<http.Server> {
  const server = http.createServer((request, response) => {
    if (request.headers.authorization !== `Bearer ${key()}`) {
      response.writeHead(401, { "content-type": "application/json" });
      response.end(JSON.stringify({ error: { message: "who are you", type: "invalid_request_error", code: "invalid_api_key" } }));
      return;
    }
    if (request.url === "/v1/models") {
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify({ object: "list", data: [{ id: MODEL, object: "model", created: 0, owned_by: "test" }] }));
      return;
    }
    if (request.url !== "/v1/chat/completions" || request.method !== "POST") {
      response.writeHead(404).end();
      return;
    }
    request.resume();
    request.on("end", () => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      const say = (value: object) => response.write(`data: ${JSON.stringify({ id: "c", object: "chat.completion.chunk", created: 0, model: MODEL, ...value })}\n\n`);
      for (const word of ANSWER) say({ choices: [{ index: 0, delta: { content: word }, finish_reason: null }] });
      say({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] });
      say({ choices: [], usage: { prompt_tokens: 7, completion_tokens: ANSWER.length, total_tokens: 7 + ANSWER.length } });
      response.end("data: [DONE]\n\n");
    });
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  return server;
}
