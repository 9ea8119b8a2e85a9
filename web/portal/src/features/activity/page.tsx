import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { useMemo, useState } from "react";
import { usePollInterval } from "~/api/events";
import { queries } from "~/api/queries";
import type { Operation } from "~/api/types";
import { Page } from "~/app/page";
import { ErrorState } from "~/app/problem";
import { TEXT_LINK } from "~/features/auth/frame";
import { OperationState } from "~/features/operations/page";
import { isActive, operationTitle, took } from "~/features/operations/steps";
import { Filter } from "~/ui/filter";
import { duration, plural, sentence } from "~/ui/format";
import { EmptyState, Panel, TableSkeleton } from "~/ui/states";
import { DataTable, type ColumnDef } from "~/ui/table";
import { Age } from "~/ui/time";

const COLUMNS: ColumnDef<Operation>[] = [
  {
    id: "what",
    header: "Operation",
    rowHeader: true,
    sort: (operation) => operation.target_label,
    phone: "title",
    cell: (operation) => <span className="font-medium">{operationTitle(operation)}</span>,
  },
  { id: "state", header: "State", sort: (operation) => operation.state, phone: "aside", cell: (operation) => <OperationState operation={operation} /> },
  {
    id: "where",
    header: "Step",
    phone: "line",
    cell: (operation) => <StepText operation={operation} />,
  },
  {
    id: "took",
    header: "Took",
    sort: (operation) => took(operation, Date.parse(operation.created_at)),
    cell: (operation) => <span className="tabular text-muted">{isActive(operation) ? "–" : duration(took(operation, 0))}</span>,
  },
  {
    id: "when",
    header: "Started",
    sort: (operation) => -Date.parse(operation.created_at),
    phone: "end",
    cell: (operation) => (
      <span className="text-muted">
        <Age at={operation.created_at} />
      </span>
    ),
  },
  {
    id: "trace",
    header: "Trace",
    hideHeader: true,
    className: "text-right",
    cell: (operation) =>
      operation.trace_id != null ? (
        <Link to="/operations/$operationId/trace" params={{ operationId: operation.id }} className={TEXT_LINK} aria-label={`Trace of ${operationTitle(operation)}`}>
          Trace
        </Link>
      ) : null,
  },
];

function StepText({ operation }: { operation: Operation }) {
  const failed = operation.steps.find((step) => step.state === "failed");
  const active = operation.steps.find((step) => step.state === "running" || step.state === "undoing");
  if (operation.state === "failed") {
    return (
      <span className="block max-w-md truncate text-muted">
        {failed ? `${failed.label}: ` : ""}
        {sentence(operation.fault?.message ?? operation.message)}
      </span>
    );
  }
  if (active) return <span className="text-muted">{active.label}</span>;
  return <span className="text-muted">{operation.steps.length > 0 ? plural(operation.steps.length, "step") : "–"}</span>;
}

export function ActivityPage() {
  const navigate = useNavigate();
  const poll = usePollInterval();
  const [needle, setNeedle] = useState("");
  const operations = useQuery({ ...queries.operations(), refetchInterval: poll });
  const shown = useMemo(() => {
    const text = needle.trim().toLowerCase();
    return (operations.data ?? []).filter((operation) => [operationTitle(operation), operation.id, operation.state].join(" ").toLowerCase().includes(text));
  }, [operations.data, needle]);
  return (
    <Page title="Activity" lead="What Nimbus did and does, newest first.">
      {operations.data !== undefined && operations.data.length > 0 ? <Filter label="Filter activity" value={needle} onChange={setNeedle} /> : null}
      <Panel>
        {operations.data === undefined ? (
          operations.isError ? (
            <ErrorState error={operations.error} title="Activity could not be loaded" onRetry={() => void operations.refetch()} />
          ) : (
            <TableSkeleton label="activity" />
          )
        ) : operations.data.length === 0 ? (
          <EmptyState title="Nothing happened yet">Creating, starting, stopping and deleting machines shows up here, with every step.</EmptyState>
        ) : (
          <DataTable
            label="Activity"
            rows={shown}
            rowId={(operation) => operation.id}
            columns={COLUMNS}
            defaultSort={{ column: "when", direction: "ascending" }}
            onOpen={(operation) => void navigate({ to: "/operations/$operationId", params: { operationId: operation.id } })}
            empty={<p className="px-6 py-8 text-center text-muted">No operation matches.</p>}
          />
        )}
      </Panel>
    </Page>
  );
}
