import type { Fault } from "./types";

/** A refusal by the server, or the failure to reach it. `status` 0 means that no answer came. */
export class ApiError extends Error {
  readonly status: number;
  readonly fault: Fault | null;
  readonly retryAfter: number | null;

  constructor(status: number, message: string, fault: Fault | null, retryAfter: number | null = null) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.fault = fault;
    this.retryAfter = retryAfter;
  }

  /** The field of the request that the server objects to, if it named one. */
  get field(): string | null {
    const field = this.fault?.detail?.["field"];
    return typeof field === "string" ? field : null;
  }
}

interface CallOptions {
  method?: "GET" | "POST" | "PUT" | "DELETE";
  body?: unknown;
  query?: Record<string, string | number | boolean | undefined>;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

interface Envelope {
  success?: boolean;
  data?: unknown;
  error?: string;
  fault?: Fault;
  next_cursor?: string | null;
}

export interface Page<T> {
  data: T;
  nextCursor: string | null;
}

function url(path: string, query: CallOptions["query"]): string {
  const params = new URLSearchParams();
  for (const [key, value] of Object.entries(query ?? {})) {
    if (value !== undefined) params.set(key, String(value));
  }
  const text = params.toString();
  return `/api${path}${text === "" ? "" : `?${text}`}`;
}

function sentence(status: number): string {
  if (status === 502 || status === 503 || status === 504) return "Nimbus is starting or overloaded. Try again in a moment.";
  return `The server answered ${status} without an explanation.`;
}

async function send(path: string, options: CallOptions): Promise<Envelope> {
  const headers: Record<string, string> = { accept: "application/json", ...options.headers };
  const init: RequestInit = { method: options.method ?? "GET", headers, credentials: "same-origin" };
  if (options.body !== undefined) {
    headers["content-type"] = "application/json";
    init.body = JSON.stringify(options.body);
  }
  if (options.signal) init.signal = options.signal;

  let response: Response;
  try {
    response = await fetch(url(path, options.query), init);
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === "AbortError") throw cause;
    throw new ApiError(0, "Nimbus does not answer. Check your connection, or whether the server runs.", null);
  }
  if (response.status === 204) return {};
  const text = await response.text();
  let envelope: Envelope = {};
  try {
    // The one place where bytes become types: the server's OpenAPI document is the contract.
    envelope = JSON.parse(text) as Envelope;
  } catch {
    if (response.ok) throw new ApiError(response.status, "The server's answer could not be read.", null);
  }
  if (!response.ok) {
    const after = Number(response.headers.get("retry-after"));
    const message = envelope.error ?? envelope.fault?.message ?? sentence(response.status);
    throw new ApiError(response.status, message, envelope.fault ?? null, Number.isFinite(after) && after > 0 ? after : null);
  }
  return envelope;
}

/** One request; resolves to the `data` of the envelope. */
export async function call<T>(path: string, options: CallOptions = {}): Promise<T> {
  const envelope = await send(path, options);
  return envelope.data as T;
}

/** One page of a list. */
export async function page<T>(path: string, options: CallOptions = {}): Promise<Page<T>> {
  const envelope = await send(path, options);
  return { data: envelope.data as T, nextCursor: envelope.next_cursor ?? null };
}
