import type { ReactNode } from "react";
import { cx } from "./cx";

export interface Fact {
  label: string;
  value: ReactNode;
}

/** Properties: quiet labels, exact values. */
export function Facts({ items, aligned }: { items: readonly Fact[]; /** All labels as wide, where several lists stand side by side. */ aligned?: boolean }) {
  return (
    <dl className={cx("grid gap-x-6 text-sm", aligned ? "grid-cols-[5.5rem_minmax(0,1fr)]" : "grid-cols-[auto_minmax(0,1fr)]")}>
      {items.map((item) => (
        <div key={item.label} className="col-span-2 grid min-h-9 grid-cols-subgrid items-center border-b border-line last:border-b-0">
          <dt className="text-muted">{item.label}</dt>
          <dd className="min-w-0 py-1 break-words">{item.value}</dd>
        </div>
      ))}
    </dl>
  );
}
