import type { ReactNode } from "react";
import { ApiError } from "~/api/client";
import type { Condition, Endpoint, Labels, Lifecycle, Resources } from "~/api/workloads";
import { ErrorState } from "~/app/problem";
import { usePersonalTenant, useSwitchTenant } from "~/app/tenant";
import { Button } from "~/ui/button";
import { Copyable } from "~/ui/copy";
import { bytes, plural, sentence } from "~/ui/format";
import { Panel } from "~/ui/states";
import { Badge, StatusDot } from "~/ui/status";
import { Age } from "~/ui/time";
import { LIFECYCLE, reasonText } from "./rules";

export function WorkState({ state }: { state: Lifecycle }) {
  const { label, tone, moving } = LIFECYCLE[state];
  return (
    <StatusDot tone={tone} moving={moving}>
      {label}
    </StatusDot>
  );
}

/** A failure of something that belongs to a tenant: the tenant itself may be what is missing. */
export function WorkError({ error, title, onRetry, children }: { error: unknown; title: string; onRetry?: () => void; children?: ReactNode }) {
  const personal = usePersonalTenant();
  const go = useSwitchTenant();
  const isTenantGone = error instanceof ApiError && error.fault?.code === "session.tenant_not_found";
  return (
    <ErrorState error={error} title={title} {...(onRetry === undefined || isTenantGone ? {} : { onRetry })}>
      {isTenantGone ? (
        <Button
          onPress={() => {
            go(personal);
          }}
        >
          Go to your personal tenant
        </Button>
      ) : (
        children
      )}
    </ErrorState>
  );
}

export function WorkErrorPanel(props: Parameters<typeof WorkError>[0]) {
  return (
    <Panel>
      <WorkError {...props} />
    </Panel>
  );
}

export function ConditionList({ conditions }: { conditions: readonly Condition[] }) {
  if (conditions.length === 0) return <p className="px-4 py-8 text-sm text-muted">Nothing was observed yet.</p>;
  return (
    <ul aria-label="Conditions" className="divide-y divide-line text-sm">
      {conditions.map((condition) => (
        <li key={condition.type} className="grid grid-cols-[8rem_minmax(0,1fr)_auto] items-baseline gap-x-4 gap-y-0.5 px-4 py-2.5 max-sm:grid-cols-[minmax(0,1fr)_auto]">
          <StatusDot tone={condition.status === "True" ? "good" : condition.status === "False" ? "wait" : "idle"}>
            <span className="font-medium">{condition.type}</span>
            <span className="sr-only"> is {condition.status.toLowerCase()}</span>
          </StatusDot>
          <span className="min-w-0 max-sm:col-span-2 max-sm:row-start-2">
            <span className="break-words">{condition.message === "" ? reasonText(condition.reason) : sentence(condition.message)}</span>
            <code className="block font-mono text-xs break-words text-muted">{condition.reason}</code>
          </span>
          <span className="text-muted">{condition.lastTransitionTime !== undefined ? <Age at={condition.lastTransitionTime} /> : null}</span>
        </li>
      ))}
    </ul>
  );
}

export function LabelList({ labels }: { labels: Labels }) {
  const all = Object.entries(labels);
  if (all.length === 0) return <span className="text-muted">none</span>;
  return (
    <span className="flex flex-wrap gap-1">
      {all.map(([key, value]) => (
        <Badge key={key}>{value === "" ? key : `${key}=${value}`}</Badge>
      ))}
    </span>
  );
}

export function EndpointList({ endpoints }: { endpoints: readonly Endpoint[] }) {
  if (endpoints.length === 0) return <span className="text-muted">none</span>;
  return (
    <span className="flex flex-col">
      {endpoints.map((endpoint) => (
        <span key={endpoint.name} className="flex flex-wrap items-center gap-x-3">
          <Copyable text={`${endpoint.host}:${endpoint.port}`} label={`Copy address of ${endpoint.name}`} />
          <span className="text-muted">
            {endpoint.name}, {endpoint.protocol}
          </span>
        </span>
      ))}
    </span>
  );
}

export function resourceText(resources: Resources | undefined): string {
  if (resources === undefined) return "the tenant's defaults";
  const parts = [
    resources.vcpus === undefined ? null : `${resources.vcpus} vCPU`,
    resources.memoryBytes === undefined ? null : bytes(resources.memoryBytes),
    resources.diskBytes === undefined ? null : `${bytes(resources.diskBytes)} disk`,
    resources.pids === undefined ? null : plural(resources.pids, "process", "processes"),
  ].filter((part) => part !== null);
  return parts.length === 0 ? "the tenant's defaults" : parts.join(" · ");
}

/** A list that could not be refreshed is still worth showing, and says so. */
export function StaleNote({ what }: { what: string }) {
  return (
    <p role="status" className="text-sm text-muted">
      {what} could not be refreshed; what is shown may be out of date.
    </p>
  );
}
