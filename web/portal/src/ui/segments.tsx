import { ToggleButton } from "react-aria-components/ToggleButton";
import { ToggleButtonGroup } from "react-aria-components/ToggleButtonGroup";

export interface Segment<K extends string> {
  key: K;
  label: string;
  count?: number;
}

export function Segments<K extends string>({ label, options, value, onChange }: { label: string; options: readonly Segment<K>[]; value: K; onChange: (value: K) => void }) {
  return (
    <ToggleButtonGroup
      aria-label={label}
      selectionMode="single"
      disallowEmptySelection
      selectedKeys={[value]}
      onSelectionChange={(keys) => {
        for (const option of options) if (keys.has(option.key)) onChange(option.key);
      }}
      className="inline-flex max-w-full gap-0.5 overflow-x-auto rounded border border-line bg-sunken p-0.5"
    >
      {options.map((option) => (
        <ToggleButton
          key={option.key}
          id={option.key}
          className="flex h-7 items-center gap-1.5 rounded-sm px-2.5 text-sm whitespace-nowrap text-muted data-hovered:text-fg data-selected:bg-panel data-selected:font-medium data-selected:text-fg data-selected:shadow-[0_0_0_1px_var(--line)] data-focus-visible:outline-offset-0"
        >
          {option.label}
          {option.count !== undefined ? <span className="tabular text-xs text-muted">{option.count}</span> : null}
        </ToggleButton>
      ))}
    </ToggleButtonGroup>
  );
}
