import { ProgressBar } from "react-aria-components/ProgressBar";

/** How far something is, with the words for it. */
export function Progress({ label, part, text }: { label: string; part: number; text: string }) {
  return (
    <ProgressBar aria-label={label} value={part * 100} valueLabel={text} className="flex min-w-0 flex-1 flex-col gap-1">
      <span className="h-1.5 overflow-hidden rounded-full bg-track">
        <span className="block h-full rounded-full bg-accent" style={{ width: `${part * 100}%` }} />
      </span>
    </ProgressBar>
  );
}
