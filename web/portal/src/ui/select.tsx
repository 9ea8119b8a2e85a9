import { Button } from "react-aria-components/Button";
import { Label } from "react-aria-components/Label";
import { ListBox, ListBoxItem } from "react-aria-components/ListBox";
import { Popover } from "react-aria-components/Popover";
import { Select as AriaSelect, SelectValue } from "react-aria-components/Select";
import { CheckIcon, ChevronDown } from "./icons";
import { cx } from "./cx";

export interface Option<K extends string> {
  key: K;
  label: string;
}

export interface SelectProps<K extends string> {
  label: string;
  hideLabel?: boolean;
  options: readonly Option<K>[];
  value: K;
  onChange: (value: K) => void;
  className?: string;
  /** As high as the fields beside it. */
  tall?: boolean;
}

export function Select<K extends string>({ label, hideLabel, options, value, onChange, className, tall }: SelectProps<K>) {
  return (
    <AriaSelect
      className={cx("flex flex-col gap-1.5", className)}
      value={value}
      onChange={(next) => {
        const chosen = options.find((option) => option.key === next);
        if (chosen) onChange(chosen.key);
      }}
      {...(hideLabel ? { "aria-label": label } : {})}
    >
      {hideLabel ? null : <Label className="text-sm font-medium">{label}</Label>}
      <Button className={cx("inline-flex items-center justify-between gap-2 rounded border border-line-strong bg-panel pr-2 pl-2.5 text-sm data-hovered:bg-hover", tall ? "h-9" : "h-8")}>
        <SelectValue className="truncate">{({ selectedText }) => selectedText}</SelectValue>
        <ChevronDown className="text-muted" />
      </Button>
      <Popover className={POPOVER}>
        <ListBox className="max-h-80 min-w-(--trigger-width) overflow-auto p-1 outline-none">
          {options.map((option) => (
            <ListBoxItem
              key={option.key}
              id={option.key}
              textValue={option.label}
              className="group flex h-8 cursor-pointer items-center justify-between gap-4 rounded-sm px-2 text-sm outline-none data-focused:bg-hover"
            >
              {option.label}
              <CheckIcon className="invisible text-accent-text group-data-selected:visible" />
            </ListBoxItem>
          ))}
        </ListBox>
      </Popover>
    </AriaSelect>
  );
}

export const POPOVER = "rounded-lg bg-panel shadow-float outline-none data-entering:animate-rise";
