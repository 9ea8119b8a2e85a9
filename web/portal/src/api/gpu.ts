/**
 * GPU jobs, the boxes that run them, and the models that answer there: the shapes of their routes and the calls.
 * What a newer server says and this page does not know is shown as unknown rather than refused.
 */
import { ApiError, ask, open, type Call } from "./client";
import { sentence } from "~/ui/format";
import type { components } from "./schema";
import { readEvents } from "./sse";

type S = components["schemas"];

export const JOB_STATES = ["queued", "running", "succeeded", "failed", "cancelled"] as const;
export type JobState = (typeof JOB_STATES)[number] | "unknown";
export const PHASES = ["assigned", "pulling", "running", "ending"] as const;
/** How far its worker is with a running job. */
export type Phase = (typeof PHASES)[number];

/** A line for the image's shell, exact words, or what the image says. */
export type Command = string | string[] | null;

export interface Dataset {
  name: string;
  writable: boolean;
}

export interface Job {
  id: string;
  owner_id: string;
  owner_name?: string | null;
  vm_id: string | null;
  state: JobState;
  phase: Phase | null;
  phase_note: string | null;
  image: string;
  command: Command;
  env: Record<string, string>;
  datasets: Dataset[];
  pool: string;
  priority: number;
  rerun: boolean;
  attempt: number;
  worker_id: string | null;
  /** How many jobs go before it. */
  ahead: number;
  time_limit_seconds: number | null;
  memory_bytes: number | null;
  exit_code: number | null;
  error_code: string | null;
  error_msg: string | null;
  /** Bytes of the log that are kept, and that were printed. */
  log_end: number;
  log_bytes: number;
  log_truncated: boolean;
  artifact_bytes: number | null;
  artifact_note: string | null;
  queued_at: string;
  started_at: string | null;
  finished_at: string | null;
}

export interface SubmitJob {
  image: string;
  command?: string | string[];
  env?: Record<string, string>;
  pool?: string;
  datasets?: Dataset[];
  time_limit_seconds?: number;
  memory_bytes?: number;
  priority?: number;
  rerun?: boolean;
}

export const WORKER_STATES = ["online", "silent", "lost", "new"] as const;
/** Whether a box is heard of. */
export type WorkerState = (typeof WORKER_STATES)[number] | "unknown";
export const STANDINGS = ["active", "paused", "draining"] as const;
/** Whether it shall take jobs. */
export type Standing = (typeof STANDINGS)[number];

export interface Gpu {
  name: string;
  driver: string;
  /** 0 where it shares the memory of the box. */
  memory_bytes: number;
  memory_used_bytes: number | null;
  utilisation_percent: number | null;
  temperature_celsius: number | null;
  power_watts: number | null;
}

export interface Worker {
  id: string;
  pool: string;
  state: WorkerState;
  standing: Standing;
  /** What it runs; only administrators are told. */
  job_id: string | null;
  /** Whether it runs something; null where that is not told. */
  busy: boolean | null;
  address: string;
  model: string;
  base_url: string;
  gpus: Gpu[];
  arch: string | null;
  cpus: number | null;
  memory_bytes: number | null;
  disk_free_bytes: number | null;
  version: string | null;
  link: string | null;
  /** Why it cannot take jobs now. */
  trouble: string | null;
  seen_at: string | null;
  paired_at: string;
}

export interface Inference {
  enabled: boolean;
  base_url: string | null;
  status: "up" | "down" | "unconfigured";
  model: string | null;
  models: string[];
  checked_at: string | null;
}

export interface GpuSettings {
  enabled: boolean;
  base_url: string;
  inference_model: string;
  configured: boolean;
  job_quota: number;
  workers: string[];
}

export interface ChangeSettings {
  enabled: boolean;
  base_url: string;
  inference_model: string;
  api_key?: string;
  job_quota?: number;
}

export interface Pairing {
  token: string;
  expires_in_seconds: number;
  curl: string;
}

export interface Unpaired {
  cancelled_jobs: number;
  cleanup_cmd: string;
}

/** What somebody used of a model on a day. */
export interface UsageRow {
  day: string;
  user_id: string;
  user_name?: string | null;
  model: string;
  requests: number;
  prompt_tokens: number;
  completion_tokens: number;
  estimated: boolean;
}

/** Nothing that is read below may be missing from the API's own document. */
type Documented<Ours, Theirs> = Exclude<keyof Ours, keyof Theirs> extends never ? true : never;
export const DOCUMENTED: readonly [
  Documented<Omit<Job, "owner_name">, S["GpuJobView"]>,
  Documented<SubmitJob, S["SubmitBody"]>,
  Documented<Worker, S["GpuWorkerView"]>,
  Documented<Gpu, S["GpuView"]>,
  Documented<Inference, S["InferenceView"]>,
  Documented<GpuSettings, S["GpuSettingsView"]>,
  Documented<Pairing, S["PairingView"]>,
  Documented<Unpaired, S["UnpairedView"]>,
  Documented<Omit<UsageRow, "user_name">, S["UsageView"]>,
] = [true, true, true, true, true, true, true, true, true];

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function broken(what: string): ApiError {
  return new ApiError(0, `The server's answer is no ${what} that this page can read.`, null);
}

/** What an answer carries. */
function data(value: unknown): unknown {
  return isRecord(value) ? value["data"] : undefined;
}

function list<T>(value: unknown, read: (item: unknown) => T): T[] {
  return Array.isArray(value) ? value.map(read) : [];
}
const text = (value: unknown): string | null => (typeof value === "string" && value !== "" ? value : null);
const amount = (value: unknown): number | null => (typeof value === "number" ? value : null);
const known = <K extends string, O>(values: readonly K[], value: unknown, otherwise: O): K | O => values.find((each) => each === value) ?? otherwise;

function toCommand(value: unknown): Command {
  if (Array.isArray(value)) return value.map(String);
  return typeof value === "string" ? value : null;
}

function toVariables(value: unknown): Record<string, string> {
  return isRecord(value) ? Object.fromEntries(Object.entries(value).map(([name, each]) => [name, String(each)])) : {};
}

export function toJob(value: unknown): Job {
  if (!isRecord(value) || typeof value["id"] !== "string" || typeof value["image"] !== "string" || typeof value["queued_at"] !== "string") throw broken("job");
  return {
    id: value["id"],
    owner_id: text(value["owner_id"]) ?? "",
    owner_name: text(value["owner_name"]),
    vm_id: text(value["vm_id"]),
    state: known(JOB_STATES, value["state"], "unknown"),
    phase: known(PHASES, value["phase"], null),
    phase_note: text(value["phase_note"]),
    image: value["image"],
    command: toCommand(value["command"]),
    env: toVariables(value["env"]),
    datasets: list(value["datasets"], (item) => ({ name: isRecord(item) ? String(item["name"]) : "", writable: isRecord(item) && item["writable"] === true })),
    pool: text(value["pool"]) ?? "default",
    priority: amount(value["priority"]) ?? 0,
    rerun: value["rerun"] === true,
    attempt: amount(value["attempt"]) ?? 0,
    worker_id: text(value["worker_id"]),
    ahead: amount(value["ahead"]) ?? 0,
    time_limit_seconds: amount(value["time_limit_seconds"]),
    memory_bytes: amount(value["memory_bytes"]),
    exit_code: amount(value["exit_code"]),
    error_code: text(value["error_code"]),
    error_msg: text(value["error_msg"]),
    log_end: amount(value["log_end"]) ?? 0,
    log_bytes: amount(value["log_bytes"]) ?? 0,
    log_truncated: value["log_truncated"] === true,
    artifact_bytes: amount(value["artifact_bytes"]),
    artifact_note: text(value["artifact_note"]),
    queued_at: value["queued_at"],
    started_at: text(value["started_at"]),
    finished_at: text(value["finished_at"]),
  };
}

function toGpu(value: unknown): Gpu {
  const gpu = isRecord(value) ? value : {};
  return {
    name: text(gpu["name"]) ?? "GPU",
    driver: text(gpu["driver"]) ?? "",
    memory_bytes: amount(gpu["memory_bytes"]) ?? 0,
    memory_used_bytes: amount(gpu["memory_used_bytes"]),
    utilisation_percent: amount(gpu["utilisation_percent"]),
    temperature_celsius: amount(gpu["temperature_celsius"]),
    power_watts: amount(gpu["power_watts"]),
  };
}

export function toWorker(value: unknown): Worker {
  if (!isRecord(value) || typeof value["id"] !== "string" || typeof value["paired_at"] !== "string") throw broken("worker");
  return {
    id: value["id"],
    pool: text(value["pool"]) ?? "default",
    state: known(WORKER_STATES, value["state"], "unknown"),
    standing: known(STANDINGS, value["standing"], "active"),
    job_id: text(value["job_id"]),
    busy: typeof value["busy"] === "boolean" ? value["busy"] : text(value["job_id"]) === null ? null : true,
    address: text(value["address"]) ?? "",
    model: text(value["model"]) ?? "",
    base_url: text(value["base_url"]) ?? "",
    gpus: list(value["gpus"], toGpu),
    arch: text(value["arch"]),
    cpus: amount(value["cpus"]),
    memory_bytes: amount(value["memory_bytes"]),
    disk_free_bytes: amount(value["disk_free_bytes"]),
    version: text(value["version"]),
    link: text(value["link"]),
    trouble: text(value["trouble"]),
    seen_at: text(value["seen_at"]),
    paired_at: value["paired_at"],
  };
}

function toInference(value: unknown): Inference {
  if (!isRecord(value)) throw broken("state of inference");
  return {
    enabled: value["enabled"] === true,
    base_url: text(value["base_url"]),
    status: known(["up", "down", "unconfigured"] as const, value["status"], "down"),
    model: text(value["model"]),
    models: list(value["models"], String),
    checked_at: text(value["checked_at"]),
  };
}

function toSettings(value: unknown): GpuSettings {
  if (!isRecord(value)) throw broken("set of settings");
  return {
    enabled: value["enabled"] === true,
    base_url: text(value["base_url"]) ?? "",
    inference_model: text(value["inference_model"]) ?? "",
    configured: value["configured"] === true,
    job_quota: amount(value["job_quota"]) ?? 0,
    workers: list(value["workers"], String),
  };
}

function toPairing(value: unknown): Pairing {
  if (!isRecord(value) || typeof value["curl"] !== "string" || typeof value["expires_in_seconds"] !== "number") throw broken("pairing token");
  return { token: text(value["token"]) ?? "", curl: value["curl"], expires_in_seconds: value["expires_in_seconds"] };
}

function toUnpaired(value: unknown): Unpaired {
  if (!isRecord(value) || typeof value["cleanup_cmd"] !== "string") throw broken("report");
  return { cancelled_jobs: amount(value["cancelled_jobs"]) ?? 0, cleanup_cmd: value["cleanup_cmd"] };
}

function toUsage(value: unknown): UsageRow {
  if (!isRecord(value) || typeof value["day"] !== "string") throw broken("list of usage");
  return {
    day: value["day"],
    user_id: text(value["user_id"]) ?? "",
    user_name: text(value["user_name"]),
    model: text(value["model"]) ?? "",
    requests: amount(value["requests"]) ?? 0,
    prompt_tokens: amount(value["prompt_tokens"]) ?? 0,
    completion_tokens: amount(value["completion_tokens"]) ?? 0,
    estimated: value["estimated"] === true,
  };
}

const call = <T>(path: string, read: (value: unknown) => T, request: Call = {}): Promise<T> => ask(path, (value) => read(data(value)), request);
const jobPath = (id: string) => `/api/gpu/jobs/${encodeURIComponent(id)}`;
const workerPath = (id: string) => `/api/gpu/workers/${encodeURIComponent(id)}`;

const PAGE = 200;
/** More jobs than this are nobody's to look through. */
const MOST = 1_000;

/** Newest first; all pages up to a bound, because the portal filters on its own side. */
async function jobs(): Promise<Job[]> {
  const all: Job[] = [];
  let cursor: string | null = null;
  do {
    const page: { jobs: Job[]; next: string | null } = await ask(
      "/api/gpu/jobs",
      (value) => ({ jobs: list(data(value), toJob), next: isRecord(value) ? text(value["next_cursor"]) : null }),
      { query: { limit: PAGE, cursor: cursor ?? undefined } },
    );
    all.push(...page.jobs);
    cursor = page.next;
  } while (cursor !== null && all.length < MOST);
  return all;
}

export const gpu = {
  jobs,
  job: (id: string) => call(jobPath(id), toJob),
  submit: (job: SubmitJob, key: string) => call("/api/gpu/jobs", toJob, { method: "POST", body: job, headers: { "Idempotency-Key": key } }),
  cancel: (id: string) => call(`${jobPath(id)}/cancel`, toJob, { method: "POST" }),
  prioritize: (id: string, priority: number) => call(jobPath(id), toJob, { method: "PATCH", body: { priority } satisfies S["PrioritizeBody"] }),

  workers: () => call("/api/gpu/workers", (value) => list(value, toWorker)),
  setWorker: (id: string, change: { standing?: Standing; pool?: string }) => call(workerPath(id), toWorker, { method: "PATCH", body: change satisfies S["WorkerBody"] }),
  unpair: (id: string) => call(workerPath(id), toUnpaired, { method: "DELETE" }),

  inference: () => call("/api/gpu/inference", toInference),
  usage: (days: number, everybody: boolean) => call("/api/gpu/usage", (value) => list(value, toUsage), { query: { days, all: everybody ? true : undefined } }),

  settings: () => call("/api/settings/gpu", toSettings),
  saveSettings: (change: ChangeSettings) => call("/api/settings/gpu", toSettings, { method: "PUT", body: change satisfies S["GpuSettingsBody"] }),
  pair: () => call("/api/settings/gpu/pairing", toPairing, { method: "POST" }),
  rotate: (worker: string) => call(`/api/settings/gpu/workers/${encodeURIComponent(worker)}/rotate`, toPairing, { method: "POST" }),
};

export function artifactUrl(id: string): string {
  return `${jobPath(id)}/artifact`;
}
export function logUrl(id: string): string {
  return `${jobPath(id)}/logs`;
}

export type LogEvent = { type: "open" } | { type: "log"; offset: number; bytes: Uint8Array } | { type: "state"; state: JobState };

export function isFinal(state: JobState): boolean {
  return state === "succeeded" || state === "failed" || state === "cancelled";
}

function toLogEvent(event: string, text: string): LogEvent | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isRecord(value)) return null;
  if (event === "state") return { type: "state", state: known(JOB_STATES, value["state"], "unknown") };
  const offset = amount(value["offset"]);
  if (event !== "log" || offset === null) return null;
  if (typeof value["text"] === "string") return { type: "log", offset, bytes: new TextEncoder().encode(value["text"]) };
  if (typeof value["base64"] !== "string") return null;
  return { type: "log", offset, bytes: Uint8Array.from(atob(value["base64"]), (char) => char.charCodeAt(0)) };
}

/** Why a log that was followed is no longer told: nothing that asking again would change. */
function refusal(text: string): ApiError {
  let message = "The server does not tell this log any more.";
  try {
    const value: unknown = JSON.parse(text);
    if (isRecord(value) && typeof value["message"] === "string") message = sentence(value["message"]);
  } catch {
    // What cannot be read is a refusal all the same.
  }
  return new ApiError(410, message, null);
}

/** The log of a job from a byte on, until the job is over or `signal` says so. */
export async function followLog(id: string, offset: number, onEvent: (event: LogEvent) => void, signal: AbortSignal): Promise<void> {
  const answer = await open(logUrl(id), { query: { follow: true, offset }, headers: { accept: "text/event-stream" }, signal });
  onEvent({ type: "open" });
  if (answer.body === null) return;
  await readEvents(answer.body, (message) => {
    if (message.event === "error") throw refusal(message.data);
    const found = toLogEvent(message.event, message.data);
    if (found !== null) onEvent(found);
  });
}

export interface ChatMessage {
  role: "system" | "user" | "assistant";
  content: string;
}

export interface ChatRequest {
  model: string;
  messages: ChatMessage[];
  temperature?: number;
  max_tokens?: number;
}

export interface ChatUsage {
  prompt_tokens: number;
  completion_tokens: number;
}

/** What a model says, piece by piece as it comes. Answers with what it cost, when the model says so. */
export async function chat(request: ChatRequest, onPiece: (text: string) => void, signal: AbortSignal): Promise<ChatUsage | null> {
  const answer = await open("/api/gpu/v1/chat/completions", {
    method: "POST",
    body: { ...request, stream: true, stream_options: { include_usage: true } },
    headers: { accept: "text/event-stream" },
    signal,
  });
  const end: { usage: ChatUsage | null; refused: string | null } = { usage: null, refused: null };
  if (answer.body === null) return null;
  await readEvents(answer.body, ({ data: text }) => {
    if (text === "[DONE]") return;
    let piece: unknown;
    try {
      piece = JSON.parse(text);
    } catch {
      return;
    }
    if (!isRecord(piece)) return;
    const { choices, usage: cost, error } = piece;
    if (isRecord(error) && typeof error["message"] === "string") end.refused = error["message"];
    const first: unknown = Array.isArray(choices) ? choices[0] : undefined;
    const delta = isRecord(first) ? first["delta"] : undefined;
    if (isRecord(delta) && typeof delta["content"] === "string" && delta["content"] !== "") onPiece(delta["content"]);
    if (isRecord(cost)) end.usage = { prompt_tokens: amount(cost["prompt_tokens"]) ?? 0, completion_tokens: amount(cost["completion_tokens"]) ?? 0 };
  });
  // A model may fail in the middle of what it says, long after the answer began well.
  if (end.refused !== null) throw new ApiError(502, end.refused, null);
  return end.usage;
}
