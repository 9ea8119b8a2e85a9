import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useMemo, useState } from "react";
import { useWorkPoll } from "~/api/events";
import { queries } from "~/api/queries";
import type { Service } from "~/api/workloads";
import { Page } from "~/app/page";
import { useTenant } from "~/app/tenant";
import { StaleNote, WorkError, WorkState } from "~/features/work/parts";
import { LIFECYCLE } from "~/features/work/rules";
import { ButtonLink, IconButton } from "~/ui/button";
import { Copyable } from "~/ui/copy";
import { Filter } from "~/ui/filter";
import { plural } from "~/ui/format";
import { MoreIcon, PlusIcon } from "~/ui/icons";
import { EmptyState, Panel, TableSkeleton } from "~/ui/states";
import { DataTable, type ColumnDef } from "~/ui/table";
import { Age } from "~/ui/time";
import { ServiceMenu } from "./actions";
import { backendText, kindText } from "./model";

const COLUMNS: ColumnDef<Service>[] = [
  {
    id: "name",
    header: "Name",
    rowHeader: true,
    sort: (service) => service.metadata.name,
    phone: "title",
    cell: (service) => <span className="block max-w-64 truncate font-medium">{service.metadata.name}</span>,
  },
  {
    id: "state",
    header: "State",
    sort: (service) => LIFECYCLE[service.status.lifecycleState].label,
    phone: "aside",
    cell: (service) => <WorkState state={service.status.lifecycleState} />,
  },
  { id: "kind", header: "Backend", sort: (service) => kindText(service.spec.backend), cell: (service) => kindText(service.spec.backend) },
  {
    id: "what",
    header: "Runs",
    phone: "line",
    cell: (service) => <code className="block max-w-72 truncate font-mono text-sm">{backendText(service.spec.backend)}</code>,
  },
  {
    id: "endpoint",
    header: "Endpoint",
    cell: (service) => {
      const first = service.status.endpoints[0];
      return first === undefined ? <span className="text-muted">–</span> : <Copyable text={`${first.host}:${first.port}`} label={`Copy address of ${service.metadata.name}`} />;
    },
  },
  { id: "health", header: "Health", sort: (service) => service.status.health, cell: (service) => <span className="text-muted">{service.status.health}</span> },
  { id: "generation", header: "Generation", className: "text-right", sort: (service) => service.metadata.generation, cell: (service) => <span className="tabular text-muted">{service.metadata.generation}</span> },
  {
    id: "changed",
    header: "Changed",
    sort: (service) => -Date.parse(service.metadata.updatedAt),
    cell: (service) => (
      <span className="text-muted">
        <Age at={service.metadata.updatedAt} />
      </span>
    ),
  },
  {
    id: "actions",
    header: "Actions",
    hideHeader: true,
    phone: "end",
    className: "text-right",
    cell: (service) => (
      <ServiceMenu service={service}>
        <IconButton label={`Actions for ${service.metadata.name}`}>
          <MoreIcon />
        </IconButton>
      </ServiceMenu>
    ),
  },
];

function matches(service: Service, needle: string): boolean {
  const labels = Object.entries(service.metadata.labels).map(([key, value]) => `${key}=${value}`);
  const text = [service.metadata.name, backendText(service.spec.backend), kindText(service.spec.backend), LIFECYCLE[service.status.lifecycleState].label, service.status.health, ...labels].join(" ").toLowerCase();
  return needle
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

export function ServicesPage() {
  const tenant = useTenant();
  const navigate = useNavigate();
  const poll = useWorkPoll();
  const [needle, setNeedle] = useState("");
  const { data: services, error, refetch, isError } = useQuery({ ...queries.services(tenant), refetchInterval: poll });
  const rows = useMemo(() => (services ?? []).filter((service) => matches(service, needle.trim())), [services, needle]);
  const count = services?.length ?? 0;
  const ready = (services ?? []).filter((service) => service.status.lifecycleState === "ready").length;
  const create = (
    <ButtonLink to="/services/new" kind="primary">
      <PlusIcon /> Create service
    </ButtonLink>
  );
  return (
    <Page
      title="Services"
      lead={count === 0 ? "Names that other code may depend on, and what stands behind them." : `${plural(count, "service")}, ${ready} ready`}
      actions={count > 0 ? create : undefined}
    >
      {count > 3 ? <Filter label="Filter services" value={needle} onChange={setNeedle} /> : null}
      <Panel>
        {services === undefined ? (
          isError ? (
            <WorkError error={error} title="Services could not be loaded" onRetry={() => void refetch()} />
          ) : (
            <TableSkeleton label="services" />
          )
        ) : count === 0 ? (
          <EmptyState title="No services yet" action={create} command="nimbus compose up --file compose.yaml">
            A service is a name with a definition behind it. It outlives the sandboxes that run it, and is restarted when it fails.
          </EmptyState>
        ) : (
          <DataTable
            label="Services"
            rows={rows}
            rowId={(service) => service.metadata.name}
            columns={COLUMNS}
            defaultSort={{ column: "name", direction: "ascending" }}
            onOpen={(service) => void navigate({ to: "/services/$serviceName", params: { serviceName: service.metadata.name } })}
            empty={<p className="px-6 py-8 text-center text-muted">No service matches “{needle}”.</p>}
          />
        )}
      </Panel>
      {services !== undefined && isError ? <StaleNote what="The list" /> : null}
    </Page>
  );
}
