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
  return isRecord(value) && typeof value["code"] === "string" && typeof value["message"] === "string" && isRecord(value["remediation"]);
}

function failure(response: Response, body: unknown): ApiError {
  const { status } = response;
  const fault = isRecord(body) && isFault(body["fault"]) ? body["fault"] : null;
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
