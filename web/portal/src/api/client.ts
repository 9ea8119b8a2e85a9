import createClient from "openapi-fetch";
import { sentence } from "~/ui/format";
import type { paths } from "./schema";
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

/** The API, typed by its OpenAPI document. */
export const http = createClient<paths>({
  baseUrl: window.location.origin,
  credentials: "same-origin",
  headers: { accept: "application/json" },
  fetch: (request) => globalThis.fetch(request),
});

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function isFault(value: unknown): value is Fault {
  return isRecord(value) && typeof value["code"] === "string" && typeof value["message"] === "string";
}

export function failure(response: Pick<Response, "status" | "headers">, body: unknown): ApiError {
  const { status } = response;
  // Routes of machines put the fault beside the message, those of workloads put it in its place.
  const found = isRecord(body) ? (body["fault"] ?? body["error"]) : null;
  const fault = isFault(found) ? found : null;
  const said =
    (isRecord(body) && typeof body["error"] === "string" ? body["error"] : null) ??
    fault?.message ??
    null;
  const message =
    (said === null ? null : sentence(said)) ??
    (status >= 502 && status <= 504
      ? "Nimbus is starting or overloaded. Try again in a moment."
      : `The server answered ${status} without an explanation.`);
  const after = Number(response.headers.get("retry-after"));
  return new ApiError(status, message, fault, after > 0 ? after : null);
}

type Answer<T> = Promise<{ data?: T; error?: unknown; response: Response }>;

async function settle<T>(answer: Answer<T>): Promise<{ data?: T; error?: unknown; response: Response }> {
  try {
    const result = await answer;
    if (!result.response.ok) throw failure(result.response, result.error);
    return result;
  } catch (cause) {
    if (cause instanceof ApiError || (cause instanceof DOMException && cause.name === "AbortError")) throw cause;
    if (cause instanceof SyntaxError) throw new ApiError(0, "The server's answer could not be read.", null);
    throw new ApiError(0, "Nimbus does not answer. Check your connection, or whether the server runs.", null);
  }
}

/** The body of a successful answer; anything else is thrown. */
export async function body<T>(answer: Answer<T>): Promise<T> {
  const { data, response } = await settle(answer);
  if (data === undefined) throw new ApiError(response.status, "The server's answer could not be read.", null);
  return data;
}

/** For answers without a body. */
export async function done(answer: Answer<unknown>): Promise<void> {
  await settle(answer);
}

export interface Call {
  /** Sent to its end even if the page goes away. */
  keepalive?: boolean;
  method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  query?: Record<string, string | number | boolean | undefined>;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** A path with its query, as the server is asked for it. */
export function address(path: string, query: Call["query"] = {}): string {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== undefined) given.set(name, String(value));
  const text = given.toString();
  return text === "" ? path : `${path}?${text}`;
}

/** A successful answer as it comes, for streams of lines; anything else is thrown. */
export async function open(path: string, { method = "GET", query, body: sent, headers, signal, keepalive = false }: Call = {}): Promise<Response> {
  let response: Response;
  try {
    response = await globalThis.fetch(new URL(address(path, query), window.location.origin), {
      method,
      keepalive,
      credentials: "same-origin",
      headers: { accept: "application/json", ...(sent === undefined ? {} : { "content-type": "application/json" }), ...headers },
      ...(sent === undefined ? {} : { body: JSON.stringify(sent) }),
      ...(signal === undefined ? {} : { signal }),
    });
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === "AbortError") throw cause;
    throw new ApiError(0, "Nimbus does not answer. Check your connection, or whether the server runs.", null);
  }
  if (response.ok) return response;
  throw failure(response, await readJson(response));
}

async function readJson(response: Response): Promise<unknown> {
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** The body of a successful answer of a route that answers with the bare resource. */
export async function ask<T>(path: string, read: (value: unknown) => T, call: Call = {}): Promise<T> {
  const response = await open(path, call);
  return read(response.status === 204 ? null : await readJson(response));
}
