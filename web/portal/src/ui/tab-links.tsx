import { Link, type LinkProps } from "@tanstack/react-router";

export interface TabLink {
  to: NonNullable<LinkProps["to"]>;
  label: string;
  count?: number | undefined;
}

/** Pages that belong together, each with an address of its own. */
export function TabLinks({ label, tabs }: { label: string; tabs: readonly TabLink[] }) {
  return (
    <nav aria-label={label} className="flex gap-1 overflow-x-auto border-b border-line">
      {tabs.map((tab) => (
        <Link
          key={tab.to}
          to={tab.to}
          activeOptions={{ exact: true }}
          activeProps={{ "aria-current": "page" }}
          className="flex h-10 items-center gap-1.5 border-b-2 border-transparent px-2.5 text-sm font-medium whitespace-nowrap text-muted hover:text-fg focus-visible:-outline-offset-2 aria-[current=page]:border-accent aria-[current=page]:text-fg"
        >
          {tab.label}
          {tab.count !== undefined && tab.count > 0 ? <span className="tabular text-xs text-muted">{tab.count}</span> : null}
        </Link>
      ))}
    </nav>
  );
}
