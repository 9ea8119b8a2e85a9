import { cx } from "./cx";
import { percent } from "./format";

/** Capacity: what is used now, and what is promised beyond it. */
export function Meter({ label, used, committed, total, text, calm }: { label: string; used: number; committed?: number; total: number; text: string; /** Where being full is what it is for. */ calm?: boolean }) {
  const usedPart = percent(used, total);
  const committedPart = committed === undefined ? usedPart : percent(committed, total);
  const high = calm === true ? 0 : Math.max(usedPart, committedPart);
  return (
    <div className="flex min-w-0 flex-col gap-1">
      <div
        role="meter"
        aria-label={label}
        aria-valuenow={Math.round(usedPart)}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuetext={text}
        className="relative h-1.5 overflow-hidden rounded-full bg-track"
      >
        <div
          className={cx("absolute inset-y-0 left-0 rounded-full", high > 90 ? "bg-[var(--tomato-6)]" : "bg-[var(--indigo-6)]")}
          style={{ width: `${committedPart}%` }}
        />
        <div
          className={cx("absolute inset-y-0 left-0 rounded-full", usedPart > 90 && calm !== true ? "bg-bad" : "bg-accent")}
          style={{ width: `${usedPart}%` }}
        />
      </div>
      <span aria-hidden="true" className="tabular truncate text-xs text-muted">
        {text}
      </span>
    </div>
  );
}
