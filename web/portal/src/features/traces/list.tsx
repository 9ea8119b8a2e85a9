import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useMemo, useState } from "react";
import { queries } from "~/api/queries";
import type { TraceSummary } from "~/api/types";
import { Page } from "~/app/page";
import { ErrorState } from "~/app/problem";
import { Button } from "~/ui/button";
import { Filter } from "~/ui/filter";
import { duration, shortId } from "~/ui/format";
import { RefreshIcon } from "~/ui/icons";
import { EmptyState, Panel, TableSkeleton } from "~/ui/states";
import { StatusDot } from "~/ui/status";
import { DataTable, type ColumnDef } from "~/ui/table";
import { Age } from "~/ui/time";

const COLUMNS: ColumnDef<TraceSummary>[] = [
  { id: "root", header: "What", rowHeader: true, sort: (trace) => trace.root, phone: "title", cell: (trace) => <span className="font-medium">{trace.root}</span> },
  {
    id: "outcome",
    header: "Outcome",
    sort: (trace) => trace.outcome,
    phone: "aside",
    cell: (trace) => <StatusDot tone={trace.outcome === "ok" ? "good" : "bad"}>{trace.outcome === "ok" ? "Fine" : "Error"}</StatusDot>,
  },
  {
    id: "duration",
    header: "Duration",
    sort: (trace) => -trace.duration_ms,
    phone: "line",
    cell: (trace) => <span className="tabular font-mono text-sm">{duration(trace.duration_ms)}</span>,
  },
  { id: "service", header: "Service", sort: (trace) => trace.service, cell: (trace) => <span className="text-muted">{trace.service}</span> },
  { id: "spans", header: "Spans", sort: (trace) => -trace.spans, cell: (trace) => <span className="tabular text-muted">{trace.spans}</span> },
  {
    id: "when",
    header: "Started",
    sort: (trace) => -Date.parse(trace.started_at),
    phone: "end",
    cell: (trace) => (
      <span className="text-muted">
        <Age at={trace.started_at} />
      </span>
    ),
  },
  { id: "id", header: "Trace", cell: (trace) => <code className="font-mono text-xs text-muted">{shortId(trace.trace_id)}</code> },
];

export function TracesPage() {
  const navigate = useNavigate();
  const [needle, setNeedle] = useState("");
  const traces = useQuery({ ...queries.traces(), staleTime: 0 });
  const shown = useMemo(() => {
    const text = needle.trim().toLowerCase();
    return (traces.data ?? []).filter((trace) => [trace.root, trace.service, trace.outcome, trace.trace_id].join(" ").toLowerCase().includes(text));
  }, [traces.data, needle]);
  return (
    <Page
      title="Traces"
      lead="The last requests and operations, with where their time went. Kept in memory; older ones make room."
      actions={
        <Button isPending={traces.isFetching} onPress={() => void traces.refetch()}>
          <RefreshIcon /> Refresh
        </Button>
      }
    >
      {traces.data !== undefined && traces.data.length > 0 ? <Filter label="Filter traces" value={needle} onChange={setNeedle} /> : null}
      <Panel>
        {traces.data === undefined ? (
          traces.isError ? (
            <ErrorState error={traces.error} title="Traces could not be loaded" onRetry={() => void traces.refetch()} />
          ) : (
            <TableSkeleton label="traces" />
          )
        ) : traces.data.length === 0 ? (
          <EmptyState title="No traces yet">They appear as soon as something is asked of this server. Set an OTLP endpoint to keep them for longer.</EmptyState>
        ) : (
          <DataTable
            label="Traces"
            rows={shown}
            rowId={(trace) => trace.trace_id}
            columns={COLUMNS}
            defaultSort={{ column: "when", direction: "ascending" }}
            onOpen={(trace) => void navigate({ to: "/traces/$traceId", params: { traceId: trace.trace_id } })}
            empty={<p className="px-6 py-8 text-center text-muted">No trace matches.</p>}
          />
        )}
      </Panel>
    </Page>
  );
}
