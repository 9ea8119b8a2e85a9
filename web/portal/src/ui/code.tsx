import { cx } from "./cx";
import { CopyButton } from "./copy";

/** Some lines to read and copy. */
export function CodeBlock({ text, label, className }: { text: string; label: string; className?: string }) {
  return (
    <div className={cx("relative min-w-0 rounded-lg border border-line bg-panel", className)}>
      <pre tabIndex={0} role="region" aria-label={label} className="max-h-96 overflow-auto rounded-lg p-3 pr-11 font-mono text-xs leading-5">
        {text}
      </pre>
      <CopyButton text={text} label={`Copy ${label}`} className="absolute top-1.5 right-1.5 bg-panel" />
    </div>
  );
}
