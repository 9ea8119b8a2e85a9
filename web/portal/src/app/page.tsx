import { useEffect, type ReactNode } from "react";
import { cx } from "~/ui/cx";

export interface PageProps {
  title: string;
  lead?: ReactNode;
  actions?: ReactNode;
  children: ReactNode;
  narrow?: boolean;
  /** Set where the heading shows something else than the plain title. */
  heading?: ReactNode;
}

export function Page({ title, lead, actions, children, narrow, heading }: PageProps) {
  useEffect(() => {
    document.title = `${title} · Nimbus`;
  }, [title]);
  return (
    <div className={cx("mx-auto flex w-full flex-col gap-5 px-4 py-6 sm:px-8", narrow ? "max-w-3xl" : "max-w-[88rem]")}>
      <header className="flex flex-wrap items-start justify-between gap-x-6 gap-y-3">
        <div className="min-w-0">
          <h1 className="text-xl font-semibold tracking-[-0.01em] break-words">{heading ?? title}</h1>
          {lead !== undefined ? <div className="mt-0.5 max-w-prose text-muted">{lead}</div> : null}
        </div>
        {actions !== undefined ? <div className="flex flex-wrap items-center gap-2">{actions}</div> : null}
      </header>
      {children}
    </div>
  );
}
