import type { ReactElement, ReactNode } from "react";
import { Header } from "react-aria-components/Header";
import { Menu as AriaMenu, MenuItem as AriaMenuItem, MenuSection, MenuTrigger } from "react-aria-components/Menu";
import { Popover } from "react-aria-components/Popover";
import { Separator } from "react-aria-components/Separator";
import { CheckIcon } from "./icons";
import { POPOVER } from "./select";
import { cx } from "./cx";

export type MenuEntry =
  | { type: "line"; id: string }
  | { type: "note"; id: string; title: string; text: string }
  | {
      type: "choice";
      id: string;
      title: string;
      value: string;
      options: readonly { key: string; label: string }[];
      onChange: (key: string) => void;
    }
  | {
      type: "item";
      id: string;
      label: string;
      danger?: boolean;
      /** Why it cannot be chosen now; shown below the label. */
      reason?: string | null;
      onAction: () => void;
    };

const ITEM = "group flex min-h-8 cursor-pointer items-center justify-between gap-4 rounded-sm px-2 py-1 text-sm outline-none data-focused:bg-hover";

/** A button (the child) that opens a list of actions. */
export function Menu({ label, entries, children }: { label: string; entries: MenuEntry[]; children: ReactElement }) {
  return (
    <MenuTrigger>
      {children}
      <Popover placement="bottom end" offset={4} className={POPOVER}>
        <AriaMenu aria-label={label} className="max-h-[70vh] min-w-52 max-w-72 overflow-auto p-1 outline-none">
          {entries.map(renderEntry)}
        </AriaMenu>
      </Popover>
    </MenuTrigger>
  );
}

function renderEntry(entry: MenuEntry): ReactNode {
  switch (entry.type) {
    case "line":
      return <Separator key={entry.id} className="mx-1 my-1 h-px bg-line" />;
    case "note":
      return (
        <MenuSection key={entry.id} aria-label={entry.title}>
          <Header className="px-2 pt-1.5 pb-2">
            <span className="block truncate text-sm font-medium">{entry.title}</span>
            <span className="block truncate text-xs text-muted">{entry.text}</span>
          </Header>
        </MenuSection>
      );
    case "choice":
      return (
        <MenuSection
          key={entry.id}
          selectionMode="single"
          disallowEmptySelection
          selectedKeys={[entry.value]}
          onSelectionChange={(keys) => {
            if (keys === "all") return;
            for (const key of keys) entry.onChange(String(key));
          }}
        >
          <Header className="px-2 pt-1.5 pb-1 text-xs text-muted">{entry.title}</Header>
          {entry.options.map((option) => (
            <AriaMenuItem key={option.key} id={option.key} textValue={option.label} className={ITEM}>
              {option.label}
              <CheckIcon className="invisible text-accent-text group-data-selected:visible" />
            </AriaMenuItem>
          ))}
        </MenuSection>
      );
    case "item":
      return (
        <AriaMenuItem
          key={entry.id}
          id={entry.id}
          textValue={entry.label}
          isDisabled={entry.reason != null}
          onAction={entry.onAction}
          className={cx(ITEM, entry.danger && "text-bad-text", "data-disabled:cursor-default")}
        >
          <span className="flex flex-col">
            <span className="group-data-disabled:text-faint">{entry.label}</span>
            {entry.reason != null ? <span className="text-xs text-muted">{entry.reason}</span> : null}
          </span>
        </AriaMenuItem>
      );
  }
}
