import type { ReactNode } from "react";
import { CheckboxButton, CheckboxField } from "react-aria-components/Checkbox";
import { RadioButton, RadioField } from "react-aria-components/RadioGroup";
import { cx } from "./cx";
import { CheckIcon } from "./icons";

const CARD =
  "group/card flex w-full cursor-pointer flex-col rounded-lg border border-line-strong bg-panel px-3.5 py-3 transition-colors duration-[120ms] data-hovered:border-[var(--slate-9)] data-selected:border-accent data-selected:bg-accent-soft data-selected:shadow-[inset_0_0_0_1px_var(--indigo-9)] data-disabled:cursor-default data-disabled:border-line data-disabled:bg-sunken data-focus-visible:outline-2 data-focus-visible:outline-offset-2 data-focus-visible:outline-[var(--indigo-8)]";

export interface ChoiceCardProps {
  value: string;
  isDisabled?: boolean;
  label?: string;
  className?: string;
  children: ReactNode;
}

/** One of a few choices that need more than a word each. Belongs into a RadioGroup. */
export function ChoiceCard({ value, isDisabled, label, className, children }: ChoiceCardProps) {
  return (
    <RadioField
      value={value}
      className="flex min-w-0"
      {...(isDisabled !== undefined ? { isDisabled } : {})}
      {...(label !== undefined ? { "aria-label": label } : {})}
    >
      <RadioButton className={cx(CARD, className)}>{children}</RadioButton>
    </RadioField>
  );
}

/** The mark of a choice card. */
export function ChoiceDot() {
  return (
    <span
      aria-hidden="true"
      className="size-3.5 shrink-0 rounded-full border border-control bg-panel group-data-selected/card:border-[4px] group-data-selected/card:border-accent group-data-selected/card:bg-on-accent"
    />
  );
}

/** A box to tick, with a line that explains it. Belongs into a CheckboxGroup. */
export function Check({ value, label, text }: { value: string; label: string; text: string }) {
  return (
    <CheckboxField value={value}>
      <CheckboxButton className="group/check flex cursor-pointer items-start gap-2.5 rounded-sm">
        <span
          aria-hidden="true"
          className="mt-0.5 flex size-4 shrink-0 items-center justify-center rounded-sm border border-control bg-panel text-transparent group-data-focus-visible/check:outline-2 group-data-focus-visible/check:outline-offset-2 group-data-focus-visible/check:outline-[var(--indigo-8)] group-data-selected/check:border-accent group-data-selected/check:bg-accent group-data-selected/check:text-on-accent"
        >
          <CheckIcon width={12} height={12} />
        </span>
        <span className="flex flex-col text-sm">
          <span className="font-medium">{label}</span>
          <span className="text-muted">{text}</span>
        </span>
      </CheckboxButton>
    </CheckboxField>
  );
}
