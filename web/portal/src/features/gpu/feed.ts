import { ApiError } from "~/api/client";
import { isFinal, type JobState, type LogEvent } from "~/api/gpu";
import type { LogRow } from "~/ui/log-view";
import { LogLines } from "./lines";

/** Of a long log this much of its end is fetched at first. */
export const TAIL_BYTES = 512 * 1024;
const AGAIN_MS = 2_000;
/** A flood is drawn this often. */
const DRAW_MS = 100;

export interface JobFeedState {
  rows: readonly LogRow[];
  phase: "loading" | "following" | "ended" | "lost" | "refused";
  error: unknown;
  /** The first byte that was asked for. */
  from: number;
  /** Lines that are there and not shown, because nobody could read so many. */
  dropped: number;
}

/** Asks for a log from a byte on, until its end. */
export type Follow = (offset: number, onEvent: (event: LogEvent) => void, signal: AbortSignal) => Promise<void>;

/** The log of a job as it grows: read while somebody looks, and taken up at the byte where it broke. */
export class JobFeed {
  private readonly listeners = new Set<() => void>();
  private readonly lines = new LogLines();
  private state: JobFeedState;
  private reading: AbortController | null = null;
  private again: ReturnType<typeof setTimeout> | null = null;
  private drawing: ReturnType<typeof setTimeout> | null = null;
  private next: number;

  constructor(
    private readonly follow: Follow,
    from: number,
    private readonly onState: (state: JobState) => void = () => undefined,
  ) {
    this.next = from;
    this.state = { rows: [], phase: "loading", error: null, from, dropped: 0 };
  }

  readonly read = (): JobFeedState => this.state;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    if (this.listeners.size === 1 && this.state.phase !== "ended") void this.run();
    return () => {
      this.listeners.delete(listener);
      if (this.listeners.size > 0) return;
      this.reading?.abort();
      this.reading = null;
      if (this.again !== null) clearTimeout(this.again);
      if (this.drawing !== null) clearTimeout(this.drawing);
      this.again = this.drawing = null;
    };
  };

  private set(part: Partial<JobFeedState>): void {
    this.state = { ...this.state, ...part };
    for (const listener of this.listeners) listener();
  }

  private draw(part: Partial<JobFeedState> = {}): void {
    if (this.drawing !== null) clearTimeout(this.drawing);
    this.drawing = null;
    this.set({ rows: this.lines.rows(), dropped: this.lines.dropped, ...part });
  }

  private take(offset: number, bytes: Uint8Array): void {
    // What is here already came twice; what is missing was not kept.
    const known = Math.max(0, this.next - offset);
    if (known >= bytes.length) return;
    this.lines.push(bytes.subarray(known));
    this.next = offset + bytes.length;
    this.drawing ??= setTimeout(() => {
      this.draw({ phase: "following", error: null });
    }, DRAW_MS);
  }

  private async run(): Promise<void> {
    const reading = new AbortController();
    this.reading = reading;
    // A job that is over says so first, and what it printed follows: only a stream that brings nothing more is the end.
    const told = { isOver: false, hasMore: false };
    try {
      await this.follow(
        this.next,
        (event) => {
          if (reading.signal.aborted) return;
          switch (event.type) {
            case "open":
              if (this.state.phase !== "following") this.set({ phase: "following", error: null });
              return;
            case "log":
              told.hasMore = true;
              this.take(event.offset, event.bytes);
              return;
            case "state":
              told.isOver = isFinal(event.state);
              told.hasMore = false;
              this.onState(event.state);
              return;
          }
        },
        reading.signal,
      );
      if (reading.signal.aborted) return;
      if (told.isOver && told.hasMore) {
        void this.run();
        return;
      }
      if (told.isOver) {
        this.lines.finish();
        this.draw({ phase: "ended", error: null });
        return;
      }
      // The server let go of a job that is not over: ask again where this ended.
      this.draw();
      this.again = setTimeout(() => void this.run(), AGAIN_MS);
    } catch (error) {
      if (reading.signal.aborted) return;
      // Nothing that comes later will change a refusal.
      const isRefused = error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 429;
      this.draw({ phase: isRefused ? "refused" : "lost", error });
      if (isRefused) return;
      this.again = setTimeout(() => void this.run(), AGAIN_MS);
    }
  }
}
