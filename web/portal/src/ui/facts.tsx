import type { ReactNode } from "react";

export interface Fact {
  label: string;
  value: ReactNode;
}

/** Properties: quiet labels, exact values. */
export function Facts({ items }: { items: readonly Fact[] }) {
  return (
    <dl className="grid grid-cols-[auto_minmax(0,1fr)] gap-x-6 text-sm">
      {items.map((item) => (
        <div key={item.label} className="col-span-2 grid min-h-9 grid-cols-subgrid items-center border-b border-line last:border-b-0">
          <dt className="text-muted">{item.label}</dt>
          <dd className="min-w-0 py-1 break-words">{item.value}</dd>
        </div>
      ))}
    </dl>
  );
}
