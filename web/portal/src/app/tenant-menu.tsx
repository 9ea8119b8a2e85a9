import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { lazy, Suspense, useState } from "react";
import { Button as AriaButton } from "react-aria-components/Button";
import { Form } from "react-aria-components/Form";
import { keys, queries } from "~/api/queries";
import { work } from "~/api/workloads";
import { Button } from "~/ui/button";
import { Dialog, DialogActions } from "~/ui/dialog";
import { Field } from "~/ui/field";
import { ChevronDown } from "~/ui/icons";
import { Menu, type MenuEntry } from "~/ui/menu";
import { InlineError } from "./problem";
import { tenantName, usePersonalTenant, useSwitchTenant, useTenant } from "./tenant";

const TenantSettings = lazy(() => import("./tenant-settings"));
const TENANT_ID = /^[A-Za-z0-9-][A-Za-z0-9_-]{0,127}$/;

/** Which tenant the page is about; the personal one is always there. */
export function TenantMenu() {
  const tenant = useTenant();
  const personal = usePersonalTenant();
  const go = useSwitchTenant();
  const { data: tenants } = useQuery(queries.tenants());
  const { data: me } = useQuery(queries.me());
  const [creating, setCreating] = useState(false);
  const [settling, setSettling] = useState(false);
  const all = [personal, ...(tenants ?? []).filter((id) => id !== personal)];
  if (!all.includes(tenant)) all.push(tenant);
  const entries: MenuEntry[] = [
    {
      type: "choice",
      id: "tenants",
      title: "Tenant",
      value: tenant,
      options: all.map((id) => ({ key: id, label: tenantName(id, personal) })),
      onChange: go,
    },
    { type: "line", id: "line" },
    {
      type: "item",
      id: "new",
      label: "Create tenant",
      onAction: () => {
        setCreating(true);
      },
    },
    ...(me?.is_admin === true
      ? [
          {
            type: "item" as const,
            id: "settings",
            label: "Limits and policy",
            onAction: () => {
              setSettling(true);
            },
          },
        ]
      : []),
  ];
  return (
    <>
      <Menu label="Tenant" entries={entries}>
        <AriaButton className="flex h-8 max-w-44 min-w-0 items-center gap-1.5 rounded border border-line bg-panel px-2.5 text-sm data-hovered:border-line-strong max-sm:max-w-28">
          <span className="sr-only">Tenant </span>
          <span className="truncate">{tenantName(tenant, personal)}</span>
          <ChevronDown className="shrink-0 text-muted" />
        </AriaButton>
      </Menu>
      {settling ? (
        <Suspense fallback={null}>
          <TenantSettings
            key={tenant}
            tenant={tenant}
            name={tenantName(tenant, personal)}
            onClose={() => {
              setSettling(false);
            }}
          />
        </Suspense>
      ) : null}
      <Dialog
        title="Create tenant"
        isOpen={creating}
        onClose={() => {
          setCreating(false);
        }}
      >
        <TenantForm
          onClose={() => {
            setCreating(false);
          }}
          onCreated={go}
        />
      </Dialog>
    </>
  );
}

function TenantForm({ onClose, onCreated }: { onClose: () => void; onCreated: (tenant: string) => void }) {
  const client = useQueryClient();
  const [id, setId] = useState("");
  const create = useMutation({
    mutationFn: () => work.createTenant(id),
    onSuccess: ({ id: made }) => {
      void client.invalidateQueries({ queryKey: keys.tenants });
      onClose();
      onCreated(made);
    },
  });
  const wrong = id !== "" && !TENANT_ID.test(id);
  return (
    <Form
      className="flex flex-col gap-4"
      onSubmit={(event) => {
        event.preventDefault();
        if (id !== "" && !wrong && !create.isPending) create.mutate();
      }}
    >
      <p className="text-muted">A tenant keeps its sandboxes, services, sessions, secrets and keys to itself. Only you and its keys reach it.</p>
      <Field
        label="Id"
        value={id}
        onChange={setId}
        mono
        autoFocus
        autoComplete="off"
        maxLength={128}
        placeholder="search-team"
        description="Letters, digits, - and _. It cannot be changed later."
        error={wrong ? "Use letters, digits, - and _ only, and none of the latter in front." : null}
      />
      {create.isError ? <InlineError error={create.error} /> : null}
      <DialogActions>
        <Button onPress={onClose}>Cancel</Button>
        <Button kind="primary" type="submit" isPending={create.isPending} pendingLabel="Creating" disabledReason={id === "" ? "Enter an id first." : null}>
          Create tenant
        </Button>
      </DialogActions>
    </Form>
  );
}
