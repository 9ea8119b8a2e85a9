import { useQuery, type UseQueryResult } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { queries } from "~/api/queries";
import type { Trace } from "~/api/types";
import { Page } from "~/app/page";
import { ErrorState } from "~/app/problem";
import { ButtonLink } from "~/ui/button";
import { Copyable } from "~/ui/copy";
import { duration } from "~/ui/format";
import { Bone, EmptyState, Panel } from "~/ui/states";
import { extent, slowest, spanTitle, waterfall } from "./model";
import { Waterfall } from "./waterfall";

const traceRoute = getRouteApi("/session/admin/traces/$traceId");
const operationRoute = getRouteApi("/session/operations/$operationId/trace");

export function TracePage() {
  const { traceId } = traceRoute.useParams();
  return <TraceView query={useQuery(queries.trace(traceId))} />;
}

export function OperationTracePage() {
  const { operationId } = operationRoute.useParams();
  const operation = useQuery(queries.operation(operationId));
  const running = operation.data?.state === "running" || operation.data?.state === "queued";
  const trace = useQuery({ ...queries.operationTrace(operationId), refetchInterval: running ? 3_000 : false });
  return <TraceView query={trace} back={operationId} />;
}

function TraceView({ query, back }: { query: UseQueryResult<Trace>; back?: string }) {
  const trace = query.data;
  if (trace === undefined) {
    return (
      <Page title="Trace">
        <Panel>
          {query.isError ? (
            <ErrorState error={query.error} title="The trace could not be loaded" onRetry={() => void query.refetch()} />
          ) : (
            <div role="status" aria-label="Loading trace" className="flex flex-col gap-3 p-5">
              {[90, 70, 50, 60, 30, 45].map((width) => (
                <Bone key={width} className="h-4" />
              ))}
            </div>
          )}
        </Panel>
      </Page>
    );
  }
  const rows = waterfall(trace.spans);
  const { from, to } = extent(trace.spans);
  const worst = slowest(rows);
  const total = to - from;
  return (
    <Page
      title={rows[0] ? spanTitle(rows[0].span) : "Trace"}
      lead={
        worst === null ? undefined : (
          <>
            {duration(total / 1000)} in {trace.spans.length} spans. Most of it, {duration(worst.selfUs / 1000)} ({Math.round((worst.selfUs / total) * 100)} %), was spent in{" "}
            <span className="font-medium text-fg">{spanTitle(worst.span)}</span> of {worst.span.service}.
          </>
        )
      }
      actions={
        <>
          <Copyable text={trace.trace_id} shown={`${trace.trace_id.slice(0, 8)}…`} label="Copy trace id" />
          {back !== undefined ? (
            <ButtonLink to="/operations/$operationId" params={{ operationId: back }}>
              Back to the operation
            </ButtonLink>
          ) : null}
        </>
      }
    >
      <Panel>
        {rows.length === 0 ? (
          <EmptyState title="No spans left">The server kept the name of this trace and made room for newer spans.</EmptyState>
        ) : (
          <Waterfall rows={rows} from={from} to={to} slowestId={worst?.span.span_id ?? null} />
        )}
      </Panel>
    </Page>
  );
}
