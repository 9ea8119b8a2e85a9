import { discover, type DiscoveryOptions, type Target } from "./discovery.js";
import { isNode } from "./environment.js";
import { apiError, decodeNimbusErrorEnvelope, NimbusApiError, NimbusError, NimbusTransportError } from "./errors.js";

/** Values of a query string; `undefined` ones are left out. */
export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

/** One request. */
export interface Call {
  readonly method: "GET" | "POST" | "PUT" | "DELETE";
  readonly path: string;
  readonly query?: Query;
  /** Sent as JSON. */
  readonly json?: unknown;
  /** Sent as it is. */
  readonly body?: BodyInit;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
  /** Creates something: carries an `Idempotency-Key`, and may be repeated for that reason. */
  readonly creates?: boolean;
  /** Safe to repeat for another reason. GET always is. */
  readonly repeatable?: boolean;
}

/** Options of everything that talks to a server. */
export interface TransportOptions extends DiscoveryOptions {
  readonly fetch?: typeof globalThis.fetch | undefined;
  /** Added to every request; they win over the ones made here. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** How often a request that may be repeated is repeated. Default 3. */
  readonly maxRetries?: number | undefined;
}

const MAX_RETRIES = 3;
const BACKOFF_MS = 100;
const BACKOFF_CAP_MS = 2_000;
/** A server that asks for more patience than this is not asked again; the error says how long it wanted. */
const RETRY_AFTER_CAP_MS = 10_000;
const VERSION = "0.1.0";
const CREDENTIALS = ["authorization", "x-nimbus-api-key", "x-nimbus-admin-token", "cookie"];

/** Sends requests, repeats those that may be, and makes errors of what failed. */
export class Transport {
  readonly #options: TransportOptions;
  readonly #fetch: typeof globalThis.fetch;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #anonymous: boolean;
  #target: Promise<Target> | undefined;

  constructor(options: TransportOptions, how: { readonly anonymous?: boolean } = {}) {
    this.#options = options;
    // Browsers want `fetch` called as a function of the window.
    this.#fetch = options.fetch ?? ((...args) => globalThis.fetch(...args));
    this.#headers = lowerCase(options.headers ?? {});
    // Who brings a header that authorises needs no other credential.
    this.#anonymous = how.anonymous === true || CREDENTIALS.some((name) => name in this.#headers);
  }

  /** Endpoint and credential, found once. A failure is not remembered. */
  async target(): Promise<Target> {
    if (this.#target === undefined) {
      const found = discover(this.#options, this.#anonymous);
      this.#target = found;
      found.catch(() => {
        if (this.#target === found) this.#target = undefined;
      });
    }
    return this.#target;
  }

  /** The JSON of an answer. */
  json<T>(call: Call): Promise<T> {
    return this.#run(call, async (response) => {
      const text = await response.text();
      try {
        return JSON.parse(text) as T;
      } catch {
        throw new NimbusApiError({
          code: "client.protocol",
          message: `${call.method} ${call.path}: the answer is not JSON; is the endpoint a Nimbus server?`,
          status: response.status,
          requestId: response.headers.get("x-request-id") ?? undefined,
        });
      }
    });
  }

  /** An answer that has no body, or one that does not matter. */
  done(call: Call): Promise<void> {
    return this.#run(call, async (response) => {
      await response.arrayBuffer();
    });
  }

  /** The bytes of an answer. */
  bytes(call: Call): Promise<Uint8Array> {
    return this.#run(call, async (response) => new Uint8Array(await response.arrayBuffer()));
  }

  /** A successful answer whose body is still to be read. */
  open(call: Call): Promise<Response> {
    return this.#run(call, (response) => Promise.resolve(response));
  }

  /** A WebSocket address of this server. */
  async socketUrl(path: string, query: Query = {}): Promise<string> {
    const { endpoint } = await this.target();
    return `${endpoint.replace(/^http/, "ws")}${path}${search(query)}`;
  }

  async #run<T>(call: Call, consume: (response: Response) => Promise<T>): Promise<T> {
    const key = call.creates === true ? freshKey() : undefined;
    const repeatable = call.method === "GET" || call.repeatable === true || key !== undefined;
    const retries = repeatable ? (this.#options.maxRetries ?? MAX_RETRIES) : 0;
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.#once(call, key, consume);
      } catch (error) {
        if (attempt >= retries || !isTransient(error)) throw error;
        const wait = (error.retryAfterMs ?? 0) > 0 ? (error.retryAfterMs ?? 0) : backoff(attempt);
        if (wait > RETRY_AFTER_CAP_MS) throw error;
        await pause(wait, call.signal);
      }
    }
  }

  async #once<T>(call: Call, key: string | undefined, consume: (response: Response) => Promise<T>): Promise<T> {
    const target = await this.target();
    const credential = await target.authorization();
    const json = call.json === undefined ? undefined : JSON.stringify(call.json);
    const headers: Record<string, string> = {
      accept: "application/json",
      ...(isNode() ? { "user-agent": `nimbus-js/${VERSION}` } : {}),
      ...(json === undefined ? {} : { "content-type": "application/json" }),
      ...(key === undefined ? {} : { "idempotency-key": key }),
      ...(credential === undefined ? {} : { [credential[0]]: credential[1] }),
      ...call.headers,
      ...this.#headers,
    };
    const body = json ?? call.body;
    const init: RequestInit & { duplex?: "half" } = {
      method: call.method,
      headers,
      ...(body === undefined ? {} : { body }),
      ...(body instanceof ReadableStream ? { duplex: "half" } : {}),
      ...(call.signal === undefined ? {} : { signal: call.signal }),
    };
    try {
      const response = await this.#fetch(`${target.endpoint}${call.path}${search(call.query ?? {})}`, init);
      if (!response.ok) throw await failure(call, response);
      return await consume(response);
    } catch (error) {
      if (error instanceof NimbusError || call.signal?.aborted === true) throw error;
      throw new NimbusTransportError(`${call.method} ${target.endpoint}${call.path} failed: ${reason(error)}`, { cause: error });
    }
  }
}

/** Puts values into a path, each as one segment. */
export function path(texts: TemplateStringsArray, ...values: readonly string[]): string {
  return texts.reduce((done, text, index) => `${done}${encodeURIComponent(values[index - 1] ?? "")}${text}`);
}

/** Whether the same request may pass in a moment. A quota that is used up stays so for longer than that. */
export function isTransient(error: unknown): error is NimbusError {
  if (error instanceof NimbusTransportError) return true;
  return error instanceof NimbusApiError && error.retryable && (error.status === 429 || error.status >= 500) && error.code !== "rate.resource_exhausted";
}

/** How long to wait before the next try: doubling, capped, and spread, so that clients do not come back together. */
export function backoff(attempt: number): number {
  const ceiling = Math.min(BACKOFF_CAP_MS, BACKOFF_MS * 2 ** attempt);
  return ceiling / 2 + Math.random() * (ceiling / 2);
}

/** Resolves after `ms`, or rejects with the reason of `signal`. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal?.reason instanceof Error ? signal.reason : new Error("aborted"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    if (signal?.aborted === true) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

/** A key no other request has; also in pages that are not served by TLS, where `randomUUID` is missing. */
export function freshKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function failure(call: Call, response: Response): Promise<NimbusApiError> {
  const text = await response.text().catch(() => "");
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    body = undefined;
  }
  const seconds = Number(response.headers.get("retry-after") ?? "");
  return apiError(
    decodeNimbusErrorEnvelope(body, {
      status: response.status,
      requestId: response.headers.get("x-request-id") ?? undefined,
      retryAfterMs: Number.isFinite(seconds) && seconds > 0 ? seconds * 1000 : undefined,
      message: `${call.method} ${call.path} was answered with ${response.status} ${response.statusText}`.trim(),
    }),
  );
}

function search(query: Query): string {
  const values = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) values.set(name, String(value));
  }
  return values.size === 0 ? "" : `?${values.toString()}`;
}

function lowerCase(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

/** `fetch` hides the reason of a failure in its cause. */
function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? error.cause.message || error.message : error.message;
}
