import { useQuery } from "@tanstack/react-query";
import { queries } from "~/api/queries";
import type { OsChoice, Tier } from "~/api/types";
import { explain } from "~/app/problem";
import { reasonWord } from "~/features/nodes/reasons";
import { CommandLine } from "~/ui/copy";
import { mib } from "~/ui/format";
import { Bone } from "~/ui/states";
import type { KeyMode } from "./draft";

/** What will happen when the button is pressed, on which node and why. */
export function Plan({ tier, os, hostname, keyMode, reachable }: { tier: Tier | null; os: OsChoice | null; hostname: string | null; keyMode: KeyMode; reachable: boolean }) {
  const placement = useQuery({
    ...queries.placement(reachable ? (tier?.key ?? null) : null, reachable ? (os?.key ?? null) : null),
    refetchInterval: 15_000,
  });
  const node = placement.data?.node ?? null;
  const rejected = placement.data?.rejected ?? [];
  const name = hostname ?? "machine";
  return (
    <aside aria-label="What will happen" className="flex flex-col gap-4 rounded-lg border border-line bg-sunken p-5 text-sm xl:sticky xl:top-20">
      <h2 className="text-base font-semibold">What will happen</h2>
      <ol className="flex flex-col gap-3">
        <Line n={1}>The lowest free address of the pool is reserved and checked against the cluster.</Line>
        <Line n={2}>
          {placement.isPending && placement.fetchStatus !== "idle" ? (
            <span className="flex flex-col gap-1.5 pt-1" role="status" aria-label="Choosing a node">
              <Bone className="h-3 w-40" />
              <Bone className="h-3 w-52" />
            </span>
          ) : node !== null ? (
            <>
              <span>
                It goes to <code className="font-mono font-medium">{node}</code>.
              </span>
              {placement.data !== undefined && placement.data.reasons !== "" ? <span className="text-muted">{placement.data.reasons}</span> : null}
            </>
          ) : placement.isError ? (
            <span>The node is chosen when it starts. {explain(placement.error).what}</span>
          ) : placement.data ? (
            <span className="font-medium">No node takes this size with this system at the moment.</span>
          ) : (
            <span>The node with the best score is chosen.</span>
          )}
          {rejected.length > 0 ? (
            <ul className="mt-1 flex flex-col gap-0.5 text-xs text-muted">
              {rejected.map((item, index) => (
                <li key={item.node ?? index}>
                  {item.node != null ? <code className="font-mono">{item.node}</code> : "A node"} was refused: {item.reasons.map(reasonWord).join(", ")}.
                </li>
              ))}
            </ul>
          ) : null}
        </Line>
        <Line n={3}>
          {os !== null && tier !== null ? (
            <span>
              {os.label} is cloned with {tier.vcpu} vCPU, {mib(tier.mem_mib)} memory and a {tier.disk_gib} GiB disk.
            </span>
          ) : (
            "The template is cloned and sized."
          )}
        </Line>
        <Line n={4}>
          {keyMode === "generate"
            ? "It starts with a fresh Ed25519 key, whose private half you download once."
            : "It starts with your public key, and nobody else's."}
        </Line>
      </ol>
      <div className="flex flex-col gap-1.5 border-t border-line pt-4">
        <p className="text-xs text-muted">The same from a terminal</p>
        <CommandLine
          command={`nimbus vm create ${name} --tier ${tier?.key ?? "small"} --os ${os?.key ?? "ubuntu-24.04"}${keyMode === "generate" ? " --generate-key" : ""}`}
          label="create command"
          wrap
        />
      </div>
    </aside>
  );
}

function Line({ n, children }: { n: number; children: React.ReactNode }) {
  return (
    <li className="flex gap-3">
      <span aria-hidden="true" className="tabular flex size-5 shrink-0 items-center justify-center rounded-full border border-line-strong text-xs text-muted">
        {n}
      </span>
      <div className="flex min-w-0 flex-col gap-0.5">{children}</div>
    </li>
  );
}
