import { describe, expect, it } from "vitest";
import { job, worker } from "~/mocks/gpu";
import { commandText, doing, failure, jobRefusal, limitText, stepsOf, workerRefusal } from "./rules";
import { count, perDay, totals } from "./usage-model";

describe("a job", () => {
  it("says what it does", () => {
    expect(doing(job({ state: "queued", ahead: 0, attempt: 0 }))).toBe("next in the queue");
    expect(doing(job({ state: "queued", ahead: 2, attempt: 0 }))).toBe("2 jobs before it");
    expect(doing(job({ state: "queued", ahead: 2, attempt: 1 }))).toContain("lost");
    expect(doing(job({ phase: "pulling", phase_note: "40 of 120 MiB" }))).toBe("pulling the image, 40 of 120 MiB");
    expect(doing(job())).toBeNull();
    expect(doing(job({ state: "failed" }))).toBeNull();
  });

  it("moves through its steps in order", () => {
    const states = (part: Parameters<typeof job>[0]) => stepsOf(job(part)).map((step) => step.state);
    expect(states({ state: "queued", phase: null })).toEqual(["running", "pending", "pending", "pending", "pending"]);
    expect(states({ phase: "assigned" })).toEqual(["done", "running", "pending", "pending", "pending"]);
    expect(states({ phase: "pulling" })).toEqual(["done", "done", "running", "pending", "pending"]);
    expect(states({ phase: "running" })).toEqual(["done", "done", "done", "running", "pending"]);
    // An older server tells no phase.
    expect(states({ phase: null })).toEqual(["done", "done", "done", "running", "pending"]);
    expect(states({ phase: null, started_at: null })).toEqual(["done", "running", "pending", "pending", "pending"]);
  });

  it("allows in each state what makes sense there", () => {
    expect(jobRefusal(job({ state: "queued" }), "cancel")).toBeNull();
    expect(jobRefusal(job(), "cancel")).toBeNull();
    expect(jobRefusal(job(), "prioritize")).toContain("has it already");
    expect(jobRefusal(job({ state: "succeeded" }), "cancel")).toContain("over");
    expect(jobRefusal(job({ state: "cancelled" }), "artifact")).toContain("cancelled");
  });

  it("says why it failed, the exit code last", () => {
    expect(failure(job({ error_code: "gpu.time_limit", exit_code: 137 })).title).toBe("It reached its time limit");
    expect(failure(job({ exit_code: 3 })).title).toBe("It ended with code 3");
    expect(failure(job({ error_code: "gpu.new_thing", exit_code: -1, error_msg: "Hm." }))).toEqual({ title: "It failed", text: "Hm." });
  });

  it("shows commands and limits as people write them", () => {
    expect(commandText(["sh", "-c", "it's", ""])).toBe("sh -c 'it'\\''s' ''");
    expect(commandText("a | b")).toBe("a | b");
    expect([600, 86_400, 90_061, 604_800].map(limitText)).toEqual(["10 min", "1 d", "1 d 1 h", "7 d"]);
  });
});

describe("a worker", () => {
  it("is drained at work and paused when idle", () => {
    expect(workerRefusal(worker(), "drain")).toBeNull();
    expect(workerRefusal(worker({ job_id: null }), "drain")).toContain("pause it");
    expect(workerRefusal(worker({ standing: "paused" }), "pause")).toContain("paused");
    expect(workerRefusal(worker({ standing: "draining" }), "resume")).toBeNull();
  });
});

describe("usage", () => {
  const row = (day: string, user: string, model: string, tokens: number, estimated = false) => ({ day, user_id: user, model, requests: 1, prompt_tokens: tokens, completion_tokens: tokens, estimated });

  it("adds up by person and model, most first", () => {
    const rows = totals([row("2026-05-01", "a", "m", 1), row("2026-05-02", "a", "m", 2, true), row("2026-05-02", "b", "m", 9)]);
    expect(rows.map(({ user_id, requests, prompt_tokens, estimated }) => ({ user_id, requests, prompt_tokens, estimated }))).toEqual([
      { user_id: "b", requests: 1, prompt_tokens: 9, estimated: false },
      { user_id: "a", requests: 2, prompt_tokens: 3, estimated: true },
    ]);
  });

  it("has every day, in UTC", () => {
    expect(perDay([row("2026-03-01", "a", "m", 2)], 3, Date.parse("2026-03-02T00:30:00Z"))).toEqual([
      { day: "2026-02-28", tokens: 0, requests: 0 },
      { day: "2026-03-01", tokens: 4, requests: 1 },
      { day: "2026-03-02", tokens: 0, requests: 0 },
    ]);
  });

  it("counts as people read", () => {
    expect([0, 999, 1_000, 12_400, 512_000, 3_100_000].map(count)).toEqual(["0", "999", "1.0 k", "12.4 k", "512 k", "3.1 M"]);
  });
});
