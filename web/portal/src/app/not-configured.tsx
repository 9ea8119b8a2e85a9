import { useQuery } from "@tanstack/react-query";
import { queries } from "~/api/queries";
import { CommandLine, CopyButton } from "~/ui/copy";
import { Panel } from "~/ui/states";
import { StatusDot } from "~/ui/status";
import { Page } from "./page";

/** What stands between this installation and its first machine; checks itself again while it is open. */
export function NotConfigured() {
  const { data } = useQuery({ ...queries.setup(), refetchInterval: 3_000 });
  const missing = data?.missing ?? [];
  const lines = missing.map((item) => `${item.setting}=`).join("\n");
  return (
    <Page
      title="Not configured yet"
      lead="Nimbus runs, and does not know your Proxmox VE cluster yet. Accounts work; machines follow once these settings are there."
      narrow
    >
      <Panel label="Missing settings">
        <ul className="divide-y divide-line">
          {missing.map((item) => (
            <li key={item.setting} className="grid items-center gap-x-6 gap-y-1 px-4 py-3 sm:grid-cols-[15rem_minmax(0,1fr)_auto]">
              <span className="flex items-center gap-1">
                <code className="font-mono text-sm font-medium">{item.setting}</code>
                <CopyButton text={item.setting} label={`Copy ${item.setting}`} className="size-6" />
              </span>
              <span className="min-w-0 text-sm break-words text-muted">{item.expected}</span>
              <span className="text-sm">
                <StatusDot tone="wait">Missing</StatusDot>
              </span>
            </li>
          ))}
        </ul>
      </Panel>
      <section className="flex flex-col gap-4" aria-label="How to set them">
        <h2 className="text-lg font-semibold">How to set them</h2>
        <ol className="flex list-decimal flex-col gap-4 pl-5 marker:text-muted">
          <li className="pl-1">
            Put the settings into the environment of the server or into its configuration file.
            {lines === "" ? null : (
              <div className="relative mt-2 rounded-lg border border-line bg-sunken p-3 pr-12">
                <pre tabIndex={0} role="region" aria-label="Settings to fill in" className="overflow-x-auto rounded-sm font-mono text-sm">
                  {lines}
                </pre>
                <CopyButton text={lines} label="Copy settings" className="absolute top-2 right-2" />
              </div>
            )}
          </li>
          <li className="pl-1">
            Start the server again.
            <div className="mt-2">
              <CommandLine command="nimbus start" label="start command" />
            </div>
          </li>
          <li className="pl-1">Leave this page open: it looks again every few seconds and goes on by itself.</li>
        </ol>
        <p className="text-sm text-muted">
          No cluster at hand? <code className="font-mono">nimbus dev</code> starts with a simulated one.
        </p>
      </section>
    </Page>
  );
}
