import { useQuery } from "@tanstack/react-query";
import { useEffect, type ReactNode } from "react";
import { queries } from "~/api/queries";
import { NimbusMark } from "~/ui/icons";
import { Notice } from "~/ui/status";

/** The page around the two forms that need no session. */
export function AuthFrame({ title, lead, children, foot }: { title: string; lead: ReactNode; children: ReactNode; foot: ReactNode }) {
  const { data: setup } = useQuery(queries.setup());
  useEffect(() => {
    document.title = `${title} · Nimbus`;
  }, [title]);
  return (
    <main className="flex min-h-dvh flex-col items-center bg-sunken px-4 pt-[max(2rem,14vh)] pb-10">
      <div className="flex w-full max-w-[25rem] flex-col gap-6">
        <div className="flex items-center gap-2.5 text-base font-semibold tracking-[-0.01em]">
          <NimbusMark /> Nimbus
        </div>
        <div className="flex flex-col gap-5 rounded-lg border border-line bg-panel p-6 max-sm:p-5">
          <div className="flex flex-col gap-1">
            <h1 className="text-xl font-semibold tracking-[-0.01em]">{title}</h1>
            <p className="text-muted">{lead}</p>
          </div>
          {setup?.configured === false && !setup.needs_admin_setup ? (
            <Notice tone="wait" title="Not configured yet">
              <p>This installation does not know its cluster yet. Sign in to see which settings are missing.</p>
            </Notice>
          ) : null}
          {children}
        </div>
        <div className="px-6 text-sm text-muted max-sm:px-5">{foot}</div>
      </div>
    </main>
  );
}

export const TEXT_LINK = "rounded-sm font-medium text-accent-text underline-offset-2 hover:underline";
