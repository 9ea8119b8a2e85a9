import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { api } from "~/api/endpoints";
import { usePollInterval } from "~/api/events";
import { keys, queries } from "~/api/queries";
import type { AddressRow, ReconcileReport } from "~/api/types";
import { Page } from "~/app/page";
import { ErrorState, InlineError } from "~/app/problem";
import { Button } from "~/ui/button";
import { Copyable } from "~/ui/copy";
import { Filter } from "~/ui/filter";
import { exactTime, percent, plural } from "~/ui/format";
import { RefreshIcon } from "~/ui/icons";
import { Segments } from "~/ui/segments";
import { EmptyState, Panel, TableSkeleton } from "~/ui/states";
import { Badge, StatusDot, type Tone } from "~/ui/status";
import { DataTable, type ColumnDef } from "~/ui/table";
import { Age } from "~/ui/time";

type Show = "all" | "free" | "reserved" | "allocated";

const STATUS: Record<string, { label: string; tone: Tone }> = {
  free: { label: "Free", tone: "idle" },
  reserved: { label: "Reserved", tone: "wait" },
  allocated: { label: "Allocated", tone: "good" },
};

const SOURCE: Record<string, string> = { local: "ours", adopted: "adopted from the cluster", external: "seen on the network" };

function numeric(ip: string): number {
  return ip.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
}

const COLUMNS: ColumnDef<AddressRow>[] = [
  {
    id: "ip",
    header: "Address",
    rowHeader: true,
    sort: (row) => numeric(row.ip),
    phone: "title",
    cell: (row) => <Copyable text={row.ip} label={`Copy ${row.ip}`} />,
  },
  {
    id: "status",
    header: "State",
    sort: (row) => row.status,
    phone: "aside",
    cell: (row) => {
      const status = STATUS[row.status];
      return <StatusDot tone={status?.tone ?? "idle"}>{status?.label ?? row.status}</StatusDot>;
    },
  },
  {
    id: "machine",
    header: "Machine",
    sort: (row) => row.hostname ?? "",
    phone: "line",
    cell: (row) =>
      row.hostname != null || row.vmid != null ? (
        <span className="inline-flex items-baseline gap-2">
          {row.hostname ?? ""}
          {row.vmid != null ? <span className="font-mono text-xs text-muted">{row.vmid}</span> : null}
        </span>
      ) : (
        <span className="text-muted">–</span>
      ),
  },
  {
    id: "source",
    header: "Held by",
    sort: (row) => (row.status === "free" ? "" : row.source),
    cell: (row) => (row.status === "free" ? <span className="text-muted">–</span> : (SOURCE[row.source] ?? row.source)),
  },
  {
    id: "since",
    header: "Since",
    cell: (row) => {
      const at = row.allocated_at ?? row.reserved_at;
      return <span className="text-muted">{row.status !== "free" && at != null ? <Age at={at} /> : "–"}</span>;
    },
  },
  {
    id: "seen",
    header: "Last seen",
    cell: (row) => (
      <span className="inline-flex items-center gap-2 text-muted">
        {row.last_seen_at != null ? <Age at={row.last_seen_at} /> : "–"}
        {row.missed_cycles > 0 ? <Badge tone="wait">missed {row.missed_cycles}</Badge> : null}
        {row.stranded ? <Badge tone="wait">outside the pool</Badge> : null}
      </span>
    ),
  },
];

export function AddressesPage() {
  const client = useQueryClient();
  const poll = usePollInterval();
  const [show, setShow] = useState<Show>("all");
  const [needle, setNeedle] = useState("");
  const addresses = useQuery({ ...queries.addresses(), refetchInterval: poll });
  const reconcile = useMutation({
    mutationFn: api.reconcileAddresses,
    onSuccess: () => client.invalidateQueries({ queryKey: keys.addresses }),
  });
  const rows = useMemo(() => addresses.data ?? [], [addresses.data]);
  const count = (status: string) => rows.filter((row) => row.status === status).length;
  const shown = useMemo(() => {
    const text = needle.trim().toLowerCase();
    return rows.filter(
      (row) => (show === "all" || row.status === show) && [row.ip, row.hostname, row.vmid].join(" ").toLowerCase().includes(text),
    );
  }, [rows, show, needle]);
  const used = rows.length - count("free");

  return (
    <Page
      title="Addresses"
      lead="The pool that machines get their static address from. The lowest free one goes next."
      actions={
        <Button
          isPending={reconcile.isPending}
          pendingLabel="Comparing"
          onPress={() => {
            reconcile.mutate();
          }}
        >
          <RefreshIcon /> Reconcile now
        </Button>
      }
    >
      {reconcile.isError ? <InlineError error={reconcile.error} /> : null}
      {reconcile.data !== undefined ? <Report report={reconcile.data} /> : null}
      {addresses.data === undefined ? (
        <Panel>
          {addresses.isError ? (
            <ErrorState error={addresses.error} title="The pool could not be loaded" onRetry={() => void addresses.refetch()} />
          ) : (
            <TableSkeleton label="addresses" rows={8} />
          )}
        </Panel>
      ) : (
        <>
          <PoolBar free={count("free")} reserved={count("reserved")} allocated={count("allocated")} total={rows.length} used={used} />
          <div className="flex flex-wrap items-center gap-3">
            <Segments<Show>
              label="Show"
              value={show}
              onChange={setShow}
              options={[
                { key: "all", label: "All", count: rows.length },
                { key: "free", label: "Free", count: count("free") },
                { key: "reserved", label: "Reserved", count: count("reserved") },
                { key: "allocated", label: "Allocated", count: count("allocated") },
              ]}
            />
            <Filter label="Filter addresses" value={needle} onChange={setNeedle} />
          </div>
          <Panel>
            {rows.length === 0 ? (
              <EmptyState title="The pool is empty">Give the pool a first and a last address in the configuration of the server.</EmptyState>
            ) : (
              <DataTable
                label="Addresses"
                rows={shown}
                rowId={(row) => row.ip}
                columns={COLUMNS}
                defaultSort={{ column: "ip", direction: "ascending" }}
                empty={<p className="px-6 py-8 text-center text-muted">No address matches.</p>}
              />
            )}
          </Panel>
        </>
      )}
    </Page>
  );
}

function PoolBar({ free, reserved, allocated, total, used }: { free: number; reserved: number; allocated: number; total: number; used: number }) {
  return (
    <section aria-label="Pool" className="flex flex-col gap-2">
      <div
        role="meter"
        aria-label="Addresses in use"
        aria-valuemin={0}
        aria-valuemax={total}
        aria-valuenow={used}
        aria-valuetext={`${used} of ${total} in use`}
        className="flex h-2 gap-px overflow-hidden rounded-full bg-track"
      >
        <span className="bg-good" style={{ width: `${percent(allocated, total)}%` }} />
        <span className="bg-wait" style={{ width: `${percent(reserved, total)}%` }} />
      </div>
      <p className="tabular flex flex-wrap gap-x-5 gap-y-1 text-sm text-muted">
        <StatusDot tone="good">{allocated} allocated</StatusDot>
        <StatusDot tone="wait">{reserved} reserved</StatusDot>
        <StatusDot tone="idle">{free} free</StatusDot>
      </p>
    </section>
  );
}

function Report({ report }: { report: ReconcileReport }) {
  const changed = report.adopted.length + report.conflicts.length + report.freed.length + report.vacated.length;
  return (
    <Panel label="Reconcile report">
      <div role="status" className="flex flex-col gap-2 px-5 py-4 text-sm">
        <h2 className="font-semibold">
          {changed === 0 ? "Pool and cluster agree" : `${plural(changed, "difference")} found`}
        </h2>
        <p className="text-muted">
          Compared with the cluster as of {exactTime(report.snapshot_at)}; {plural(report.no_ops, "address", "addresses")} unchanged.
        </p>
        {changed > 0 ? (
          <ul className="flex flex-col gap-1">
            {report.adopted.map((item) => (
              <li key={`a${item.ip}`}>
                <code className="font-mono">{item.ip}</code> adopted: used by {item.hostname ?? "a guest"}
                 (VMID {item.vmid}), was {item.prior_status}.
              </li>
            ))}
            {report.conflicts.map((item) => (
              <li key={`c${item.ip}`} className="text-bad-text">
                <code className="font-mono">{item.ip}</code> conflict: allocated to VMID {item.local_vmid}, used by VMID {item.proxmox_vmid} on{" "}
                {item.node}.
              </li>
            ))}
            {report.freed.length > 0 ? <li>{plural(report.freed.length, "expired reservation")} freed.</li> : null}
            {report.vacated.length > 0 ? <li>{plural(report.vacated.length, "address", "addresses")} vacated: the guest is gone.</li> : null}
          </ul>
        ) : null}
      </div>
    </Panel>
  );
}
