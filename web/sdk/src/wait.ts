import { NimbusInputError, NimbusWaitFailedError, NimbusWaitTimeoutError } from "./errors.js";
import { isTransient, pause } from "./transport.js";
import type { NimbusCondition, NimbusWaitLimits } from "./types.js";

const TIMEOUT_MS = 30_000;
const INTERVAL_MS = 250;

export type WaitCondition = "ready" | "healthy" | "stopped";

/** What a wait looks at, in a service or a sandbox. */
interface State {
  readonly lifecycleState?: string | undefined;
  readonly readiness?: string | undefined;
  readonly health?: string | undefined;
  readonly exitCode?: number | null | undefined;
  readonly conditions?: readonly NimbusCondition[] | undefined;
}

interface Watched extends State {
  readonly status?: State & { readonly backend?: string | undefined };
}

/** How long and how often, checked. */
export interface Limits {
  readonly timeoutMs: number;
  readonly intervalMs: number;
  readonly signal: AbortSignal | undefined;
}

/** Checks what a caller asked for, before any request is made. */
export function limits(input: NimbusWaitLimits): Limits {
  return {
    timeoutMs: positive("timeoutMs", input.timeoutMs ?? TIMEOUT_MS),
    intervalMs: positive("intervalMs", input.intervalMs ?? INTERVAL_MS),
    signal: input.signal,
  };
}

/** Refuses a condition that this call cannot wait for. */
export function oneOf<T extends WaitCondition>(field: string, allowed: readonly T[], value: WaitCondition): T {
  const found = allowed.find((one) => one === value);
  if (found === undefined) throw new NimbusInputError(`\`${field}\` is ${JSON.stringify(value)}; it can be ${allowed.join(" or ")}`);
  return found;
}

/** Looks again and again until `until` holds. `what` names the thing in messages. */
export async function waitFor<T extends object>(
  what: { readonly kind: "service" | "sandbox"; readonly name: string },
  until: WaitCondition,
  bounds: Limits,
  look: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const deadline = performance.now() + bounds.timeoutMs;
  // A look that hangs must not outlive the deadline.
  const expiry = AbortSignal.timeout(bounds.timeoutMs);
  const signal = bounds.signal === undefined ? expiry : AbortSignal.any([bounds.signal, expiry]);
  let last: T | undefined;
  let failure: unknown;
  for (;;) {
    try {
      last = await look(signal);
      failure = undefined;
    } catch (error) {
      bounds.signal?.throwIfAborted();
      if (!expiry.aborted && !isTransient(error)) throw error;
      failure = expiry.aborted ? failure : error;
    }
    if (last !== undefined && failure === undefined) {
      if (holds(last, until)) return last;
      const hopeless = cannotHold(what.kind, last, until);
      if (hopeless !== undefined) throw new NimbusWaitFailedError(`${what.kind} ${what.name} ${hopeless}; it will not get ${until}. ${describe(last)}`, last);
    }
    const left = deadline - performance.now();
    if (left <= 0 || expiry.aborted) {
      const because = failure instanceof Error ? `; the last look failed: ${failure.message}` : "";
      throw new NimbusWaitTimeoutError(
        `${what.kind} ${what.name} was not ${until} within ${bounds.timeoutMs} ms; ${last === undefined ? "it was never seen" : describe(last)}${because}`,
        last,
        failure === undefined ? undefined : { cause: failure },
      );
    }
    await pause(Math.min(bounds.intervalMs, left), bounds.signal);
  }
}

function read(thing: Watched, field: "lifecycleState" | "readiness" | "health"): string {
  return (thing[field] ?? thing.status?.[field] ?? "").toLowerCase();
}

function holds(thing: Watched, until: WaitCondition): boolean {
  switch (until) {
    case "ready":
      return read(thing, "readiness") === "ready" || read(thing, "lifecycleState") === "ready";
    case "healthy":
      return read(thing, "health") === "healthy";
    case "stopped":
      return read(thing, "lifecycleState") === "stopped" || read(thing, "readiness") === "stopped";
  }
}

/** Why a state is final, when it is. */
function cannotHold(kind: "service" | "sandbox", thing: Watched, until: WaitCondition): string | undefined {
  const state = read(thing, "lifecycleState");
  // A sandbox that has ended never runs again; a service may be started, or stopped after it failed.
  if (state === "failed" && (kind === "sandbox" || until !== "stopped")) return "has failed";
  if (until === "stopped") return undefined;
  if (state === "stopped" && kind === "sandbox") return "has stopped";
  // Somebody else runs an external service; its health is looked at all the same.
  if (state === "declared" && thing.status?.backend !== "external") return "is only declared, nothing runs for it";
  return undefined;
}

function describe(thing: Watched): string {
  const status = thing.status ?? thing;
  const state = (["lifecycleState", "readiness", "health"] as const).map((field) => `${field} ${read(thing, field) || "unknown"}`);
  if (typeof status.exitCode === "number") state.push(`exitCode ${status.exitCode}`);
  // The condition that is not fulfilled says most.
  const telling = status.conditions?.filter((condition) => condition.status !== "True" || condition.type === "Progressing") ?? [];
  const conditions = telling.map(({ type, status: value, reason, message }) => `${type}=${value} ${reason}${message === "" ? "" : `: ${message}`}`);
  return `last seen: ${state.join(", ")}${conditions.length === 0 ? "" : ` (${conditions.join("; ")})`}`;
}

function positive(field: string, value: number): number {
  if (!Number.isFinite(value) || value <= 0) throw new NimbusInputError(`\`${field}\` is ${value}; it must be a positive number`);
  return value;
}

