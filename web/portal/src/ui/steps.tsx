import { CheckIcon, CrossIcon, UndoIcon } from "./icons";
import { cx } from "./cx";
import { duration, elapsed } from "./format";

export type StepState = "pending" | "running" | "done" | "failed" | "undoing" | "undone";

export interface StepItem {
  key: string;
  label: string;
  state: StepState;
  startedAt: string | null;
  durationMs: number | null;
}

const WORD: Record<StepState, string> = {
  pending: "waiting",
  running: "running",
  done: "done",
  failed: "failed",
  undoing: "undoing",
  undone: "undone",
};

function Mark({ state }: { state: StepState }) {
  const base = "relative z-10 flex size-5 shrink-0 items-center justify-center rounded-full";
  switch (state) {
    case "done":
      return (
        <span className={cx(base, "bg-good-soft text-good-text")}>
          <CheckIcon width={12} height={12} />
        </span>
      );
    case "failed":
      return (
        <span className={cx(base, "bg-bad-solid text-on-accent")}>
          <CrossIcon width={12} height={12} />
        </span>
      );
    case "undoing":
    case "undone":
      return (
        <span className={cx(base, "bg-wait-soft text-wait-strong", state === "undoing" && "animate-pulse-slow")}>
          <UndoIcon width={12} height={12} />
        </span>
      );
    case "running":
      return (
        <span className={cx(base, "bg-accent-soft")}>
          <span className="size-2 animate-pulse-slow rounded-full bg-accent" />
        </span>
      );
    case "pending":
      return (
        <span className={base}>
          <span className="size-2 rounded-full border border-control bg-panel" />
        </span>
      );
  }
}

function time(step: StepItem, now: number): string {
  if (step.state === "pending") return "";
  if (step.durationMs !== null && step.state !== "running") return duration(step.durationMs);
  if (step.startedAt !== null && (step.state === "running" || step.state === "undoing")) {
    return elapsed(now - Date.parse(step.startedAt));
  }
  return "";
}

/** The live timeline. `now` comes from outside, so that one clock drives the page. */
export function Steps({ steps, now, label = "Progress" }: { steps: readonly StepItem[]; now: number; label?: string }) {
  return (
    <ol aria-label={label} className="flex flex-col">
      {steps.map((step, index) => {
        const active = step.state === "running" || step.state === "undoing";
        return (
          <li
            key={step.key}
            data-state={step.state}
            {...(active ? { "aria-current": "step" as const } : {})}
            className="relative flex items-center gap-3 py-1.5"
          >
            {index > 0 ? (
              <span
                aria-hidden="true"
                className={cx("absolute bottom-1/2 left-[9.5px] h-full w-px", step.state === "pending" ? "bg-line" : "bg-[var(--slate-6)]")}
              />
            ) : null}
            <Mark state={step.state} />
            <span
              className={cx(
                "min-w-0 flex-1 text-base",
                step.state === "pending" && "text-muted",
                active && "font-medium",
                step.state === "failed" && "font-medium text-bad-text",
                step.state === "undone" && "text-muted line-through",
              )}
            >
              {step.label}
              <span className="sr-only">, {WORD[step.state]}</span>
              {step.state === "failed" || step.state === "undoing" || step.state === "undone" ? (
                <span aria-hidden="true" className="ml-2 inline-block text-xs font-normal text-muted no-underline">
                  {WORD[step.state]}
                </span>
              ) : null}
            </span>
            <span className={cx("tabular font-mono text-xs", active ? "text-fg" : "text-muted")}>{time(step, now)}</span>
          </li>
        );
      })}
    </ol>
  );
}

/** What a screen reader hears when the steps move: one sentence, not the whole list. */
export function announce(steps: readonly StepItem[]): string {
  const failed = steps.find((step) => step.state === "failed");
  if (failed) return `${failed.label} failed`;
  const index = steps.findIndex((step) => step.state === "running");
  const running = steps[index];
  if (running) return `Step ${index + 1} of ${steps.length}: ${running.label}`;
  if (steps.length > 0 && steps.every((step) => step.state === "done")) return "All steps done";
  return "";
}
