import type { ReactNode } from "react";
import { Tab, TabList, TabPanel, Tabs as AriaTabs } from "react-aria-components/Tabs";
import { cx } from "./cx";

export interface TabDef {
  key: string;
  label: string;
  count?: number | undefined;
  content: ReactNode;
}

export function Tabs({ label, tabs, value, onChange, className }: { label: string; tabs: readonly TabDef[]; value: string; onChange: (key: string) => void; className?: string }) {
  return (
    <AriaTabs
      selectedKey={value}
      onSelectionChange={(key) => {
        onChange(String(key));
      }}
      className={cx("flex min-w-0 flex-col", className)}
    >
      <TabList aria-label={label} className="flex gap-1 overflow-x-auto border-b border-line px-2">
        {tabs.map((tab) => (
          <Tab
            key={tab.key}
            id={tab.key}
            className="flex h-10 cursor-pointer items-center gap-1.5 border-b-2 border-transparent px-2.5 text-sm font-medium whitespace-nowrap text-muted outline-none data-focus-visible:outline-2 data-focus-visible:-outline-offset-4 data-focus-visible:outline-[var(--indigo-8)] data-hovered:text-fg data-selected:border-accent data-selected:text-fg"
          >
            {tab.label}
            {tab.count !== undefined && tab.count > 0 ? <span className="tabular text-xs text-muted">{tab.count}</span> : null}
          </Tab>
        ))}
      </TabList>
      {tabs.map((tab) => (
        <TabPanel key={tab.key} id={tab.key} className="min-w-0 outline-none data-focus-visible:outline-2 data-focus-visible:-outline-offset-2 data-focus-visible:outline-[var(--indigo-8)]">
          {tab.content}
        </TabPanel>
      ))}
    </AriaTabs>
  );
}
