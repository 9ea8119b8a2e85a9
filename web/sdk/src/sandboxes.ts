import { NimbusCommand, type NimbusAttachRequest, type NimbusCommandInfo, type NimbusExecRequest } from "./exec.js";
import { NimbusApiError } from "./errors.js";
import { NimbusFiles } from "./files.js";
import { NimbusList } from "./list.js";
import { logLines } from "./ndjson.js";
import { tenantOf, type Scope } from "./scope.js";
import { path } from "./transport.js";
import type {
  NimbusAbortable,
  NimbusCollection,
  NimbusLogLine,
  NimbusLogOptions,
  NimbusPreviewLink,
  NimbusPreviewRequest,
  NimbusSandboxCollection,
  NimbusSandboxCreateRequest,
  NimbusSandboxDeleteRequest,
  NimbusSandboxExtendRequest,
  NimbusSandboxListRequest,
  NimbusSandboxResource,
  NimbusSandboxSelector,
  NimbusSandboxWaitCondition,
  NimbusSandboxWaitRequest,
  NimbusTenantScope,
  NimbusWaitLimits,
} from "./types.js";
import { limits, oneOf, waitFor } from "./wait.js";

/** The sandboxes of a tenant: one isolated process each. */
export class NimbusSandboxes {
  readonly #scope: Scope;

  constructor(scope: Scope) {
    this.#scope = scope;
  }

  /** Creates a sandbox and answers while it starts; `wait` for `ready`. */
  async create(input: NimbusSandboxCreateRequest): Promise<NimbusSandbox> {
    const tenantId = tenantOf(this.#scope, input);
    const { profile, spec, labels, signal } = input;
    const resource = await this.#scope.transport.json<NimbusSandboxResource>({
      method: "POST",
      path: path`/api/tenants/${tenantId}/sandboxes`,
      json: { profile, spec, labels },
      signal,
      creates: true,
    });
    return new NimbusSandbox(this, resource);
  }

  async get(input: NimbusSandboxSelector): Promise<NimbusSandbox> {
    return new NimbusSandbox(this, await this.#scope.transport.json({ method: "GET", path: this.#path(input), signal: input.signal }));
  }

  /** One page when awaited, every sandbox in a `for await`. */
  list(input: NimbusSandboxListRequest = {}): NimbusList<NimbusSandbox> {
    const { limit, pageToken, status, labelKey, labelValue, signal } = input;
    return new NimbusList(pageToken, async (token): Promise<NimbusCollection<NimbusSandbox>> => {
      const page = await this.#scope.transport.json<NimbusSandboxCollection>({
        method: "GET",
        path: path`/api/tenants/${tenantOf(this.#scope, input)}/sandboxes`,
        query: { limit, pageToken: token, status, labelKey, labelValue },
        signal,
      });
      return { ...page, items: page.items.map((item) => new NimbusSandbox(this, item)) };
    });
  }

  async stop(input: NimbusSandboxSelector): Promise<NimbusSandbox> {
    const stopped = await this.#scope.transport.json<NimbusSandboxResource>({
      method: "POST",
      path: `${this.#path(input)}/stop`,
      json: {},
      signal: input.signal,
    });
    return new NimbusSandbox(this, stopped);
  }

  /** Gives it more time. */
  async extend(input: NimbusSandboxExtendRequest & NimbusSandboxSelector): Promise<NimbusSandbox> {
    const { ttlMs, idleTimeoutMs, signal } = input;
    const extended = await this.#scope.transport.json<NimbusSandboxResource>({
      method: "POST",
      path: `${this.#path(input)}/extend`,
      json: { ttlMs, idleTimeoutMs },
      signal,
    });
    return new NimbusSandbox(this, extended);
  }

  /** Removes its record, logs and files. */
  async delete(input: NimbusSandboxDeleteRequest): Promise<void> {
    await this.#scope.transport.done({ method: "DELETE", path: this.#path(input), query: { force: input.force }, signal: input.signal });
  }

  /** Looks until the condition holds, 30 s every 250 ms unless told otherwise. */
  async wait(input: NimbusSandboxWaitRequest): Promise<NimbusSandbox> {
    const until = oneOf("until", ["ready", "healthy", "stopped"], input.until);
    return waitFor({ kind: "sandbox", name: input.id }, until, limits(input), (signal) => this.get({ ...input, signal }));
  }

  /** Runs a command: `await` the answer for its output, or read events with `for await`. */
  exec(input: NimbusExecRequest & NimbusSandboxSelector): NimbusCommand {
    return new NimbusCommand(this.#scope.transport, this.#path(input), input);
  }

  /** Reads a command that runs or ran, from an offset on. */
  attach(input: NimbusAttachRequest & NimbusSandboxSelector): NimbusCommand {
    return new NimbusCommand(this.#scope.transport, this.#path(input), input);
  }

  /** The commands that the sandbox remembers. */
  async commands(input: NimbusSandboxSelector): Promise<readonly NimbusCommandInfo[]> {
    const answer = await this.#scope.transport.json<{ readonly items: readonly NimbusCommandInfo[] }>({
      method: "GET",
      path: `${this.#path(input)}/commands`,
      signal: input.signal,
    });
    return answer.items;
  }

  files(input: NimbusSandboxSelector): NimbusFiles {
    return new NimbusFiles(this.#scope.transport, `${this.#path(input)}/files`);
  }

  /** What the main process wrote; with `follow` also what it will write. */
  logs(input: NimbusSandboxSelector & NimbusLogOptions): AsyncIterable<NimbusLogLine> {
    return logLines(this.#scope.transport, `${this.#path(input)}/logs`, input);
  }

  /** Makes a link under which a port can be opened in a browser. */
  async preview(input: NimbusPreviewRequest & NimbusSandboxSelector): Promise<NimbusPreviewLink> {
    const { port, ttlMs, signal } = input;
    return this.#scope.transport.json({ method: "POST", path: `${this.#path(input)}/preview-links`, json: { port, ttlMs }, signal });
  }

  #path(input: NimbusSandboxSelector): string {
    return path`/api/tenants/${tenantOf(this.#scope, input)}/sandboxes/${input.id}`;
  }
}

/**
 * A sandbox as it was when it was read, and what can be done with it.
 * `await using` stops it at the end of the block.
 */
export class NimbusSandbox implements NimbusSandboxResource, AsyncDisposable {
  readonly metadata: NimbusSandboxResource["metadata"];
  readonly spec: NimbusSandboxResource["spec"];
  readonly status: NimbusSandboxResource["status"];
  readonly #all: NimbusSandboxes;

  /** @internal */
  constructor(all: NimbusSandboxes, resource: NimbusSandboxResource) {
    this.#all = all;
    this.metadata = resource.metadata;
    this.spec = resource.spec;
    this.status = resource.status;
  }

  get id(): string {
    return this.metadata.id;
  }

  get files(): NimbusFiles {
    return this.#all.files(this.#self());
  }

  /** The sandbox as it is now. */
  refresh(options: NimbusAbortable = {}): Promise<NimbusSandbox> {
    return this.#all.get({ ...options, ...this.#self() });
  }

  wait(until: NimbusSandboxWaitCondition, bounds: NimbusWaitLimits = {}): Promise<NimbusSandbox> {
    return this.#all.wait({ ...bounds, ...this.#self(), until });
  }

  /** Runs a command: `await` the answer for its output, or read events with `for await`. */
  exec(input: NimbusExecRequest): NimbusCommand {
    return this.#all.exec({ ...input, ...this.#self() });
  }

  attach(input: NimbusAttachRequest): NimbusCommand {
    return this.#all.attach({ ...input, ...this.#self() });
  }

  commands(options: NimbusAbortable = {}): Promise<readonly NimbusCommandInfo[]> {
    return this.#all.commands({ ...options, ...this.#self() });
  }

  logs(options: Omit<NimbusLogOptions, "tenantId"> = {}): AsyncIterable<NimbusLogLine> {
    return this.#all.logs({ ...options, ...this.#self() });
  }

  preview(input: NimbusPreviewRequest): Promise<NimbusPreviewLink> {
    return this.#all.preview({ ...input, ...this.#self() });
  }

  extend(input: NimbusSandboxExtendRequest): Promise<NimbusSandbox> {
    return this.#all.extend({ ...input, ...this.#self() });
  }

  stop(options: NimbusAbortable = {}): Promise<NimbusSandbox> {
    return this.#all.stop({ ...options, ...this.#self() });
  }

  delete(options: NimbusAbortable & { readonly force?: boolean } = {}): Promise<void> {
    return this.#all.delete({ ...options, ...this.#self() });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.stop();
    } catch (error) {
      // Somebody removed it inside the block.
      if (!(error instanceof NimbusApiError && error.status === 404)) throw error;
    }
  }

  #self(): { readonly id: string } & NimbusTenantScope {
    return { id: this.metadata.id, tenantId: this.metadata.tenantId };
  }
}
