import { useQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import type { Deployment, Instance, Lease, Stream } from "~/api/deployment";
import { queries } from "~/api/queries";
import { Page } from "~/app/page";
import { ErrorState } from "~/app/problem";
import { StaleNote } from "~/features/work/parts";
import { bytes, plural, sentence, shortId } from "~/ui/format";
import { Panel, TableSkeleton } from "~/ui/states";
import { Badge, Notice, StatusDot } from "~/ui/status";
import { DataTable, type ColumnDef } from "~/ui/table";
import { Age } from "~/ui/time";

const REFRESH_MS = 5_000;

/** Who serves what, and whether anything waits: for whoever operates more than one process. */
export function ClusterPage() {
  const { data, error, isError, refetch } = useQuery({ ...queries.deployment(), refetchInterval: REFRESH_MS });
  return (
    <Page title="Cluster" lead={data === undefined ? "The services of this installation, and the bus between them." : summary(data)}>
      {data === undefined ? (
        <Panel>{isError ? <ErrorState error={error} title="The cluster could not be loaded" onRetry={() => void refetch()} /> : <TableSkeleton label="instances" />}</Panel>
      ) : (
        <>
          {data.problems.length > 0 ? (
            <Notice tone="bad" title={plural(data.problems.length, "problem")} role="status">
              <ul className="flex flex-col gap-0.5">
                {data.problems.map((problem) => (
                  <li key={problem} className="break-words">
                    {sentence(problem)}
                  </li>
                ))}
              </ul>
            </Notice>
          ) : null}
          <Section id="instances" title="Instances">
            <Instances data={data} />
          </Section>
          <Section id="streams" title="Streams">
            <DataTable
              label="Streams"
              rows={data.streams}
              rowId={(stream) => stream.name}
              columns={STREAMS}
              defaultSort={{ column: "name", direction: "ascending" }}
              empty={<p className="px-6 py-8 text-center text-muted">The bus tells of no streams.</p>}
            />
          </Section>
          <Section id="leases" title="Leases">
            <DataTable
              label="Leases"
              rows={data.leases}
              rowId={(lease) => lease.name}
              columns={LEASES}
              defaultSort={{ column: "name", direction: "ascending" }}
              empty={<p className="px-6 py-8 text-center text-muted">Nobody holds a lease now.</p>}
            />
          </Section>
        </>
      )}
      {data !== undefined && isError ? <StaleNote what="The cluster" /> : null}
    </Page>
  );
}

function summary(data: Deployment): string {
  const services = new Set(data.instances.map((one) => one.service)).size;
  return `${plural(data.instances.length, "instance")} of ${plural(services, "service")}${data.healthy ? ", all as they should be" : ""}. This portal runs ${data.version}.`;
}

function Section({ id, title, children }: { id: string; title: string; children: React.ReactNode }) {
  return (
    <section className="flex flex-col gap-3" aria-labelledby={id}>
      <h2 id={id} className="text-lg font-semibold">
        {title}
      </h2>
      <Panel>{children}</Panel>
    </section>
  );
}

function Instances({ data }: { data: Deployment }) {
  // Which version is the odd one is what one looks for while a new one is rolled out.
  const { version } = data;
  const columns = useMemo(() => instanceColumns(version), [version]);
  return (
    <DataTable
      label="Instances"
      rows={data.instances}
      rowId={(one) => one.id}
      columns={columns}
      defaultSort={{ column: "service", direction: "ascending" }}
      empty={<p className="px-6 py-8 text-center text-muted">Nobody answers on the bus.</p>}
    />
  );
}

function instanceColumns(version: string): ColumnDef<Instance>[] {
  return [
    { id: "service", header: "Service", rowHeader: true, phone: "title", sort: (one) => `${one.service} ${one.started_at}`, cell: (one) => <span className="font-medium">{one.service}</span> },
    {
      id: "version",
      header: "Version",
      phone: "aside",
      sort: (one) => one.version,
      cell: (one) => (one.version === version ? <span className="text-muted">{one.version}</span> : <Badge tone="wait">{one.version}</Badge>),
    },
    {
      id: "host",
      header: "Host",
      phone: "line",
      sort: (one) => one.host ?? "",
      cell: (one) => (
        <span className="font-mono text-sm text-muted">
          {one.host ?? "–"}
          {one.pid != null ? ` · ${one.pid}` : ""}
        </span>
      ),
    },
    {
      id: "up",
      header: "Up for",
      phone: "end",
      sort: (one) => -Date.parse(one.started_at),
      cell: (one) => (
        <span className="text-muted">
          <Age at={one.started_at} />
        </span>
      ),
    },
    { id: "requests", header: "Requests", className: "text-right", sort: (one) => -one.requests, cell: (one) => <span className="tabular">{one.requests}</span> },
    {
      id: "errors",
      header: "Errors",
      className: "text-right",
      sort: (one) => -one.errors,
      cell: (one) => <span className={one.errors > 0 ? "tabular text-bad-text" : "tabular text-muted"}>{one.errors}</span>,
    },
    { id: "id", header: "Id", cell: (one) => <code className="font-mono text-sm text-muted">{shortId(one.id)}</code> },
  ];
}

const STREAMS: ColumnDef<Stream>[] = [
  { id: "name", header: "Stream", rowHeader: true, phone: "title", sort: (stream) => stream.name, cell: (stream) => <span className="font-mono text-sm font-medium">{stream.name}</span> },
  {
    id: "state",
    header: "Copies",
    phone: "aside",
    sort: (stream) => stream.behind.length,
    cell: (stream) =>
      stream.behind.length > 0 ? (
        <StatusDot tone="wait">
          {stream.replicas}, behind: {stream.behind.join(", ")}
        </StatusDot>
      ) : stream.replicas > 1 && stream.leader == null ? (
        <StatusDot tone="bad">no leader</StatusDot>
      ) : (
        <StatusDot tone="good">{stream.replicas}</StatusDot>
      ),
  },
  { id: "leader", header: "Leader", cell: (stream) => <span className="font-mono text-sm text-muted">{stream.leader ?? "–"}</span> },
  { id: "messages", header: "Messages", className: "text-right", sort: (stream) => -stream.messages, cell: (stream) => <span className="tabular">{stream.messages}</span> },
  { id: "bytes", header: "Size", className: "text-right", sort: (stream) => -stream.bytes, cell: (stream) => <span className="tabular text-muted">{bytes(stream.bytes)}</span> },
  { id: "lag", header: "Waiting", className: "md:text-right", phone: "line", sort: (stream) => -stream.lag, cell: (stream) => <span className="tabular">{plural(stream.lag, "message")}</span> },
  { id: "out", header: "Given out", className: "text-right", sort: (stream) => -stream.unacknowledged, cell: (stream) => <span className="tabular text-muted">{stream.unacknowledged}</span> },
];

const LEASES: ColumnDef<Lease>[] = [
  { id: "name", header: "Lease", rowHeader: true, phone: "title", sort: (lease) => lease.name, cell: (lease) => <span className="font-mono text-sm font-medium">{lease.name}</span> },
  { id: "holder", header: "Held by", phone: "line", sort: (lease) => lease.holder, cell: (lease) => <code className="font-mono text-sm break-all text-muted">{lease.holder}</code> },
  {
    id: "renewed",
    header: "Renewed",
    phone: "aside",
    cell: (lease) => <span className="text-muted">{lease.renewed_at == null ? "–" : <Age at={lease.renewed_at} />}</span>,
  },
];
