import type { ReactNode } from "react";
import { CommandLine } from "./copy";
import { cx } from "./cx";

/** What this is, the one next action, and the command line that does the same. */
export function EmptyState({ title, children, action, command }: { title: string; children: ReactNode; action?: ReactNode; command?: string }) {
  return (
    <div className="flex flex-col items-start gap-4 px-6 py-10 sm:px-10">
      <div className="flex max-w-prose flex-col gap-1.5">
        <h2 className="text-lg font-semibold">{title}</h2>
        <div className="text-muted">{children}</div>
      </div>
      {action}
      {command !== undefined ? (
        <div className="flex w-full max-w-xl flex-col gap-1.5 pt-2">
          <p className="text-xs text-muted">The same from a terminal</p>
          <CommandLine command={command} label="command" />
        </div>
      ) : null}
    </div>
  );
}

export function Bone({ className }: { className?: string }) {
  return <span aria-hidden="true" className={cx("block animate-pulse-slow rounded-sm bg-track", className)} />;
}

/** Rows shaped like the table they stand for. */
export function TableSkeleton({ label, rows = 5 }: { label: string; rows?: number }) {
  return (
    <div role="status" aria-label={`Loading ${label}`} className="divide-y divide-line">
      <div className="h-9 bg-sunken" />
      {Array.from({ length: rows }, (_, row) => (
        <div key={row} className="flex h-12 items-center gap-6 px-4">
          <Bone className="h-3 w-36" />
          <Bone className="h-3 w-20" />
          <Bone className="h-3 w-28 max-md:hidden" />
          <Bone className="h-3 flex-1 max-md:hidden" />
        </div>
      ))}
    </div>
  );
}

export function Panel({ children, className, label }: { children: ReactNode; className?: string; label?: string }) {
  return (
    <section aria-label={label} className={cx("overflow-hidden rounded-lg border border-line bg-panel", className)}>
      {children}
    </section>
  );
}
