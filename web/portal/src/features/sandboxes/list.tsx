import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useMemo, useState } from "react";
import { useWorkPoll } from "~/api/events";
import { queries } from "~/api/queries";
import type { Sandbox } from "~/api/workloads";
import { Page } from "~/app/page";
import { useTenant } from "~/app/tenant";
import { StaleNote, WorkError, WorkState } from "~/features/work/parts";
import { isActive, LIFECYCLE, startText } from "~/features/work/rules";
import { ButtonLink, IconButton } from "~/ui/button";
import { Copyable } from "~/ui/copy";
import { Filter } from "~/ui/filter";
import { plural } from "~/ui/format";
import { MoreIcon, PlusIcon } from "~/ui/icons";
import { Segments } from "~/ui/segments";
import { EmptyState, Panel, TableSkeleton } from "~/ui/states";
import { Badge } from "~/ui/status";
import { DataTable, type ColumnDef } from "~/ui/table";
import { Age } from "~/ui/time";
import { SandboxMenu } from "./actions";
import { imageName, imageOf, sandboxName, shortTail } from "./name";

const COLUMNS: ColumnDef<Sandbox>[] = [
  {
    id: "name",
    header: "Name",
    rowHeader: true,
    sort: sandboxName,
    phone: "title",
    cell: (sandbox) => (
      <span className="flex min-w-0 flex-col">
        <span className="block max-w-56 truncate font-medium">{sandboxName(sandbox)}</span>
      </span>
    ),
  },
  {
    id: "state",
    header: "State",
    sort: (sandbox) => LIFECYCLE[sandbox.status.lifecycleState].label,
    phone: "aside",
    cell: (sandbox) => <WorkState state={sandbox.status.lifecycleState} />,
  },
  {
    id: "id",
    header: "Id",
    cell: (sandbox) => <Copyable text={sandbox.metadata.id} shown={shortTail(sandbox.metadata.id)} label={`Copy id of ${sandboxName(sandbox)}`} />,
  },
  {
    id: "image",
    header: "Image",
    sort: (sandbox) => imageOf(sandbox) ?? "",
    phone: "line",
    cell: (sandbox) => {
      const image = imageOf(sandbox);
      return image === null ? (
        <span className="text-muted">not shown</span>
      ) : (
        <code title={image} className="block max-w-64 truncate font-mono text-sm">
          {imageName(image)}
        </code>
      );
    },
  },
  { id: "profile", header: "Profile", sort: (sandbox) => sandbox.spec.profile, cell: (sandbox) => sandbox.spec.profile },
  {
    id: "start",
    header: "Start",
    sort: (sandbox) => sandbox.status.startedAfterMs ?? Number.MAX_SAFE_INTEGER,
    cell: (sandbox) => {
      const text = startText(sandbox.status);
      if (text === null) return <span className="text-muted">–</span>;
      return <Badge tone={sandbox.status.start === "warm" ? "good" : "idle"}>{text}</Badge>;
    },
  },
  {
    id: "host",
    header: "Host",
    sort: (sandbox) => sandbox.status.host ?? "",
    cell: (sandbox) => <span className="font-mono text-sm text-muted">{sandbox.status.host ?? "–"}</span>,
  },
  {
    id: "age",
    header: "Age",
    sort: (sandbox) => -Date.parse(sandbox.metadata.createdAt),
    cell: (sandbox) => (
      <span className="text-muted">
        <Age at={sandbox.metadata.createdAt} />
      </span>
    ),
  },
  {
    id: "actions",
    header: "Actions",
    hideHeader: true,
    phone: "end",
    className: "text-right",
    cell: (sandbox) => (
      <SandboxMenu sandbox={sandbox}>
        <IconButton label={`Actions for ${sandboxName(sandbox)}`}>
          <MoreIcon />
        </IconButton>
      </SandboxMenu>
    ),
  },
];

type Shown = "all" | "active" | "ended";

function matches(sandbox: Sandbox, needle: string): boolean {
  const labels = Object.entries(sandbox.metadata.labels).map(([key, value]) => `${key}=${value}`);
  const text = [
    sandboxName(sandbox),
    sandbox.metadata.id,
    imageOf(sandbox),
    sandbox.spec.profile,
    sandbox.status.host,
    sandbox.status.start,
    LIFECYCLE[sandbox.status.lifecycleState].label,
    ...labels,
  ]
    .join(" ")
    .toLowerCase();
  return needle
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

export function SandboxesPage() {
  const tenant = useTenant();
  const navigate = useNavigate();
  const poll = useWorkPoll();
  const [needle, setNeedle] = useState("");
  const [shown, setShown] = useState<Shown>("all");
  const { data: sandboxes, error, refetch, isError } = useQuery({ ...queries.sandboxes(tenant), refetchInterval: poll });
  const active = useMemo(() => (sandboxes ?? []).filter((sandbox) => isActive(sandbox.status.lifecycleState)), [sandboxes]);
  const rows = useMemo(
    () =>
      (sandboxes ?? []).filter(
        (sandbox) => (shown === "all" || isActive(sandbox.status.lifecycleState) === (shown === "active")) && matches(sandbox, needle.trim()),
      ),
    [sandboxes, shown, needle],
  );
  const count = sandboxes?.length ?? 0;
  const warm = active.filter((sandbox) => sandbox.status.start === "warm").length;
  return (
    <Page
      title="Sandboxes"
      lead={count === 0 ? "An isolated world for one task." : `${plural(count, "sandbox", "sandboxes")}, ${active.length} active${warm > 0 ? `, ${warm} started warm` : ""}`}
      actions={
        count > 0 ? (
          <ButtonLink to="/sandboxes/new" kind="primary">
            <PlusIcon /> Create sandbox
          </ButtonLink>
        ) : undefined
      }
    >
      {count > 3 ? (
        <div className="flex flex-wrap items-center gap-3">
          <Filter label="Filter sandboxes" value={needle} onChange={setNeedle} />
          <Segments
            label="Which sandboxes"
            options={[
              { key: "all", label: "All", count },
              { key: "active", label: "Active", count: active.length },
              { key: "ended", label: "Ended", count: count - active.length },
            ]}
            value={shown}
            onChange={setShown}
          />
        </div>
      ) : null}
      <Panel>
        {sandboxes === undefined ? (
          isError ? (
            <WorkError error={error} title="Sandboxes could not be loaded" onRetry={() => void refetch()} />
          ) : (
            <TableSkeleton label="sandboxes" />
          )
        ) : count === 0 ? (
          <EmptyState
            title="No sandboxes yet"
            action={
              <ButtonLink to="/sandboxes/new" kind="primary">
                <PlusIcon /> Create sandbox
              </ButtonLink>
            }
            command="nimbus sandbox create busybox:1 -- sleep infinity"
          >
            A sandbox runs one image with no network but what you allow. It is there in milliseconds when a warm one waits, and gone when its time is over.
          </EmptyState>
        ) : (
          <DataTable
            label="Sandboxes"
            rows={rows}
            rowId={(sandbox) => sandbox.metadata.id}
            columns={COLUMNS}
            defaultSort={{ column: "age", direction: "ascending" }}
            onOpen={(sandbox) => void navigate({ to: "/sandboxes/$sandboxId", params: { sandboxId: sandbox.metadata.id } })}
            empty={<p className="px-6 py-8 text-center text-muted">{needle === "" ? "None of these." : `No sandbox matches “${needle}”.`}</p>}
          />
        )}
      </Panel>
      {sandboxes !== undefined && isError ? <StaleNote what="The list" /> : null}
    </Page>
  );
}
