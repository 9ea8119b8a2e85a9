import type { Lifecycle, Sandbox, Service } from "~/api/workloads";
import { sentence } from "~/ui/format";
import type { Tone } from "~/ui/status";

export const LIFECYCLE: Record<Lifecycle, { label: string; tone: Tone; moving: boolean }> = {
  starting: { label: "Starting", tone: "info", moving: true },
  ready: { label: "Ready", tone: "good", moving: false },
  not_ready: { label: "Not ready", tone: "wait", moving: false },
  stopping: { label: "Stopping", tone: "wait", moving: true },
  stopped: { label: "Stopped", tone: "idle", moving: false },
  failed: { label: "Failed", tone: "bad", moving: false },
  declared: { label: "Declared", tone: "info", moving: false },
  unknown: { label: "Unknown", tone: "wait", moving: false },
};

export function isActive(state: Lifecycle): boolean {
  return state === "starting" || state === "ready" || state === "not_ready" || state === "stopping";
}

export type SandboxVerb = "stop" | "extend" | "delete" | "use" | "session";

/** What may be done with a sandbox in which state: null when it may, else the reason why not. */
const SANDBOX: Record<Lifecycle, Record<SandboxVerb, string | null>> = {
  starting: { stop: null, extend: null, delete: null, use: "It is still starting.", session: "It is still starting." },
  ready: { stop: null, extend: null, delete: null, use: null, session: null },
  not_ready: { stop: null, extend: null, delete: null, use: null, session: "Its readiness probe fails." },
  stopping: { stop: "It is stopping.", extend: "It is stopping.", delete: null, use: "It is stopping.", session: "It is stopping." },
  stopped: { stop: "It is stopped.", extend: "It is stopped.", delete: null, use: "It is stopped.", session: "It is stopped." },
  failed: { stop: "It has failed.", extend: "It has failed.", delete: null, use: "It has failed.", session: "It has failed." },
  declared: { stop: "It is not run here.", extend: "It is not run here.", delete: null, use: "It is not run here.", session: "It is not run here." },
  unknown: { stop: null, extend: null, delete: null, use: "Its state is unknown.", session: "Its state is unknown." },
};

export function sandboxRefusal(sandbox: Sandbox, verb: SandboxVerb): string | null {
  const { owner } = sandbox.spec.sandbox;
  if (owner?.kind === "service" && (verb === "stop" || verb === "delete") && isActive(sandbox.status.lifecycleState)) {
    return `It belongs to the service ${owner.serviceName ?? ""}: stop that.`;
  }
  return SANDBOX[sandbox.status.lifecycleState][verb];
}

export type ServiceVerb = "start" | "stop" | "restart" | "edit" | "delete" | "session";

const RUNS = "It runs already.";
const OFF = "It does not run.";

const SERVICE: Record<Lifecycle, Record<ServiceVerb, string | null>> = {
  starting: { start: "It is starting.", stop: null, restart: null, edit: null, delete: null, session: "It is still starting." },
  ready: { start: RUNS, stop: null, restart: null, edit: null, delete: null, session: null },
  not_ready: { start: RUNS, stop: null, restart: null, edit: null, delete: null, session: "Its readiness probe fails." },
  stopping: { start: "It is stopping.", stop: "It is stopping.", restart: "It is stopping.", edit: null, delete: null, session: "It is stopping." },
  stopped: { start: null, stop: OFF, restart: null, edit: null, delete: null, session: OFF },
  failed: { start: null, stop: OFF, restart: null, edit: null, delete: null, session: OFF },
  declared: {
    start: "It is only declared: Nimbus does not run it.",
    stop: "It is only declared: Nimbus does not run it.",
    restart: "It is only declared: Nimbus does not run it.",
    edit: null,
    delete: null,
    session: "It is only declared: there is nothing to attach to.",
  },
  unknown: { start: null, stop: null, restart: null, edit: null, delete: null, session: "Its state is unknown." },
};

export function serviceRefusal(service: Service, verb: ServiceVerb): string | null {
  if (service.metadata.source === "staticCatalog" && (verb === "edit" || verb === "delete")) {
    return "It comes from a Compose file: change it there.";
  }
  return SERVICE[service.status.lifecycleState][verb];
}

const REASONS: Record<string, string> = {
  DefinitionValidated: "The definition is valid",
  BackendState: "As its process says",
  ImagePulling: "The image is being pulled",
  ImagePullFailed: "The image could not be pulled",
  LaunchFailed: "It could not be launched",
  ProbeFailing: "The probe fails",
  CrashLoopBackOff: "It keeps crashing and waits before the next try",
  RestartLimitReached: "It was restarted as often as it may be",
  StoppedByRequest: "Somebody stopped it",
  DeclaredOnly: "It is only declared",
  EndpointUnreachable: "The endpoint does not answer",
  TtlExpired: "Its time is over",
  LostDuringRestart: "It was lost while the server restarted",
  LeaseActive: "The lease runs",
  ClientClosed: "It was closed",
  LeaseExpired: "The lease ran out",
  TargetGone: "What it led to is gone",
};

/** The words for a condition's reason; a reason of a newer server stays as it is. */
export function reasonText(reason: string): string {
  return REASONS[reason] ?? reason;
}

/** How a sandbox came to run, in words: `warm, 4 ms`. */
export function startText(status: Sandbox["status"]): string | null {
  if (status.start == null) return null;
  const ms = status.startedAfterMs;
  if (ms == null) return status.start;
  return `${status.start}, ${ms < 10 ? ms.toFixed(1) : ms < 1000 ? String(Math.round(ms)) : `${(ms / 1000).toFixed(1)} s`}${ms < 1000 ? " ms" : ""}`;
}

/** Why it is where it is, when that needs saying. */
export function trouble(status: Pick<Sandbox["status"], "lifecycleState" | "conditions"> & { exitCode?: number | null; outOfMemory?: boolean | null }): string | null {
  const telling = status.conditions.find((condition) => condition.status === "False" && condition.message !== "");
  switch (status.lifecycleState) {
    case "failed":
    case "not_ready": {
      const parts = [
        status.outOfMemory === true ? "It used more memory than it has." : null,
        telling ? sentence(`${reasonText(telling.reason)}: ${telling.message}`) : null,
        status.exitCode != null && status.exitCode !== 0 ? `Its process ended with code ${status.exitCode}.` : null,
      ].filter((part) => part !== null);
      return parts.length === 0 ? "The server gave no reason." : parts.join(" ");
    }
    case "starting":
    case "ready":
    case "stopping":
    case "stopped":
    case "declared":
    case "unknown":
      return null;
  }
}
