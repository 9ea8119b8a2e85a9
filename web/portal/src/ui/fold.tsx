import type { ReactNode } from "react";
import { Button } from "react-aria-components/Button";
import { Disclosure, DisclosurePanel } from "react-aria-components/Disclosure";
import { Heading } from "react-aria-components/Heading";
import { ChevronRight } from "./icons";

/** A part of a form that most people leave as it is; its summary says what it is set to. */
export function Fold({ title, summary, children, defaultExpanded = false }: { title: string; summary: string; children: ReactNode; defaultExpanded?: boolean }) {
  return (
    <Disclosure defaultExpanded={defaultExpanded} className="group/fold border-b border-line last:border-b-0">
      <Heading level={3}>
        <Button
          slot="trigger"
          className="flex min-h-11 w-full items-center gap-2.5 px-4 py-2 text-left text-sm data-focus-visible:-outline-offset-2 data-hovered:bg-hover"
        >
          <ChevronRight width={14} height={14} className="shrink-0 text-muted transition-transform duration-[120ms] group-data-expanded/fold:rotate-90" />
          <span className="shrink-0 font-medium">{title}</span>
          <span className="ml-auto min-w-0 truncate pl-4 text-muted">{summary}</span>
        </Button>
      </Heading>
      <DisclosurePanel>
        <div className="flex flex-col gap-4 px-4 pt-1 pb-5 sm:pl-10">{children}</div>
      </DisclosurePanel>
    </Disclosure>
  );
}
