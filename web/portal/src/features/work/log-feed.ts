import { decoded, readLog, type LogSource } from "~/api/workloads";
import type { LogRow } from "~/ui/log-view";

const TAIL = 500;
/** More than this is nobody's to read; the rest stays on the server. */
const KEEP = 10_000;
const AGAIN_MS = 3_000;

export interface FeedState {
  rows: readonly LogRow[];
  phase: "loading" | "following" | "ended" | "lost";
  error: unknown;
}

/** A log as it grows. It is read while somebody looks at it, and taken up again where it broke. */
export class LogFeed {
  private readonly listeners = new Set<() => void>();
  private state: FeedState = { rows: [], phase: "loading", error: null };
  private reading: AbortController | null = null;
  private timer: ReturnType<typeof setTimeout> | null = null;
  private next = 0;

  constructor(
    private readonly source: LogSource,
    private readonly follow: boolean,
  ) {}

  readonly read = (): FeedState => this.state;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    if (this.listeners.size === 1) void this.run();
    return () => {
      this.listeners.delete(listener);
      if (this.listeners.size > 0) return;
      this.reading?.abort();
      this.reading = null;
      if (this.timer !== null) clearTimeout(this.timer);
    };
  };

  private set(part: Partial<FeedState>): void {
    this.state = { ...this.state, ...part };
    for (const listener of this.listeners) listener();
  }

  private async run(): Promise<void> {
    const reading = new AbortController();
    this.reading = reading;
    // Every read begins with the last lines again, so what was shown before gives way to them.
    let fresh = true;
    const take = (more: LogRow[]) => {
      const before = fresh ? [] : this.state.rows;
      fresh = false;
      this.set({ rows: [...before, ...more].slice(-KEEP), phase: this.follow ? "following" : this.state.phase, error: null });
    };
    try {
      await readLog(
        this.source,
        { tail: TAIL, follow: this.follow },
        (lines) => {
          take(
            lines.map((line) => ({ id: (this.next += 1), at: line.ts, loud: line.stream === "stderr", text: decoded(line.data, line.encoding) })),
          );
        },
        reading.signal,
      );
      // Nothing came at all: what was shown before is no longer true.
      take([]);
      this.set({ phase: "ended" });
    } catch (error) {
      if (reading.signal.aborted) return;
      this.set({ phase: "lost", error });
      this.timer = setTimeout(() => void this.run(), AGAIN_MS);
    }
  }
}
