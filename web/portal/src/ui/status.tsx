import type { ReactNode } from "react";
import { cx } from "./cx";

export type Tone = "good" | "wait" | "bad" | "info" | "idle";

const DOT: Record<Tone, string> = {
  good: "bg-good",
  wait: "bg-wait",
  bad: "bg-bad",
  info: "bg-info",
  idle: "bg-[var(--slate-8)]",
};

/** State is a dot and a word, never colour alone. */
export function StatusDot({ tone, children, moving }: { tone: Tone; children: ReactNode; moving?: boolean | undefined }) {
  return (
    <span className="inline-flex items-center gap-2 whitespace-nowrap">
      <span aria-hidden="true" className={cx("size-2 shrink-0 rounded-full", DOT[tone], moving && "animate-pulse-slow")} />
      {children}
    </span>
  );
}

const BADGE: Record<Tone, string> = {
  good: "bg-good-soft text-good-strong",
  wait: "bg-wait-soft text-wait-strong",
  bad: "bg-bad-soft text-bad-strong",
  info: "bg-info-soft text-info-strong",
  idle: "bg-track text-fg",
};

export function Badge({ tone = "idle", children }: { tone?: Tone; children: ReactNode }) {
  return <span className={cx("inline-flex h-5 items-center rounded-sm px-1.5 text-xs font-medium whitespace-nowrap", BADGE[tone])}>{children}</span>;
}

const NOTICE: Record<Exclude<Tone, "idle">, string> = {
  good: "border-good-line bg-good-faint text-good-strong",
  wait: "border-wait-line bg-wait-faint text-wait-strong",
  bad: "border-bad-line bg-bad-faint text-bad-strong",
  info: "border-info-line bg-info-faint text-info-strong",
};

export function Notice({ tone, title, children, role }: { tone: Exclude<Tone, "idle">; title?: string; children?: ReactNode; role?: "alert" | "status" }) {
  return (
    <div role={role} className={cx("flex flex-col gap-1 rounded border px-3 py-2.5 text-sm", NOTICE[tone])}>
      {title !== undefined ? <p className="font-semibold">{title}</p> : null}
      {children}
    </div>
  );
}
