import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Button as AriaButton } from "react-aria-components/Button";
import { Disclosure, DisclosurePanel } from "react-aria-components/Disclosure";
import { Heading } from "react-aria-components/Heading";
import { usePollInterval } from "~/api/events";
import { queries } from "~/api/queries";
import type { NodeView, TierKey } from "~/api/types";
import { Page } from "~/app/page";
import { ErrorState } from "~/app/problem";
import { osLabel } from "~/features/machines/rules";
import { bytes, plural } from "~/ui/format";
import { ChevronRight } from "~/ui/icons";
import { Meter } from "~/ui/meter";
import { Segments } from "~/ui/segments";
import { Bone, EmptyState, Panel } from "~/ui/states";
import { Badge, StatusDot } from "~/ui/status";
import { reasonWord } from "./reasons";

const TIERS = [
  { key: "small", label: "Small" },
  { key: "medium", label: "Medium" },
  { key: "large", label: "Large" },
  { key: "xl", label: "XL" },
] as const;


export function NodesPage() {
  const [tier, setTier] = useState<TierKey>("medium");
  const poll = usePollInterval();
  const nodes = useQuery({ ...queries.nodes(tier), refetchInterval: poll === false ? 15_000 : poll, placeholderData: (before) => before });
  const list = nodes.data ?? [];
  return (
    <Page
      title="Nodes"
      lead="Where the next machine goes, and why. A node takes a machine when every gate lets it through; the best score wins."
      actions={
        <div className="flex items-center gap-3">
          <span className="text-sm text-muted max-sm:hidden">Score for</span>
          <Segments label="Score for size" options={TIERS} value={tier} onChange={setTier} />
        </div>
      }
    >
      {nodes.data === undefined ? (
        <Panel>
          {nodes.isError ? (
            <ErrorState error={nodes.error} title="Nodes could not be loaded" onRetry={() => void nodes.refetch()} />
          ) : (
            <div role="status" aria-label="Loading nodes" className="divide-y divide-line">
              {[0, 1, 2].map((row) => (
                <div key={row} className="grid gap-6 p-5 md:grid-cols-[11rem_repeat(3,minmax(0,1fr))_8rem]">
                  <Bone className="h-4 w-20" />
                  <Bone className="h-2 w-full" />
                  <Bone className="h-2 w-full" />
                  <Bone className="h-2 w-full" />
                  <Bone className="h-4 w-14" />
                </div>
              ))}
            </div>
          )}
        </Panel>
      ) : list.length === 0 ? (
        <Panel>
          <EmptyState title="No nodes">The cluster answers, and names no node that this installation may see.</EmptyState>
        </Panel>
      ) : (
        <>
          <NextPlacement nodes={list} />
          <ul aria-label="Nodes" className="flex flex-col gap-3">
            {list.map((node) => (
              <li key={node.name}>
                <NodeRow node={node} tier={tier} />
              </li>
            ))}
          </ul>
          <p className="flex flex-wrap items-center gap-x-5 gap-y-1 text-xs text-muted">
            <span className="inline-flex items-center gap-2">
              <span aria-hidden="true" className="h-1.5 w-4 rounded-full bg-accent" /> used now
            </span>
            <span className="inline-flex items-center gap-2">
              <span aria-hidden="true" className="h-1.5 w-4 rounded-full bg-[var(--indigo-6)]" /> promised to machines
            </span>
          </p>
          {nodes.isError ? (
            <p role="status" className="text-sm text-muted">
              The nodes could not be refreshed; these figures may be out of date.
            </p>
          ) : null}
        </>
      )}
    </Page>
  );
}

function NextPlacement({ nodes }: { nodes: NodeView[] }) {
  const next = TIERS.map((tier) => ({ ...tier, node: nodes.find((node) => node.next_for?.includes(tier.key))?.name ?? null }));
  if (nodes.every((node) => node.next_for == null)) return null;
  return (
    <section aria-label="Next placement" className="flex flex-wrap items-center gap-x-6 gap-y-2 rounded-lg border border-line bg-sunken px-4 py-2.5 text-sm">
      <h2 className="font-medium">Next placement</h2>
      <dl className="flex flex-wrap gap-x-6 gap-y-1">
        {next.map((tier) => (
          <div key={tier.key} className="flex items-baseline gap-2">
            <dt className="text-muted">{tier.label}</dt>
            <dd>{tier.node !== null ? <code className="font-mono font-medium">{tier.node}</code> : <span className="text-muted">no room</span>}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

function usedAndPromised(used: number, allocated: number): string {
  return allocated > 0 ? `${bytes(used)} used · ${bytes(allocated)} promised` : `${bytes(used)} used`;
}

function NodeRow({ node, tier }: { node: NodeView; tier: TierKey }) {
  const reasons = node.score?.reasons ?? [];
  const refused = reasons.length > 0;
  const online = node.status === "online";
  return (
    <Panel label={`Node ${node.name}`}>
      <Disclosure className="group/node">
        <div className="grid items-start gap-x-8 gap-y-4 px-5 py-4 md:grid-cols-[12rem_minmax(0,1fr)_9rem]">
          <div className="flex min-w-0 flex-col gap-1">
            <div className="flex items-center gap-3">
              <h2 className="font-mono text-base font-semibold">{node.name}</h2>
              <span className="text-sm">
                <StatusDot tone={online ? "good" : "bad"}>{online ? "Online" : "Offline"}</StatusDot>
              </span>
            </div>
            <span className="text-xs text-muted">
              {node.vm_count} of {plural(node.vm_count_total, "guest")} running
            </span>
          </div>
          <div className="grid min-w-0 gap-x-6 gap-y-3 sm:grid-cols-3">
            <Labelled title="Memory" total={bytes(node.mem_total)}>
              <Meter
                label={`Memory of ${node.name}`}
                used={node.mem_used}
                committed={node.mem_allocated}
                total={node.mem_total}
                text={usedAndPromised(node.mem_used, node.mem_allocated)}
              />
            </Labelled>
            <Labelled title="CPU" total={plural(node.max_cpu, "thread")}>
              <Meter label={`CPU of ${node.name}`} used={node.cpu} total={1} text={`${Math.round(node.cpu * 100)} % busy`} />
            </Labelled>
            <Labelled title={node.disk_pool_name != null ? `Disk ${node.disk_pool_name}` : "Disk"} total={bytes(node.disk_total)}>
              <Meter
                label={`Disk of ${node.name}`}
                used={node.disk_used}
                committed={node.disk_allocated}
                total={node.disk_total}
                text={usedAndPromised(node.disk_used, node.disk_allocated)}
              />
            </Labelled>
          </div>
          <div className="flex flex-col items-start gap-1 md:items-end">
            {node.score == null ? (
              <span className="text-sm text-muted">No score</span>
            ) : refused ? (
              <Badge tone="wait">Refused for {tier}</Badge>
            ) : (
              <span className="tabular text-lg font-semibold">
                <span className="sr-only">Score </span>
                {node.score.score.toFixed(3)}
              </span>
            )}
            {node.next_for != null && node.next_for.length > 0 ? <span className="text-xs text-muted md:text-right">next for {node.next_for.join(", ")}</span> : null}
          </div>
        </div>
        {refused ? (
          <p className="border-t border-line px-5 py-2 text-sm">
            <span className="text-muted">Refused for {tier}: </span>
            {reasons.map(reasonWord).join(", ")}.
          </p>
        ) : null}
        <Heading level={3} className="border-t border-line">
          <AriaButton
            slot="trigger"
            className="flex w-full items-center gap-1.5 px-5 py-2 text-sm text-muted data-hovered:text-fg data-focus-visible:-outline-offset-2"
          >
            <ChevronRight width={14} height={14} className="transition-transform duration-[120ms] group-data-expanded/node:rotate-90" />
            How it is scored
          </AriaButton>
        </Heading>
        <DisclosurePanel>
          <ScoreTable node={node} />
        </DisclosurePanel>
      </Disclosure>
    </Panel>
  );
}

function Labelled({ title, total, children }: { title: string; total: string; children: React.ReactNode }) {
  return (
    <div className="flex min-w-0 flex-col gap-1.5">
      <span className="flex justify-between gap-2 text-xs">
        <span className="truncate font-medium">{title}</span>
        <span className="tabular text-muted">{total}</span>
      </span>
      {children}
    </div>
  );
}

const PARTS = [
  { key: "mem", label: "Memory" },
  { key: "cpu", label: "CPU" },
  { key: "disk", label: "Disk" },
] as const;

function ScoreTable({ node }: { node: NodeView }) {
  const parts = node.score?.components;
  const figure = (key: keyof NonNullable<typeof parts>) => parts?.[key].toFixed(4) ?? "–";
  return (
    <div className="flex flex-wrap gap-x-12 gap-y-4 px-5 pt-1 pb-4 text-sm">
      {parts != null ? (
        <table className="tabular">
          <caption className="sr-only">Score of {node.name} by component</caption>
          <thead>
            <tr className="text-left text-xs text-muted">
              <th scope="col" className="pr-8 pb-1 font-medium">
                Component
              </th>
              <th scope="col" className="pr-8 pb-1 text-right font-medium">
                Headroom after placement
              </th>
              <th scope="col" className="pb-1 text-right font-medium">
                Weighted
              </th>
            </tr>
          </thead>
          <tbody className="font-mono">
            {PARTS.map((part) => (
              <tr key={part.key}>
                <th scope="row" className="pr-8 text-left font-sans font-normal">
                  {part.label}
                </th>
                <td className="pr-8 text-right">{figure(`${part.key}_headroom`)}</td>
                <td className="text-right">{figure(`${part.key}_weighted`)}</td>
              </tr>
            ))}
            <tr className="font-semibold">
              <th scope="row" className="pr-8 text-left font-sans font-semibold">
                Total
              </th>
              <td />
              <td className="text-right">{figure("total")}</td>
            </tr>
          </tbody>
        </table>
      ) : (
        <p className="text-muted">No figures: the node did not report any.</p>
      )}
      <dl className="grid grid-cols-[auto_1fr] content-start gap-x-6 gap-y-1">
        <dt className="text-muted">Templates</dt>
        <dd>{node.templates.length > 0 ? node.templates.map(osLabel).join(", ") : "none"}</dd>
        {node.ip != null ? (
          <>
            <dt className="text-muted">Address</dt>
            <dd className="font-mono">{node.ip}</dd>
          </>
        ) : null}
        {node.score != null ? (
          <>
            <dt className="text-muted">Kind</dt>
            <dd>{node.score.spec}</dd>
          </>
        ) : null}
        {[...node.tags, ...node.auto_tags].length > 0 ? (
          <>
            <dt className="text-muted">Tags</dt>
            <dd className="flex flex-wrap gap-1">
              {[...node.tags, ...node.auto_tags].map((tag) => (
                <Badge key={tag}>{tag}</Badge>
              ))}
            </dd>
          </>
        ) : null}
      </dl>
    </div>
  );
}
