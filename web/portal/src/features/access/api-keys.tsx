import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { CheckboxGroup } from "react-aria-components/CheckboxGroup";
import { Form } from "react-aria-components/Form";
import { Label } from "react-aria-components/Label";
import { keys, queries } from "~/api/queries";
import { work, type ApiKey, type Grant, type NewApiKey } from "~/api/workloads";
import { explain, InlineError } from "~/app/problem";
import { WorkError } from "~/features/work/parts";
import { Button } from "~/ui/button";
import { Check } from "~/ui/choice";
import { CommandLine } from "~/ui/copy";
import { Dialog, DialogActions } from "~/ui/dialog";
import { Field } from "~/ui/field";
import { plural, until } from "~/ui/format";
import { PlusIcon } from "~/ui/icons";
import { Select } from "~/ui/select";
import { EmptyState, Panel, TableSkeleton } from "~/ui/states";
import { Badge } from "~/ui/status";
import { DataTable, type ColumnDef } from "~/ui/table";
import { Age, useNow } from "~/ui/time";
import { notify } from "~/ui/toast";
import { BUNDLES, bundlesOf, grantOf, type Bundle } from "./grants";

function columns(tenant: string): ColumnDef<ApiKey>[] {
  return [
    { id: "name", header: "Name", rowHeader: true, sort: (key) => key.name, phone: "title", cell: (key) => <span className="font-medium">{key.name}</span> },
    {
      id: "grants",
      header: "May",
      phone: "line",
      cell: (key) => (
        <span className="flex flex-wrap gap-1">
          {key.grants.map((grant, index) => (
            <GrantBadges key={index} grant={grant} />
          ))}
        </span>
      ),
    },
    { id: "used", header: "Last used", cell: (key) => <span className="text-muted">{key.lastUsedAt != null ? <Age at={key.lastUsedAt} /> : "never"}</span> },
    { id: "expires", header: "Expires", cell: (key) => <span className="text-muted">{key.expiresAt != null ? <Expiry at={key.expiresAt} /> : "never"}</span> },
    { id: "actions", header: "Actions", hideHeader: true, phone: "aside", className: "text-right", cell: (key) => <Revoke tenant={tenant} apiKey={key} /> },
  ];
}

function Expiry({ at }: { at: string }) {
  const now = useNow(false);
  return <time dateTime={at}>{until(at, now)}</time>;
}

function GrantBadges({ grant }: { grant: Grant }) {
  const { bundles, others } = bundlesOf(grant);
  return (
    <>
      {bundles.map((bundle) => (
        <Badge key={bundle.key}>{bundle.short}</Badge>
      ))}
      {others.length > 0 ? (
        <span title={others.join(", ")}>
          <Badge>{plural(others.length, "more action")}</Badge>
        </span>
      ) : null}
      {grant.sandboxes === "own" ? <Badge tone="info">own sandboxes only</Badge> : null}
    </>
  );
}

function Revoke({ tenant, apiKey }: { tenant: string; apiKey: ApiKey }) {
  const client = useQueryClient();
  const [asking, setAsking] = useState(false);
  const close = () => {
    setAsking(false);
  };
  const revoke = useMutation({
    mutationFn: () => work.deleteApiKey(tenant, apiKey.id),
    onSuccess: () => {
      client.setQueryData<ApiKey[]>(keys.apiKeys(tenant), (list) => list?.filter((item) => item.id !== apiKey.id));
    },
    onError: (error) => {
      notify({ tone: "bad", title: "The key was not revoked", text: explain(error).what });
    },
  });
  return (
    <>
      <Button size="sm" kind="quiet" aria-label={`Revoke key ${apiKey.name}`} onPress={() => { setAsking(true); }}>
        Revoke
      </Button>
      <Dialog title={`Revoke ${apiKey.name}`} role="alertdialog" isOpen={asking} onClose={close}>
        <p>Whatever uses this key is refused from now on. A revoked key cannot be brought back.</p>
        <DialogActions>
          <Button onPress={close}>Cancel</Button>
          <Button kind="danger" isPending={revoke.isPending} pendingLabel="Revoking" onPress={() => { revoke.mutate(); }}>
            Revoke key
          </Button>
        </DialogActions>
      </Dialog>
    </>
  );
}

/** The keys with which programs reach a tenant. */
export function ApiKeys({ tenant }: { tenant: string }) {
  const [creating, setCreating] = useState(false);
  const list = useQuery(queries.apiKeys(tenant));
  const close = () => {
    setCreating(false);
  };
  const create = (
    <Button kind="primary" onPress={() => { setCreating(true); }}>
      <PlusIcon /> Create API key
    </Button>
  );
  return (
    <section className="flex flex-col gap-3" aria-labelledby="api-keys">
      <div className="flex items-center justify-between gap-4">
        <h2 id="api-keys" className="text-lg font-semibold">
          API keys
        </h2>
        {list.data !== undefined && list.data.length > 0 ? create : null}
      </div>
      <Panel>
        {list.data === undefined ? (
          list.isError ? (
            <WorkError error={list.error} title="API keys could not be loaded" onRetry={() => void list.refetch()} />
          ) : (
            <TableSkeleton label="API keys" rows={2} />
          )
        ) : list.data.length === 0 ? (
          <EmptyState title="No API keys yet" action={create}>
            An API key lets a program use this tenant, and nothing but what you grant it: sandboxes, services, sessions.
          </EmptyState>
        ) : (
          <DataTable label="API keys" rows={list.data} rowId={(key) => key.id} columns={columns(tenant)} empty={null} />
        )}
      </Panel>
      <Dialog title="Create API key" isOpen={creating} onClose={close} wide>
        <KeyForm tenant={tenant} onClose={close} />
      </Dialog>
    </section>
  );
}

const LIFETIMES = [
  { key: "7", label: "7 days" },
  { key: "30", label: "30 days" },
  { key: "90", label: "90 days" },
  { key: "365", label: "1 year" },
  { key: "never", label: "Never" },
] as const;

const REACH = [
  { key: "own", label: "Only those it made" },
  { key: "all", label: "All of the tenant" },
] as const;

const DAY_MS = 86_400_000;

function KeyForm({ tenant, onClose }: { tenant: string; onClose: () => void }) {
  const client = useQueryClient();
  const [name, setName] = useState("");
  const [chosen, setChosen] = useState<Bundle["key"][]>(["sandboxes", "sessions"]);
  const [reach, setReach] = useState<"own" | "all">("own");
  const [services, setServices] = useState("");
  const [lifetime, setLifetime] = useState<(typeof LIFETIMES)[number]["key"]>("90");
  const [tried, setTried] = useState(false);
  const create = useMutation({
    mutationFn: () =>
      work.createApiKey(tenant, {
        name: name.trim(),
        grants: [grantOf(chosen, reach, services.split(/[\s,]+/).filter((each) => each !== ""))],
        ...(lifetime === "never" ? {} : { expiresAt: new Date(Date.now() + Number(lifetime) * DAY_MS).toISOString() }),
      }),
    onSuccess: () => client.invalidateQueries({ queryKey: keys.apiKeys(tenant) }),
  });
  if (create.data !== undefined) return <KeyShown made={create.data} tenant={tenant} onClose={onClose} />;
  const hasServices = chosen.includes("services") || chosen.includes("run-services");
  return (
    <Form
      className="flex flex-col gap-5"
      onSubmit={(event) => {
        event.preventDefault();
        setTried(true);
        if (name.trim() !== "" && chosen.length > 0 && !create.isPending) create.mutate();
      }}
    >
      <Field label="Name" value={name} onChange={setName} autoFocus maxLength={64} autoComplete="off" placeholder="agent-runner" description="What it is for, so that you know later which one to revoke." error={tried && name.trim() === "" ? "Enter a name." : null} />
      <CheckboxGroup
        value={chosen}
        onChange={(values) => {
          setChosen(BUNDLES.map((bundle) => bundle.key).filter((key) => values.includes(key)));
        }}
        className="flex flex-col gap-2"
      >
        <Label className="text-sm font-medium">It may</Label>
        {BUNDLES.map((bundle) => (
          <Check key={bundle.key} value={bundle.key} label={bundle.label} text={bundle.text} />
        ))}
        {tried && chosen.length === 0 ? <p className="text-xs font-medium text-bad-text">Choose at least one.</p> : null}
      </CheckboxGroup>
      <div className="grid gap-4 sm:grid-cols-2">
        <Select label="Which sandboxes" options={REACH} value={reach} onChange={setReach} />
        <Select label="Expires after" options={LIFETIMES} value={lifetime} onChange={setLifetime} />
      </div>
      {hasServices ? <Field label="Only these services" value={services} onChange={setServices} mono autoComplete="off" placeholder="worker, database" description="Exact names. Empty means every service of the tenant." /> : null}
      {create.isError ? <InlineError error={create.error} /> : null}
      <DialogActions>
        <Button onPress={onClose}>Cancel</Button>
        <Button kind="primary" type="submit" isPending={create.isPending} pendingLabel="Creating">
          Create API key
        </Button>
      </DialogActions>
    </Form>
  );
}

function KeyShown({ made, tenant, onClose }: { made: NewApiKey; tenant: string; onClose: () => void }) {
  return (
    <div className="flex flex-col gap-4">
      <p>
        This is <span className="font-semibold">{made.name}</span>. It is shown only now; Nimbus keeps a hash of it and cannot show it again.
      </p>
      <CommandLine command={made.key} label="API key" plain wrap />
      <div className="flex flex-col gap-1.5">
        <p className="text-xs text-muted">Use it</p>
        <CommandLine command={`curl -H 'X-Nimbus-Api-Key: ${made.key}' ${window.location.origin}/api/tenants/${tenant}/sandboxes`} label="example command" wrap />
      </div>
      <DialogActions>
        <Button kind="primary" onPress={onClose}>
          Done
        </Button>
      </DialogActions>
    </div>
  );
}
