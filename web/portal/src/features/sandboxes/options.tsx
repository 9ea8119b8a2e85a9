import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { queries } from "~/api/queries";
import type { Policy } from "~/api/workloads";
import { SecretDialog } from "~/features/access/secrets";
import { Button } from "~/ui/button";
import { Combo } from "~/ui/combo";
import { Field } from "~/ui/field";
import { Fold } from "~/ui/fold";
import { plural } from "~/ui/format";
import { Rows } from "~/ui/rows";
import { Select } from "~/ui/select";
import { Switch } from "~/ui/switch";
import type { Problems, Protocol, SandboxDraft } from "./draft";

const PROTOCOLS: readonly { key: Protocol; label: string }[] = [
  { key: "http", label: "HTTP" },
  { key: "https", label: "HTTPS" },
  { key: "tcp", label: "TCP" },
];

const SEALED = "The policy of this tenant does not let you set this. Ask the operator.";

function Problem({ text }: { text: string | undefined }) {
  return text === undefined ? null : (
    <p role="alert" className="text-xs font-medium text-bad-text">
      {text}
    </p>
  );
}

function counted(count: number, one: string, none: string): string {
  return count === 0 ? none : plural(count, one);
}

/** What most sandboxes do without. */
export function Options({
  draft,
  change,
  problems,
  policy,
  tenant,
}: {
  draft: SandboxDraft;
  change: (part: Partial<SandboxDraft>) => void;
  problems: Problems;
  policy: Policy;
  tenant: string;
}) {
  const { data: secrets } = useQuery(queries.secrets(tenant));
  const { data: volumes } = useQuery(queries.volumes(tenant));
  const [adding, setAdding] = useState(false);
  const limits = [draft.vcpus === "" ? null : `${draft.vcpus} vCPU`, draft.memoryMib === "" ? null : `${draft.memoryMib} MiB`, draft.diskGib === "" ? null : `${draft.diskGib} GiB disk`].filter((part) => part !== null);
  return (
    <section aria-labelledby="options" className="overflow-hidden rounded-lg border border-line bg-panel">
      <h2 id="options" className="sr-only">
        Options
      </h2>
      <Fold title="Resources" summary={policy.resources ? (limits.length === 0 ? "the tenant's defaults" : limits.join(" · ")) : "fixed by policy"}>
        {policy.resources ? (
          <div className="grid gap-4 sm:grid-cols-4">
            <Field label="vCPU" value={draft.vcpus} onChange={(vcpus) => { change({ vcpus }); }} inputMode="decimal" placeholder="1" error={problems.vcpus} />
            <Field label="Memory, MiB" value={draft.memoryMib} onChange={(memoryMib) => { change({ memoryMib }); }} inputMode="numeric" placeholder={draft.profile === "desktop" ? "2048" : "512"} error={problems.memoryMib} />
            <Field label="Disk, GiB" value={draft.diskGib} onChange={(diskGib) => { change({ diskGib }); }} inputMode="decimal" placeholder="5" error={problems.diskGib} />
            <Field label="Processes" value={draft.pids} onChange={(pids) => { change({ pids }); }} inputMode="numeric" placeholder="512" error={problems.pids} />
          </div>
        ) : (
          <p className="text-sm text-muted">{SEALED}</p>
        )}
      </Fold>
      <Fold title="Ports" summary={policy.ports ? counted(draft.ports.length, "port", "none") : "fixed by policy"}>
        {policy.ports ? (
          <>
            <p className="text-sm text-muted">Published on the host's loopback only; a preview link opens them in a browser.</p>
            <Rows
              label="port"
              items={draft.ports}
              empty={{ port: "", protocol: "http" as const }}
              add="Add port"
              onChange={(ports) => { change({ ports }); }}
              render={(item, set, index) => (
                <>
                  <div className="w-28">
                    <Field label={`Port ${index + 1}`} value={item.port} onChange={(port) => { set({ port }); }} inputMode="numeric" placeholder="8080" mono />
                  </div>
                  <Select tall label="Protocol" options={PROTOCOLS} value={item.protocol} onChange={(protocol) => { set({ protocol }); }} className="w-28" />
                </>
              )}
            />
            <Problem text={problems.ports} />
          </>
        ) : (
          <p className="text-sm text-muted">{SEALED}</p>
        )}
      </Fold>
      <Fold title="Environment" summary={counted(draft.env.length, "variable", "the image's")}>
        <p className="text-sm text-muted">Values are sealed with the sandbox: nobody can read them back, you neither.</p>
        <Rows
          label="variable"
          items={draft.env}
          empty={{ name: "", value: "" }}
          add="Add variable"
          onChange={(env) => { change({ env }); }}
          render={(item, set, index) => (
            <>
              <div className="min-w-32 flex-1">
                <Field label={`Name ${index + 1}`} value={item.name} onChange={(name) => { set({ name }); }} placeholder="MODE" mono autoComplete="off" />
              </div>
              <div className="min-w-40 flex-[2]">
                <Field label={`Value ${index + 1}`} value={item.value} onChange={(value) => { set({ value }); }} mono autoComplete="off" />
              </div>
            </>
          )}
        />
        <Problem text={problems.env} />
      </Fold>
      <Fold title="Secrets" summary={counted(draft.secrets.length, "secret", "none")}>
        <p className="text-sm text-muted">Kept by the tenant, put into a variable when the sandbox starts.</p>
        <Rows
          label="secret"
          items={draft.secrets}
          empty={{ secret: "", variable: "" }}
          add="Use a secret"
          onChange={(chosen) => { change({ secrets: chosen }); }}
          render={(item, set, index) => (
            <>
              <div className="min-w-36 flex-1">
                <Combo
                  label={`Secret ${index + 1}`}
                  mono
                  value={item.secret}
                  onChange={(secret) => { set({ secret, ...(item.variable === "" || item.variable === variableOf(item.secret) ? { variable: variableOf(secret) } : {}) }); }}
                  suggestions={(secrets ?? []).map((each) => ({ key: each.name }))}
                />
              </div>
              <div className="min-w-36 flex-1">
                <Field label={`Variable ${index + 1}`} value={item.variable} onChange={(variable) => { set({ variable }); }} mono autoComplete="off" placeholder="TOKEN" />
              </div>
            </>
          )}
        />
        <div>
          <Button size="sm" kind="quiet" onPress={() => { setAdding(true); }}>
            Keep a new secret
          </Button>
        </div>
        <Problem text={problems.secrets} />
        <SecretDialog
          tenant={tenant}
          isOpen={adding}
          onClose={() => { setAdding(false); }}
          onSaved={(secret) => { change({ secrets: [...draft.secrets.filter((each) => each.secret !== ""), { secret, variable: variableOf(secret) }] }); }}
        />
      </Fold>
      <Fold title="Network" summary={policy.egress ? counted(draft.egress.length, "destination", "no way out") : "no way out"}>
        {policy.egress ? (
          <>
            <p className="text-sm text-muted">A sandbox reaches nothing but what is listed here, by name and port.</p>
            <Rows
              label="destination"
              items={draft.egress}
              empty={{ protocol: "https" as const, host: "", port: "443" }}
              add="Allow a destination"
              onChange={(egress) => { change({ egress }); }}
              render={(item, set, index) => (
                <>
                  <Select tall label="Protocol" options={PROTOCOLS} value={item.protocol} onChange={(protocol) => { set({ protocol, port: protocol === "https" ? "443" : protocol === "http" ? "80" : item.port }); }} className="w-28" />
                  <div className="min-w-40 flex-1">
                    <Field label={`Host ${index + 1}`} value={item.host} onChange={(host) => { set({ host }); }} mono autoComplete="off" placeholder="pypi.org" />
                  </div>
                  <div className="w-24">
                    <Field label="Port" value={item.port} onChange={(port) => { set({ port }); }} inputMode="numeric" mono />
                  </div>
                </>
              )}
            />
            <Problem text={problems.egress} />
          </>
        ) : (
          <p className="text-sm text-muted">{SEALED}</p>
        )}
      </Fold>
      <Fold title="Volumes" summary={policy.mounts ? counted(draft.volumes.length, "volume", "none") : "none"}>
        {policy.mounts ? (
          <>
            <p className="text-sm text-muted">Named storage that outlives the sandbox. A name that does not exist yet is made.</p>
            <Rows
              label="volume"
              items={draft.volumes}
              empty={{ name: "", target: "" }}
              add="Mount a volume"
              onChange={(chosen) => { change({ volumes: chosen }); }}
              render={(item, set, index) => (
                <>
                  <div className="min-w-36 flex-1">
                    <Combo label={`Volume ${index + 1}`} mono value={item.name} onChange={(name) => { set({ name }); }} suggestions={(volumes ?? []).map((each) => ({ key: each.name }))} />
                  </div>
                  <div className="min-w-36 flex-1">
                    <Field label={`Mounted at ${index + 1}`} value={item.target} onChange={(target) => { set({ target }); }} mono placeholder="/data" autoComplete="off" />
                  </div>
                </>
              )}
            />
            <Problem text={problems.volumes} />
          </>
        ) : (
          <p className="text-sm text-muted">{SEALED}</p>
        )}
      </Fold>
      <Fold title="Process and labels" summary={[draft.terminal ? "terminal" : null, draft.readOnlyRoot ? "read-only" : null, draft.user === "" ? null : `as ${draft.user}`, draft.labels.length === 0 ? null : plural(draft.labels.length, "label")].filter((part) => part !== null).join(", ") || "as the image says"}>
        <div className="grid gap-4 sm:grid-cols-2">
          <Field label="Working directory" value={draft.cwd} onChange={(cwd) => { change({ cwd }); }} mono placeholder="/" autoComplete="off" error={problems.cwd} />
          <Field label="User" value={draft.user} onChange={(user) => { change({ user }); }} mono placeholder="1000:1000" autoComplete="off" />
        </div>
        <Switch label="Give the main process a terminal" isSelected={draft.terminal} onChange={(terminal) => { change({ terminal }); }} />
        <Switch label="Read-only root file system" isSelected={draft.readOnlyRoot} onChange={(readOnlyRoot) => { change({ readOnlyRoot }); }} />
        <Rows
          label="label"
          items={draft.labels}
          empty={{ name: "", value: "" }}
          add="Add label"
          onChange={(labels) => { change({ labels }); }}
          render={(item, set, index) => (
            <>
              <div className="min-w-32 flex-1">
                <Field label={`Label ${index + 1}`} value={item.name} onChange={(name) => { set({ name }); }} placeholder="team" mono autoComplete="off" />
              </div>
              <div className="min-w-32 flex-1">
                <Field label={`Label value ${index + 1}`} value={item.value} onChange={(value) => { set({ value }); }} mono autoComplete="off" />
              </div>
            </>
          )}
        />
        <Problem text={problems.labels} />
      </Fold>
    </section>
  );
}

/** `openai-key` becomes `OPENAI_KEY`. */
function variableOf(secret: string): string {
  return secret.toUpperCase().replace(/[^A-Z0-9]+/g, "_");
}
