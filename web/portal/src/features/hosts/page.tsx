import { useQuery } from "@tanstack/react-query";
import { queries } from "~/api/queries";
import type { Host } from "~/api/workloads";
import { Page } from "~/app/page";
import { ErrorState } from "~/app/problem";
import { StaleNote } from "~/features/work/parts";
import { imageName } from "~/features/sandboxes/name";
import { bytes, plural } from "~/ui/format";
import { Meter } from "~/ui/meter";
import { Bone, EmptyState, Panel } from "~/ui/states";
import { Badge, StatusDot } from "~/ui/status";
import { Age } from "~/ui/time";
import { ForgetHost } from "./forget";
import { AddHost } from "./join";

const REFRESH_MS = 5_000;

/** The computers that run sandboxes, for administrators. */
export function HostsPage() {
  const hosts = useQuery({ ...queries.hosts(), refetchInterval: REFRESH_MS });
  const lost = hosts.data?.filter((host) => host.lost === true).length ?? 0;
  return (
    <Page
      title="Hosts"
      actions={<AddHost />}
      lead={hosts.data === undefined || hosts.data.length === 0 ? "Where sandboxes run." : `${plural(hosts.data.length, "host")}${lost > 0 ? `, ${lost} lost` : ""}. The one with most room and the image at hand takes the next sandbox.`}
    >
      {hosts.data === undefined ? (
        <Panel>
          {hosts.isError ? (
            <ErrorState error={hosts.error} title="Hosts could not be loaded" onRetry={() => void hosts.refetch()} />
          ) : (
            <div role="status" aria-label="Loading hosts" className="flex flex-col gap-4 p-5">
              <Bone className="h-4 w-32" />
              <Bone className="h-2 w-full" />
              <Bone className="h-2 w-full" />
            </div>
          )}
        </Panel>
      ) : hosts.data.length === 0 ? (
        <Panel>
          <EmptyState title="No hosts" command="nimbus start">
            A host reports as soon as its agent runs beside a container engine and reaches the bus.
          </EmptyState>
        </Panel>
      ) : (
        <ul aria-label="Hosts" className="flex flex-col gap-3">
          {hosts.data.map((host) => (
            <li key={host.name}>
              <HostRow host={host} />
            </li>
          ))}
        </ul>
      )}
      {hosts.data !== undefined && hosts.isError ? <StaleNote what="The hosts" /> : null}
    </Page>
  );
}

function HostRow({ host }: { host: Host }) {
  const usedCpu = host.used?.vcpus ?? 0;
  const usedMemory = host.used?.memoryBytes ?? 0;
  const warm = host.warm ?? [];
  return (
    <Panel label={`Host ${host.name}`}>
      <div className="grid items-start gap-x-8 gap-y-4 px-5 py-4 md:grid-cols-[13rem_minmax(0,1fr)_9rem]">
        <div className="flex min-w-0 flex-col gap-1">
          <div className="flex flex-wrap items-center gap-x-3">
            <h2 className="font-mono text-base font-semibold break-all">{host.name}</h2>
            <span className="text-sm">
              <StatusDot tone={host.lost === true ? "bad" : "good"}>{host.lost === true ? "Lost" : "Online"}</StatusDot>
            </span>
          </div>
          <span className="text-xs text-muted">
            {[host.engine, host.arch].filter((part) => part !== undefined).join(" · ")}
          </span>
          {host.seenAt !== undefined ? (
            <span className="text-xs text-muted">
              heard of <Age at={host.seenAt} />
            </span>
          ) : null}
          {host.lost === true ? (
            <div className="mt-2">
              <ForgetHost name={host.name} />
            </div>
          ) : null}
        </div>
        <div className="grid min-w-0 gap-x-6 gap-y-3 sm:grid-cols-2">
          {host.vcpus !== undefined ? (
            <Labelled title="CPU" total={`${host.vcpus} vCPU`}>
              <Meter label={`CPU of ${host.name}`} used={usedCpu} total={host.vcpus} text={`${usedCpu} vCPU given out`} />
            </Labelled>
          ) : null}
          {host.memoryBytes !== undefined ? (
            <Labelled title="Memory" total={bytes(host.memoryBytes)}>
              <Meter label={`Memory of ${host.name}`} used={usedMemory} total={host.memoryBytes} text={`${bytes(usedMemory)} given out`} />
            </Labelled>
          ) : null}
        </div>
        <p className="text-sm md:text-right">
          <span className="tabular text-lg font-semibold">{host.sandboxes ?? 0}</span>
          <span className="block text-xs text-muted">{host.sandboxes === 1 ? "sandbox" : "sandboxes"}</span>
        </p>
      </div>
      {warm.length > 0 || (host.backends ?? []).length > 0 ? (
        <dl className="flex flex-wrap gap-x-10 gap-y-2 border-t border-line px-5 py-2.5 text-sm">
          {warm.length > 0 ? (
            <div className="flex flex-wrap items-center gap-2">
              <dt className="text-muted">Warm</dt>
              <dd className="flex flex-wrap gap-1">
                {warm.map((pool) => (
                  <Badge key={pool.image} tone={pool.count > 0 ? "good" : "idle"}>
                    {pool.count} × {imageName(pool.image)}
                  </Badge>
                ))}
              </dd>
            </div>
          ) : null}
          {(host.backends ?? []).length > 0 ? (
            <div className="flex flex-wrap items-center gap-2">
              <dt className="text-muted">Isolation</dt>
              <dd>{(host.backends ?? []).join(", ")}</dd>
            </div>
          ) : null}
        </dl>
      ) : null}
      {(host.missing ?? []).length > 0 ? (
        <ul aria-label={`What is missing on ${host.name}`} className="border-t border-line px-5 py-2.5 text-sm text-muted">
          {(host.missing ?? []).map((line) => (
            <li key={line} className="break-words">
              {line}
            </li>
          ))}
        </ul>
      ) : null}
    </Panel>
  );
}

function Labelled({ title, total, children }: { title: string; total: string; children: React.ReactNode }) {
  return (
    <div className="flex min-w-0 flex-col gap-1.5">
      <span className="flex justify-between gap-2 text-xs">
        <span className="font-medium">{title}</span>
        <span className="tabular text-muted">{total}</span>
      </span>
      {children}
    </div>
  );
}
