/** How bad it is for the server: `warning` is the caller's matter, `fatal` a bug. */
export type NimbusSeverity = "fatal" | "error" | "warning";

/** What can be done about a failure: `action` for programs, `message` for people. */
export interface NimbusRemediation {
  readonly action: string;
  readonly message: string;
}

/** Whether the same thing may be tried again, and how. */
export type NimbusRetryability = "retryable" | "retryable_after_backoff" | "restart_transaction" | "terminal";

/** Facts about a failure, for programs. */
export type NimbusErrorDetail = Readonly<Record<string, unknown>>;

/** What every error of this package says about itself. */
export interface NimbusErrorFields {
  readonly code: string;
  readonly message: string;
  /** HTTP status, 0 when there was no answer. */
  readonly status: number;
  /** To find the request in the server's log. */
  readonly requestId: string | undefined;
  readonly severity: NimbusSeverity;
  /** Whether the same request can succeed later. */
  readonly retryable: boolean;
  readonly detail: NimbusErrorDetail | null;
  readonly remediation: NimbusRemediation | undefined;
  /** From the `Retry-After` header, or the detail of a rate limit. */
  readonly retryAfterMs: number | undefined;
}

/** Whatever this package throws. `code` is stable, the message is for people. */
export class NimbusError extends Error implements NimbusErrorFields {
  readonly code: string;
  readonly status: number;
  readonly requestId: string | undefined;
  readonly severity: NimbusSeverity;
  readonly retryable: boolean;
  readonly detail: NimbusErrorDetail | null;
  readonly remediation: NimbusRemediation | undefined;
  readonly retryAfterMs: number | undefined;

  constructor(fields: Partial<NimbusErrorFields> & Pick<NimbusErrorFields, "code" | "message">, options?: ErrorOptions) {
    super(fields.message, options);
    this.name = new.target.name;
    this.code = fields.code;
    this.status = fields.status ?? 0;
    this.requestId = fields.requestId;
    this.severity = fields.severity ?? "error";
    this.retryable = fields.retryable ?? false;
    this.detail = fields.detail ?? null;
    this.remediation = fields.remediation;
    this.retryAfterMs = fields.retryAfterMs;
  }
}

/** An input that no request was made for: `client.invalid_input`. */
export class NimbusInputError extends NimbusError {
  constructor(message: string) {
    super({ code: "client.invalid_input", message, severity: "warning" });
  }
}

/** Endpoint or credential could not be found: `client.discovery`. */
export class NimbusDiscoveryError extends NimbusError {
  constructor(message: string, options?: ErrorOptions) {
    super({ code: "client.discovery", message }, options);
  }
}

/** The server could not be reached, or the connection broke: `client.transport`. What the server did is not known. */
export class NimbusTransportError extends NimbusError {
  constructor(message: string, options?: ErrorOptions) {
    super({ code: "client.transport", message, retryable: true }, options);
  }
}

/** A wait reached its deadline: `client.wait_timeout`. `last` is what was seen last. */
export class NimbusWaitTimeoutError<T = unknown> extends NimbusError {
  readonly last: T | undefined;

  constructor(message: string, last: T | undefined, options?: ErrorOptions) {
    super({ code: "client.wait_timeout", message, retryable: true }, options);
    this.last = last;
  }
}

/** A wait for something that cannot happen any more: `client.wait_failed`. */
export class NimbusWaitFailedError<T = unknown> extends NimbusError {
  readonly last: T;

  constructor(message: string, last: T) {
    super({ code: "client.wait_failed", message });
    this.last = last;
  }
}

/** A failure that the server reported. */
export class NimbusApiError extends NimbusError {}

/** 412: the resource has changed since it was read. */
export class NimbusPreconditionFailedError extends NimbusApiError {}

/** 404: there is no such thing, or it is not yours. */
export class NimbusNotFoundError extends NimbusApiError {}

/** 401 and 403: no valid credential, or one that may not do this. */
export class NimbusAuthError extends NimbusApiError {}

/** Contention and limits: `retryability` says what a repeat needs. */
export class NimbusCommitError extends NimbusApiError {
  readonly kind: string;
  readonly retryability: NimbusRetryability;

  constructor(fields: NimbusErrorFields, options?: ErrorOptions) {
    super(fields, options);
    this.kind = fields.code.slice(fields.code.indexOf(".") + 1);
    this.retryability = retryabilityOf(fields);
  }
}

export class NimbusConflictError extends NimbusCommitError {}
export class NimbusOverloadedError extends NimbusCommitError {}
export class NimbusCommitterFullError extends NimbusCommitError {}
export class NimbusRejectedBeforeExecutionError extends NimbusCommitError {}
export class NimbusRateLimitedError extends NimbusCommitError {}
export class NimbusOutOfRetentionError extends NimbusCommitError {}
export class NimbusCapExceededError extends NimbusCommitError {}

type Commit = new (fields: NimbusErrorFields) => NimbusCommitError;

/** Errors of the commit family, and what a repeat needs when the server does not say. */
const COMMIT = new Map<string, readonly [Commit, NimbusRetryability]>([
  ["op.conflict", [NimbusConflictError, "terminal"]],
  ["op.out_of_retention", [NimbusOutOfRetentionError, "restart_transaction"]],
  ["op.cap_exceeded", [NimbusCapExceededError, "terminal"]],
  ["rate.overloaded", [NimbusOverloadedError, "retryable_after_backoff"]],
  ["rate.committer_full", [NimbusCommitterFullError, "retryable_after_backoff"]],
  ["rate.rejected_before_execution", [NimbusRejectedBeforeExecutionError, "retryable"]],
  ["rate.limited", [NimbusRateLimitedError, "retryable_after_backoff"]],
]);

const RETRYABILITY: readonly NimbusRetryability[] = ["retryable", "retryable_after_backoff", "restart_transaction", "terminal"];

function retryabilityOf(fields: NimbusErrorFields): NimbusRetryability {
  const told = fields.detail?.["retryability"];
  return RETRYABILITY.find((value) => value === told) ?? COMMIT.get(fields.code)?.[1] ?? (fields.retryable ? "retryable" : "terminal");
}

/** Whether `error` belongs to the commit family. */
export function isNimbusCommitError(error: unknown): error is NimbusCommitError {
  return error instanceof NimbusCommitError;
}

/** What is known of an answer besides its body. */
export interface NimbusErrorFallback {
  readonly status: number;
  readonly requestId?: string | undefined;
  readonly retryAfterMs?: number | undefined;
  /** Used when the body has no message. */
  readonly message?: string | undefined;
}

/** Reads the error envelope of a body; what it lacks is taken from `fallback`. Never throws. */
export function decodeNimbusErrorEnvelope(body: unknown, fallback: NimbusErrorFallback): NimbusErrorFields {
  const outer = isRecord(body) ? body : {};
  // The routes of machines name the same object `fault`.
  const inner = isRecord(outer["error"]) ? outer["error"] : isRecord(outer["fault"]) ? outer["fault"] : {};
  const remediation = inner["remediation"];
  const detail = isRecord(inner["detail"]) ? inner["detail"] : null;
  const severity = inner["severity"];
  const after = detail?.["retryAfterMs"];
  return {
    code: text(inner["code"]) ?? codeOf(fallback.status),
    message: text(inner["message"]) ?? text(outer["error"]) ?? fallback.message ?? `the server answered with status ${fallback.status}`,
    status: fallback.status,
    requestId: text(inner["requestId"]) ?? fallback.requestId,
    severity: severity === "fatal" || severity === "warning" ? severity : "error",
    retryable: typeof inner["retryable"] === "boolean" ? inner["retryable"] : TRANSIENT.has(fallback.status),
    detail,
    remediation: isRecord(remediation)
      ? { action: text(remediation["action"]) ?? "", message: text(remediation["message"]) ?? "" }
      : undefined,
    retryAfterMs: fallback.retryAfterMs ?? (typeof after === "number" ? after : undefined),
  };
}

/** The error that says what `fields` say. */
export function apiError(fields: NimbusErrorFields): NimbusApiError {
  const commit = COMMIT.get(fields.code)?.[0];
  if (commit !== undefined) return new commit(fields);
  switch (fields.status) {
    case 401:
    case 403:
      return new NimbusAuthError(fields);
    case 404:
      return new NimbusNotFoundError(fields);
    case 412:
      return new NimbusPreconditionFailedError(fields);
    default:
      return new NimbusApiError(fields);
  }
}

/** Statuses that pass by themselves, also when a proxy in between sent them. */
const TRANSIENT = new Set([408, 429, 502, 503, 504]);

function codeOf(status: number): string {
  switch (status) {
    case 400:
      return "op.invalid_input";
    case 401:
      return "auth.unauthorized";
    case 403:
      return "auth.forbidden";
    case 404:
      return "op.not_found";
    case 405:
      return "op.method_not_allowed";
    case 409:
      return "op.conflict";
    case 412:
      return "op.precondition_failed";
    case 413:
      return "op.payload_too_large";
    case 429:
      return "rate.limited";
    case 502:
    case 503:
    case 504:
      return "service.unavailable";
    default:
      return status >= 500 ? "service.internal" : "op.invalid_input";
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function text(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}
