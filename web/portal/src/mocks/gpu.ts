import { http, HttpResponse } from "msw";
import type { GpuSettings, Inference, Job, UsageRow, Worker } from "~/api/gpu";
import { me } from "./data";
import { fault } from "./fault";

const ago = (seconds: number) => new Date(Date.now() - seconds * 1000).toISOString();
const GIB = 1024 ** 3;

export const okay = (value: unknown, status = 200) => HttpResponse.json({ success: true, data: value }, { status });
export const refusal = (status: number, code: string, message: string) => HttpResponse.json({ success: false, error: message, fault: fault(code, message) }, { status });

export const JOB_ID = "job_0196a0c2d7e57b4c9a10f2b3c4d5e601";

export function job(part: Partial<Job> = {}): Job {
  return {
    id: JOB_ID,
    owner_id: me.id,
    vm_id: null,
    state: "running",
    phase: "running",
    phase_note: null,
    image: "docker.io/library/python:3.13-slim",
    command: ["python", "train.py", "--note", "two words"],
    env: { EPOCHS: "3" },
    datasets: [],
    pool: "default",
    priority: 0,
    rerun: false,
    attempt: 1,
    worker_id: "gx10-a",
    ahead: 0,
    time_limit_seconds: 86_400,
    memory_bytes: null,
    exit_code: null,
    error_code: null,
    error_msg: null,
    log_end: 0,
    log_bytes: 0,
    log_truncated: false,
    artifact_bytes: null,
    artifact_note: null,
    queued_at: ago(150),
    started_at: ago(120),
    finished_at: null,
    ...part,
  };
}

const over = { phase: null, finished_at: ago(600) } as const;

export function jobs(): Job[] {
  return [
    job({ id: "job_0196a0c2d7e57b4c9a10f2b3c4d5e605", state: "queued", phase: null, worker_id: null, started_at: null, attempt: 0, ahead: 1, queued_at: ago(20), command: "echo one | wc -c", owner_id: "usr_0196a0c2d7e57b4c9a10f2b3c4d5ffff" }),
    job(),
    job({ id: "job_0196a0c2d7e57b4c9a10f2b3c4d5e602", ...over, state: "succeeded", exit_code: 0, artifact_bytes: 5 * 1024 ** 2, queued_at: ago(4000), started_at: ago(3900) }),
    job({ id: "job_0196a0c2d7e57b4c9a10f2b3c4d5e603", ...over, state: "failed", exit_code: 137, error_code: "gpu.out_of_memory", error_msg: "It used more than 2 GiB.", queued_at: ago(5000), started_at: ago(4900) }),
    job({ id: "job_0196a0c2d7e57b4c9a10f2b3c4d5e604", ...over, state: "cancelled", queued_at: ago(6000), started_at: null, worker_id: null }),
  ];
}

export function worker(part: Partial<Worker> = {}): Worker {
  return {
    id: "gx10-a",
    pool: "default",
    state: "online",
    standing: "active",
    job_id: JOB_ID,
    busy: part.job_id !== null,
    address: "10.0.0.9",
    model: "microsoft/Phi-3-mini-4k-instruct",
    base_url: "http://10.0.0.9:8000",
    gpus: [{ name: "NVIDIA GB10", driver: "580.95", memory_bytes: 128 * GIB, memory_used_bytes: 61 * GIB, utilisation_percent: 87, temperature_celsius: 61, power_watts: 92 }],
    arch: "aarch64",
    cpus: 20,
    memory_bytes: 128 * GIB,
    disk_free_bytes: 800 * GIB,
    version: "0.1.0",
    link: "nats",
    trouble: null,
    seen_at: ago(1),
    paired_at: ago(86_400),
    ...part,
  };
}

export function workers(): Worker[] {
  return [worker(), worker({ id: "gx10-b", state: "silent", job_id: null, link: "http", seen_at: ago(40) })];
}

export const inference: Inference = {
  enabled: true,
  base_url: "http://nimbus.test/api/gpu/v1",
  status: "up",
  model: "microsoft/Phi-3-mini-4k-instruct",
  models: ["microsoft/Phi-3-mini-4k-instruct", "lora-tickets"],
  checked_at: ago(3),
};

export const settings: GpuSettings = {
  enabled: true,
  base_url: "http://10.0.0.9:8000",
  inference_model: "microsoft/Phi-3-mini-4k-instruct",
  configured: true,
  job_quota: 5,
  workers: ["gx10-a", "gx10-b"],
};

export function usage(): UsageRow[] {
  return [
    { day: ago(0).slice(0, 10), user_id: me.id, model: inference.model ?? "", requests: 12, prompt_tokens: 3_000, completion_tokens: 9_400, estimated: false },
    { day: ago(86_400).slice(0, 10), user_id: me.id, model: inference.model ?? "", requests: 3, prompt_tokens: 100, completion_tokens: 500, estimated: true },
  ];
}

export const PAIRING = { token: "ab".repeat(24), expires_in_seconds: 300, curl: `curl -fsSL "http://nimbus.test/api/gpu/install.sh?token=${"ab".repeat(24)}" | sudo bash` };

/** An event stream with these parts, ended unless it is to stay open. */
export function stream(parts: readonly string[], isOpen = false): HttpResponse<ReadableStream<Uint8Array>> {
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const part of parts) controller.enqueue(encoder.encode(part));
      if (!isOpen) controller.close();
    },
  });
  return new HttpResponse(body, { headers: { "content-type": "text/event-stream" } });
}

export const logEvent = (offset: number, text: string) => `id: ${offset + new TextEncoder().encode(text).length}\nevent: log\ndata: ${JSON.stringify({ offset, text })}\n\n`;
export const stateEvent = (state: string) => `event: state\ndata: ${JSON.stringify({ state })}\n\n`;

export const gpuHandlers = [
  http.get("*/api/gpu/inference", () => okay(inference)),
  http.get("*/api/gpu/jobs", () => okay(jobs())),
  http.get("*/api/gpu/jobs/:id", ({ params }) => {
    const found = jobs().find((each) => each.id === params["id"]);
    return found ? okay(found) : refusal(404, "op.not_found", "there is no such job");
  }),
  http.get("*/api/gpu/jobs/:id/logs", () => stream([logEvent(0, "epoch 1\n"), logEvent(8, "\u001b[31mloss\u001b[0m 0.4\n")], true)),
  http.get("*/api/gpu/workers", () => okay(workers())),
  http.get("*/api/gpu/usage", () => okay(usage())),
  http.get("*/api/settings/gpu", () => okay(settings)),
  http.post("*/api/settings/gpu/pairing", () => okay(PAIRING)),
];
