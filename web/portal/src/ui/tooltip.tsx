import type { ReactElement } from "react";
import { Tooltip as AriaTooltip, TooltipTrigger } from "react-aria-components/Tooltip";
import { Focusable } from "react-aria-components/Focusable";

const CLASS =
  "max-w-72 rounded bg-[var(--slate-12)] px-2 py-1 text-xs text-[var(--slate-1)] shadow-lg data-entering:animate-fade";

/** Words for what is hovered or focused. The child must be a React Aria button or link. */
export function Tooltip({ text, children }: { text: string; children: ReactElement }) {
  return (
    <TooltipTrigger delay={400} closeDelay={80}>
      {children}
      <AriaTooltip offset={6} className={CLASS}>
        {text}
      </AriaTooltip>
    </TooltipTrigger>
  );
}

/** The same for plain text, which becomes focusable. */
export function Hint({ text, children, className }: { text: string; children: React.ReactNode; className?: string }) {
  return (
    <TooltipTrigger delay={300} closeDelay={80}>
      <Focusable>
        <span role="note" tabIndex={0} className={className}>
          {children}
        </span>
      </Focusable>
      <AriaTooltip offset={6} className={CLASS}>
        {text}
      </AriaTooltip>
    </TooltipTrigger>
  );
}
