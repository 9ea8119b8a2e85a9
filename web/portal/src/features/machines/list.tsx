import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useMemo, useState } from "react";
import { usePollInterval } from "~/api/events";
import { queries } from "~/api/queries";
import type { Machine } from "~/api/types";
import { Page } from "~/app/page";
import { ErrorState } from "~/app/problem";
import { ButtonLink, IconButton } from "~/ui/button";
import { Copyable, CopyButton } from "~/ui/copy";
import { Filter } from "~/ui/filter";
import { plural } from "~/ui/format";
import { MoreIcon, OsGlyph, PlusIcon, TerminalIcon } from "~/ui/icons";
import { EmptyState, Panel, TableSkeleton } from "~/ui/states";
import { Notice } from "~/ui/status";
import { DataTable, type ColumnDef } from "~/ui/table";
import { Age } from "~/ui/time";
import { MachineMenu } from "./actions";
import { osLabel, STATUS } from "./rules";
import { MachineState } from "./state";
import { sshCommand } from "./ssh";

const COLUMNS: ColumnDef<Machine>[] = [
  {
    id: "name",
    header: "Name",
    rowHeader: true,
    sort: (machine) => machine.hostname,
    phone: "title",
    cell: (machine) => <span className="block max-w-64 truncate font-medium">{machine.hostname}</span>,
  },
  {
    id: "state",
    header: "State",
    sort: (machine) => STATUS[machine.status].label,
    phone: "aside",
    cell: (machine) => <MachineState machine={machine} />,
  },
  {
    id: "address",
    header: "Address",
    sort: (machine) => machine.ip ?? "",
    phone: "line",
    cell: (machine) =>
      machine.ip != null ? (
        <Copyable text={machine.ip} label={`Copy address of ${machine.hostname}`} />
      ) : (
        <span className="text-muted">none yet</span>
      ),
  },
  { id: "tier", header: "Tier", sort: (machine) => machine.tier, cell: (machine) => machine.tier },
  {
    id: "os",
    header: "OS",
    sort: (machine) => machine.os_template,
    cell: (machine) => (
      <span className="flex items-center gap-2 whitespace-nowrap">
        <OsGlyph os={machine.os_template} size={16} />
        {osLabel(machine.os_template)}
      </span>
    ),
  },
  {
    id: "node",
    header: "Node",
    sort: (machine) => machine.node ?? "",
    cell: (machine) => <span className="font-mono text-sm text-muted">{machine.node ?? "–"}</span>,
  },
  {
    id: "age",
    header: "Age",
    sort: (machine) => -Date.parse(machine.CreatedAt),
    cell: (machine) => (
      <span className="text-muted">
        <Age at={machine.CreatedAt} />
      </span>
    ),
  },
  {
    id: "actions",
    header: "Actions",
    hideHeader: true,
    phone: "end",
    className: "text-right",
    cell: (machine) => {
      const command = sshCommand(machine);
      return (
        <span className="inline-flex items-center justify-end gap-0.5">
          {command !== null && machine.status === "running" ? <SshButton name={machine.hostname} command={command} /> : null}
          <MachineMenu machine={machine}>
            <IconButton label={`Actions for ${machine.hostname}`}>
              <MoreIcon />
            </IconButton>
          </MachineMenu>
        </span>
      );
    },
  },
];

function SshButton({ name, command }: { name: string; command: string }) {
  return (
    <span className="inline-flex items-center rounded border border-line pl-1.5 text-xs text-muted">
      <TerminalIcon width={14} height={14} />
      <span className="pl-1 font-medium" aria-hidden="true">
        SSH
      </span>
      <CopyButton text={command} label={`Copy SSH command of ${name}`} className="size-6" />
    </span>
  );
}

function matches(machine: Machine, needle: string): boolean {
  const text = [machine.hostname, machine.ip, machine.node, machine.tier, machine.os_template, STATUS[machine.status].label].join(" ").toLowerCase();
  return needle
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

export function MachinesPage() {
  const navigate = useNavigate();
  const poll = usePollInterval();
  const [needle, setNeedle] = useState("");
  const { data: machines, error, refetch, isError } = useQuery({ ...queries.machines(), refetchInterval: poll });
  const { data: catalog } = useQuery(queries.catalog());
  const shown = useMemo(() => (machines ?? []).filter((machine) => matches(machine, needle.trim())), [machines, needle]);

  const running = machines?.filter((machine) => machine.status === "running").length ?? 0;
  const limit = catalog?.quota.limit;
  const lead =
    machines === undefined || machines.length === 0
      ? "Linux machines with an address of their own."
      : `${plural(machines.length, "machine")}, ${running} running${limit != null && catalog ? ` · ${catalog.quota.used} of ${limit} used` : ""}`;

  return (
    <Page
      title="Machines"
      lead={lead}
      actions={
        machines !== undefined && machines.length > 0 ? (
          <ButtonLink to="/machines/new" kind="primary">
            <PlusIcon /> Create machine
          </ButtonLink>
        ) : undefined
      }
    >
      {catalog?.cluster.reachable === false ? (
        <Notice tone="wait" title="The cluster does not answer" role="status">
          <p>States below are the last known ones. {catalog.cluster.error ?? ""}</p>
        </Notice>
      ) : null}
      {machines !== undefined && machines.length > 3 ? (
        <Filter label="Filter machines" value={needle} onChange={setNeedle} />
      ) : null}
      <Panel>
        {machines === undefined ? (
          isError ? (
            <ErrorState error={error} title="Machines could not be loaded" onRetry={() => void refetch()} />
          ) : (
            <TableSkeleton label="machines" />
          )
        ) : machines.length === 0 ? (
          <EmptyState
            title="No machines yet"
            action={
              <ButtonLink to="/machines/new" kind="primary">
                <PlusIcon /> Create machine
              </ButtonLink>
            }
            command="nimbus vm create web-1 --tier small --os ubuntu-24.04"
          >
            A machine is a Linux VM with a static address and SSH access. It takes about a minute.
          </EmptyState>
        ) : (
          <DataTable
            label="Machines"
            rows={shown}
            rowId={(machine) => machine.ID}
            columns={COLUMNS}
            defaultSort={{ column: "age", direction: "ascending" }}
            onOpen={(machine) => void navigate({ to: "/machines/$machineId", params: { machineId: machine.ID } })}
            empty={<p className="px-6 py-8 text-center text-muted">No machine matches “{needle}”.</p>}
          />
        )}
      </Panel>
      {machines !== undefined && isError ? (
        <p role="status" className="text-sm text-muted">
          The list could not be refreshed; it may be out of date.
        </p>
      ) : null}
    </Page>
  );
}
