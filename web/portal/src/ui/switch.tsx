import { SwitchButton, SwitchField } from "react-aria-components/Switch";

export function Switch({ label, isSelected, onChange }: { label: string; isSelected: boolean; onChange: (on: boolean) => void }) {
  return (
    <SwitchField isSelected={isSelected} onChange={onChange} className="self-start">
      <SwitchButton className="group/switch flex cursor-pointer items-center gap-2.5 text-sm">
      <span
        aria-hidden="true"
        className="flex h-5 w-8 shrink-0 items-center rounded-full border border-control bg-track p-0.5 transition-colors duration-[120ms] group-data-focus-visible/switch:outline-2 group-data-focus-visible/switch:outline-offset-2 group-data-focus-visible/switch:outline-[var(--indigo-8)] group-data-selected/switch:border-accent group-data-selected/switch:bg-accent"
      >
        <span className="size-3.5 rounded-full bg-[var(--slate-9)] transition-transform duration-[120ms] group-data-selected/switch:translate-x-3 group-data-selected/switch:bg-on-accent" />
      </span>
      {label}
      </SwitchButton>
    </SwitchField>
  );
}
