import { NimbusList } from "./list.js";
import { logLines } from "./ndjson.js";
import { tenantOf, type Scope } from "./scope.js";
import { path } from "./transport.js";
import type {
  NimbusLogLine,
  NimbusLogOptions,
  NimbusService,
  NimbusServiceBackendSpec,
  NimbusServiceCreateRequest,
  NimbusServiceDefinition,
  NimbusServiceDefinitionCollection,
  NimbusServiceDeleteRequest,
  NimbusServiceLifecycleRequest,
  NimbusServiceListRequest,
  NimbusServiceSelector,
  NimbusServiceStartRequest,
  NimbusServiceStopRequest,
  NimbusServiceUpdateRequest,
  NimbusServiceWaitRequest,
} from "./types.js";
import { limits, oneOf, waitFor, type Limits } from "./wait.js";

/** The services of a tenant: stable names for what runs behind them. */
export class NimbusServices {
  readonly #scope: Scope;

  constructor(scope: Scope) {
    this.#scope = scope;
  }

  /** Defines a service; nothing is started. */
  async create(input: NimbusServiceCreateRequest): Promise<NimbusServiceDefinition> {
    const tenantId = tenantOf(this.#scope, input);
    return this.#scope.transport.json({
      method: "POST",
      path: path`/api/tenants/${tenantId}/services`,
      json: definition(tenantId, input),
      signal: input.signal,
      creates: true,
    });
  }

  async get(input: NimbusServiceSelector): Promise<NimbusService> {
    return this.#scope.transport.json({ method: "GET", path: this.#path(input), signal: input.signal });
  }

  /** One page when awaited, every service in a `for await`. */
  list(input: NimbusServiceListRequest = {}): NimbusList<NimbusServiceDefinition> {
    const { limit, pageToken, labelKey, labelValue, signal } = input;
    return new NimbusList(pageToken, async (token) =>
      this.#scope.transport.json<NimbusServiceDefinitionCollection>({
        method: "GET",
        path: path`/api/tenants/${tenantOf(this.#scope, input)}/services`,
        query: { limit, pageToken: token, labelKey, labelValue },
        signal,
      }),
    );
  }

  /** Replaces the backend if the generation is still the one given. Without `labels` the labels stay. */
  async update(input: NimbusServiceUpdateRequest): Promise<NimbusServiceDefinition> {
    const tenantId = tenantOf(this.#scope, input);
    return this.#scope.transport.json({
      method: "PUT",
      path: this.#path(input),
      json: definition(tenantId, input, input.ifMatchGeneration),
      signal: input.signal,
    });
  }

  /** Removes the definition if the generation is still the one given. */
  async delete(input: NimbusServiceDeleteRequest): Promise<void> {
    const { ifMatchGeneration, force } = input;
    await this.#scope.transport.done({ method: "DELETE", path: this.#path(input), query: { ifMatchGeneration, force }, signal: input.signal });
  }

  /** Starts what is behind the service; answers at once unless `waitUntil` is given. */
  async start(input: NimbusServiceStartRequest): Promise<NimbusService> {
    return this.#activate("start", input);
  }

  /** Stops what runs and starts anew. */
  async restart(input: NimbusServiceLifecycleRequest): Promise<NimbusService> {
    return this.#activate("restart", input);
  }

  async stop(input: NimbusServiceStopRequest): Promise<NimbusService> {
    const until = input.waitUntil === undefined ? undefined : oneOf("waitUntil", ["stopped"], input.waitUntil);
    const bounds = limits(input);
    const stopped = await this.#act("stop", input);
    return until === undefined ? stopped : this.#wait(input, until, bounds);
  }

  /** Looks until the condition holds, 30 s every 250 ms unless told otherwise. */
  async wait(input: NimbusServiceWaitRequest): Promise<NimbusService> {
    const until = oneOf("until", ["ready", "healthy", "stopped"], input.until);
    return this.#wait(input, until, limits(input));
  }

  /** What the service wrote; with `follow` also what it will write. */
  logs(input: NimbusServiceSelector & NimbusLogOptions): AsyncIterable<NimbusLogLine> {
    return logLines(this.#scope.transport, `${this.#path(input)}/logs`, input);
  }

  async #activate(verb: "start" | "restart", input: NimbusServiceLifecycleRequest): Promise<NimbusService> {
    const until = input.waitUntil === undefined ? undefined : oneOf("waitUntil", ["ready", "healthy"], input.waitUntil);
    const bounds = limits(input);
    const begun = await this.#act(verb, input);
    return until === undefined ? begun : this.#wait(input, until, bounds);
  }

  #act(verb: "start" | "stop" | "restart", input: NimbusServiceSelector): Promise<NimbusService> {
    return this.#scope.transport.json({ method: "POST", path: `${this.#path(input)}/${verb}`, json: {}, signal: input.signal });
  }

  #wait(input: NimbusServiceSelector, until: "ready" | "healthy" | "stopped", bounds: Limits): Promise<NimbusService> {
    return waitFor({ kind: "service", name: input.name }, until, bounds, (signal) => this.get({ ...input, signal }));
  }

  #path(input: NimbusServiceSelector): string {
    return path`/api/tenants/${tenantOf(this.#scope, input)}/services/${input.name}`;
  }
}

function definition(
  tenantId: string,
  input: { readonly name: string; readonly backend: NimbusServiceBackendSpec; readonly labels?: Readonly<Record<string, string>> | undefined },
  generation?: number,
): unknown {
  // `undefined` fields do not appear in JSON: without labels the server keeps those it has.
  return { metadata: { tenantId, name: input.name, generation, labels: input.labels }, spec: { backend: input.backend } };
}
