import { useQuery } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { queries } from "~/api/queries";
import { Page } from "~/app/page";
import { ErrorState } from "~/app/problem";
import { StaleNote } from "~/features/work/parts";
import { plural } from "~/ui/format";
import { Segments } from "~/ui/segments";
import { Bone, EmptyState, Panel } from "~/ui/states";
import { DataTable, type ColumnDef } from "~/ui/table";
import { useNow } from "~/ui/time";
import { Owner } from "./jobs";
import { GpuTabs, useViewer } from "./parts";
import { count, perDay, totals, type Day, type Total } from "./usage-model";

const PERIODS = [
  { key: "7", label: "7 days" },
  { key: "30", label: "30 days" },
  { key: "90", label: "90 days" },
] as const;

const WHOSE = [
  { key: "own", label: "Yours" },
  { key: "all", label: "Everybody’s" },
] as const;

const REFRESH_MS = 30_000;

export function GpuUsagePage() {
  const viewer = useViewer();
  const [period, setPeriod] = useState<(typeof PERIODS)[number]["key"]>("30");
  const [whose, setWhose] = useState<(typeof WHOSE)[number]["key"]>("own");
  const days = Number(period);
  const { data, error, isError, refetch } = useQuery({ ...queries.gpuUsage(days, whose === "all"), refetchInterval: REFRESH_MS, placeholderData: (before) => before });
  const now = useNow(false);
  const rows = useMemo(() => totals(data ?? []), [data]);
  const sum = rows.reduce((total, row) => total + row.prompt_tokens + row.completion_tokens, 0);
  const requests = rows.reduce((total, row) => total + row.requests, 0);
  const table = useMemo(() => columns(whose === "all", viewer.id), [whose, viewer.id]);
  return (
    <Page title="GPU usage" heading="GPU" lead="What was asked of models, in tokens and requests, by day in UTC.">
      <GpuTabs />
      <div className="flex flex-wrap items-center gap-3">
        <Segments label="Period" options={PERIODS} value={period} onChange={setPeriod} />
        {viewer.admin ? <Segments label="Whose usage" options={WHOSE} value={whose} onChange={setWhose} /> : null}
      </div>
      {data === undefined ? (
        <Panel>
          {isError ? (
            <ErrorState error={error} title="Usage could not be loaded" onRetry={() => void refetch()} />
          ) : (
            <div role="status" aria-label="Loading usage" className="p-5">
              <Bone className="h-40 w-full" />
            </div>
          )}
        </Panel>
      ) : rows.length === 0 ? (
        <Panel>
          <EmptyState title="Nothing was asked">
            {whose === "all" ? "Nobody" : "You have"} {whose === "all" ? "has asked" : "asked"} no model anything in these {days} days. Requests from programs, machines and the playground count here.
          </EmptyState>
        </Panel>
      ) : (
        <>
          <Panel label="Tokens by day">
            <div className="flex flex-col gap-4 p-4">
              <p className="flex flex-wrap items-baseline gap-x-6 gap-y-1">
                <span>
                  <span className="tabular text-xl font-semibold">{count(sum)}</span> <span className="text-muted">tokens</span>
                </span>
                <span>
                  <span className="tabular text-xl font-semibold">{count(requests)}</span> <span className="text-muted">{requests === 1 ? "request" : "requests"}</span>
                </span>
              </p>
              <Bars days={perDay(data, days, now)} />
            </div>
          </Panel>
          <Panel>
            <DataTable label="Usage by model" rows={rows} rowId={(row) => row.key} columns={table} empty={null} />
          </Panel>
          {rows.some((row) => row.estimated) ? <p className="text-sm text-muted">~ Streams that told no usage were counted by their pieces.</p> : null}
        </>
      )}
      {data !== undefined && isError ? <StaleNote what="The usage" /> : null}
    </Page>
  );
}

function Bars({ days }: { days: readonly Day[] }) {
  const most = Math.max(1, ...days.map((day) => day.tokens));
  const busiest = days.reduce<Day | null>((best, day) => (best === null || day.tokens > best.tokens ? day : best), null);
  const first = days[0]?.day ?? "";
  const last = days.at(-1)?.day ?? "";
  return (
    <figure className="flex flex-col gap-1.5">
      <div
        role="img"
        aria-label={`Tokens by day from ${first} to ${last}${busiest === null ? "" : `; most on ${busiest.day}, ${count(busiest.tokens)} in ${plural(busiest.requests, "request")}`}`}
        className="flex h-32 items-end gap-px"
      >
        {days.map((day) => (
          <span key={day.day} title={`${day.day}: ${count(day.tokens)} tokens, ${plural(day.requests, "request")}`} className="flex h-full min-w-0 flex-1 items-end rounded-t-sm hover:bg-hover">
            <span className="w-full rounded-t-sm bg-accent" style={{ height: day.tokens === 0 ? "1px" : `${Math.max(2, (day.tokens / most) * 100)}%`, opacity: day.tokens === 0 ? 0.25 : 1 }} />
          </span>
        ))}
      </div>
      <figcaption className="tabular flex justify-between text-xs text-muted">
        <span>{first}</span>
        <span>{last}</span>
      </figcaption>
    </figure>
  );
}

function columns(isEverybody: boolean, viewer: string): ColumnDef<Total>[] {
  const number = (id: keyof Pick<Total, "requests" | "prompt_tokens" | "completion_tokens">, header: string): ColumnDef<Total> => ({
    id,
    header,
    className: "text-right",
    sort: (row) => -row[id],
    cell: (row) => (
      <span className="tabular" title={String(row[id])}>
        {row.estimated && id !== "requests" ? "~ " : ""}
        {count(row[id])}
      </span>
    ),
  });
  return [
    {
      id: "model",
      header: "Model",
      rowHeader: true,
      phone: "title",
      sort: (row) => row.model,
      cell: (row) => <code className="block truncate font-mono text-sm">{row.model === "" ? "unknown" : row.model}</code>,
    },
    ...(isEverybody ? [{ id: "user", header: "User", sort: (row: Total) => row.user_id, phone: "line" as const, cell: (row: Total) => <Owner job={{ owner_id: row.user_id, owner_name: row.user_name }} viewer={viewer} /> }] : []),
    { ...number("requests", "Requests"), phone: "aside" },
    number("prompt_tokens", "Tokens sent"),
    { ...number("completion_tokens", "Tokens received"), phone: "end" },
  ];
}
