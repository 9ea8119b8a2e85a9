import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ApiError } from "~/api/client";
import type { JobState, LogEvent } from "~/api/gpu";
import { JobFeed } from "./feed";

const encoder = new TextEncoder();

/** A server of logs that a test drives: each ask is held until it is answered. */
class Asked {
  readonly offsets: number[] = [];
  private on: ((event: LogEvent) => void) | null = null;
  private settle: { end: () => void; fail: (error: unknown) => void } | null = null;

  readonly follow = (offset: number, onEvent: (event: LogEvent) => void, signal: AbortSignal): Promise<void> => {
    this.offsets.push(offset);
    this.on = onEvent;
    return new Promise((resolve, reject) => {
      this.settle = { end: resolve, fail: reject };
      signal.addEventListener("abort", () => {
        reject(new DOMException("aborted", "AbortError"));
      });
    });
  };
  log(offset: number, text: string): void {
    this.on?.({ type: "log", offset, bytes: encoder.encode(text) });
  }
  state(state: JobState): void {
    this.on?.({ type: "state", state });
  }
  async end(): Promise<void> {
    this.settle?.end();
    await vi.advanceTimersByTimeAsync(0);
  }
  async fail(error: unknown): Promise<void> {
    this.settle?.fail(error);
    await vi.advanceTimersByTimeAsync(0);
  }
}

const shown = (feed: JobFeed) => feed.read().rows.map((row) => row.text);

describe("the log of a job", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it("is taken up at the byte where it broke, and shows nothing twice", async () => {
    const asked = new Asked();
    const feed = new JobFeed(asked.follow, 0);
    const stop = feed.subscribe(() => undefined);
    asked.log(0, "one\ntw");
    await asked.fail(new ApiError(0, "gone", null));
    expect(feed.read().phase).toBe("lost");
    expect(shown(feed)).toEqual(["one", "tw"]);
    await vi.advanceTimersByTimeAsync(5_000);
    expect(asked.offsets).toEqual([0, 6]);
    // A server that begins earlier than asked repeats what is here.
    asked.log(4, "two\nthree\n");
    await vi.advanceTimersByTimeAsync(200);
    expect(shown(feed)).toEqual(["one", "two", "three"]);
    expect(feed.read().phase).toBe("following");
    stop();
  });

  it("asks again when the stream ends before the job, and no more after it", async () => {
    const asked = new Asked();
    const states: JobState[] = [];
    const feed = new JobFeed(asked.follow, 0, (state) => states.push(state));
    const stop = feed.subscribe(() => undefined);
    asked.state("running");
    asked.log(0, "a\n");
    await asked.end();
    await vi.advanceTimersByTimeAsync(5_000);
    expect(asked.offsets).toEqual([0, 2]);
    asked.log(2, "the end");
    asked.state("succeeded");
    await asked.end();
    expect(feed.read().phase).toBe("ended");
    expect(shown(feed)).toEqual(["a", "the end"]);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(asked.offsets).toHaveLength(2);
    expect(states).toEqual(["running", "succeeded"]);
    stop();
  });

  it("takes a log that is told after the end for whole only when nothing more comes", async () => {
    const asked = new Asked();
    const feed = new JobFeed(asked.follow, 0);
    const stop = feed.subscribe(() => undefined);
    asked.state("failed");
    asked.log(0, "half ");
    // The server goes away in the middle, as politely as it would at the end.
    await asked.end();
    expect(asked.offsets).toEqual([0, 5]);
    asked.state("failed");
    asked.log(5, "whole");
    await asked.end();
    asked.state("failed");
    await asked.end();
    expect(asked.offsets).toEqual([0, 5, 10]);
    expect(feed.read().phase).toBe("ended");
    expect(shown(feed)).toEqual(["half whole"]);
    stop();
  });

  it("does not insist where it was refused, and draws a flood in a few strokes", async () => {
    const asked = new Asked();
    const feed = new JobFeed(asked.follow, 0);
    let drawn = 0;
    const stop = feed.subscribe(() => {
      drawn += 1;
    });
    for (let at = 0; at < 1_000; at += 1) asked.log(at * 2, "x\n");
    await vi.advanceTimersByTimeAsync(100);
    expect(drawn).toBe(1);
    expect(feed.read().rows).toHaveLength(1_000);
    await asked.fail(new ApiError(404, "there is no such job", null));
    expect(feed.read().phase).toBe("refused");
    await vi.advanceTimersByTimeAsync(60_000);
    expect(asked.offsets).toEqual([0]);
    stop();
  });
});
