import type { Command, Job, JobState, Standing, Worker, WorkerState } from "~/api/gpu";
import { quoteWord } from "~/features/sandboxes/argv";
import { duration, plural } from "~/ui/format";
import type { Tone } from "~/ui/status";
import type { StepItem } from "~/ui/steps";

interface Look {
  label: string;
  tone: Tone;
  moving: boolean;
}

export const JOB: Record<JobState, Look> = {
  queued: { label: "Queued", tone: "wait", moving: false },
  running: { label: "Running", tone: "info", moving: true },
  succeeded: { label: "Succeeded", tone: "good", moving: false },
  failed: { label: "Failed", tone: "bad", moving: false },
  cancelled: { label: "Cancelled", tone: "idle", moving: false },
  unknown: { label: "Unknown", tone: "wait", moving: false },
};

export const WORKER: Record<WorkerState, Look> = {
  online: { label: "Online", tone: "good", moving: false },
  silent: { label: "Silent", tone: "wait", moving: true },
  lost: { label: "Lost", tone: "bad", moving: false },
  new: { label: "Not heard yet", tone: "info", moving: true },
  unknown: { label: "Unknown", tone: "wait", moving: false },
};

export type JobVerb = "cancel" | "prioritize" | "artifact";

const OVER = "It is over.";

/** What may be done with a job in which state: null when it may, else the reason why not. */
const MAY: Record<JobState, Record<JobVerb, string | null>> = {
  queued: { cancel: null, prioritize: null, artifact: "It has not run yet." },
  running: { cancel: null, prioritize: "A worker has it already.", artifact: "It is kept when the job ends." },
  succeeded: { cancel: OVER, prioritize: OVER, artifact: null },
  failed: { cancel: OVER, prioritize: OVER, artifact: null },
  cancelled: { cancel: OVER, prioritize: OVER, artifact: "Nothing is kept of a job that was cancelled." },
  unknown: { cancel: null, prioritize: "Its state is unknown.", artifact: null },
};

export function jobRefusal(job: Job, verb: JobVerb): string | null {
  return MAY[job.state][verb];
}

export type WorkerVerb = "pause" | "drain" | "resume";

const STANDING: Record<Standing, Record<WorkerVerb, string | null>> = {
  active: { pause: null, drain: null, resume: "It takes jobs." },
  paused: { pause: "It is paused.", drain: "It is paused.", resume: null },
  draining: { pause: null, drain: "It is draining.", resume: null },
};

export function workerRefusal(worker: Worker, verb: WorkerVerb): string | null {
  if (verb === "drain" && worker.standing === "active" && worker.job_id === null) return "It runs nothing: pause it.";
  return STANDING[worker.standing][verb];
}

/** What a running or waiting job does just now; null where its state says everything. */
export function doing(job: Job): string | null {
  if (job.state === "queued") {
    if (job.attempt > 0) return "queued again, because its worker was lost";
    return job.ahead === 0 ? "next in the queue" : `${plural(job.ahead, "job")} before it`;
  }
  if (job.state !== "running") return null;
  switch (job.phase) {
    case "assigned":
    case null:
      return "given to its worker";
    case "pulling":
      return job.phase_note === null ? "pulling the image" : `pulling the image, ${job.phase_note}`;
    case "running":
      return null;
    case "ending":
      return "sending what it left";
  }
}

/** How long its container ran, or has run. */
export function ranMs(job: Job, now: number): number | null {
  if (job.started_at === null) return null;
  return Math.max(0, (job.finished_at === null ? now : Date.parse(job.finished_at)) - Date.parse(job.started_at));
}

export function waitedMs(job: Job, now: number): number {
  return Math.max(0, Date.parse(job.started_at ?? job.finished_at ?? new Date(now).toISOString()) - Date.parse(job.queued_at));
}

/** The way of a job that is not over, from the queue to its end. */
export function stepsOf(job: Job): StepItem[] {
  const order = ["queued", "assigned", "pulling", "running", "ending"] as const;
  const at = job.state === "queued" ? 0 : order.indexOf(job.phase ?? (job.started_at === null ? "assigned" : "running"));
  const step = (index: number, label: string, startedAt: string | null = null): StepItem => ({
    key: order[index] ?? "",
    label,
    state: index < at ? "done" : index === at ? "running" : "pending",
    startedAt,
    durationMs: null,
  });
  return [
    step(0, "Wait in the queue", job.queued_at),
    step(1, job.worker_id === null ? "Go to a worker" : `Go to ${job.worker_id}`),
    step(2, "Pull the image"),
    step(3, "Run", job.started_at),
    step(4, "Keep log and artifact"),
  ];
}

/** The command as one would type it. */
export function commandText(command: Command): string {
  if (command === null) return "";
  return typeof command === "string" ? command : command.map(quoteWord).join(" ");
}

export function limitText(seconds: number): string {
  const parts = [
    [Math.floor(seconds / 86_400), "d"],
    [Math.floor((seconds % 86_400) / 3600), "h"],
    [Math.floor((seconds % 3600) / 60), "min"],
    [seconds % 60, "s"],
  ] as const;
  return parts
    .filter(([count]) => count > 0)
    .slice(0, 2)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(" ");
}

const CODES: Record<string, string> = {
  "gpu.worker_lost": "Its worker was lost",
  "gpu.image_unavailable": "Its image could not be had",
  "gpu.engine_failed": "The engine on the box failed",
  "gpu.time_limit": "It reached its time limit",
  "gpu.out_of_memory": "It used more memory than it may",
};

/** Why a failed job failed, as a heading and, where there is more to say, a sentence. */
export function failure(job: Job): { title: string; text: string | null } {
  const known = job.error_code === null ? undefined : CODES[job.error_code];
  if (known !== undefined) return { title: known, text: job.error_msg };
  if (job.exit_code !== null && job.exit_code > 0) return { title: `It ended with code ${job.exit_code}`, text: job.error_msg };
  return { title: "It failed", text: job.error_msg };
}

export function ranText(job: Job, now: number): string {
  const ms = ranMs(job, now);
  return ms === null ? "–" : duration(ms);
}

/** The end of an id, which tells jobs apart: they begin with the time, which they share. */
export function jobTail(id: string): string {
  return `…${id.slice(-8)}`;
}
