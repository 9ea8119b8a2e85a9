import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Form } from "react-aria-components/Form";
import { keys, queries } from "~/api/queries";
import { work, type SecretInfo } from "~/api/workloads";
import { explain, InlineError } from "~/app/problem";
import { WorkError } from "~/features/work/parts";
import { Button } from "~/ui/button";
import { Dialog, DialogActions } from "~/ui/dialog";
import { Field } from "~/ui/field";
import { PlusIcon } from "~/ui/icons";
import { EmptyState, Panel, TableSkeleton } from "~/ui/states";
import { DataTable, type ColumnDef } from "~/ui/table";
import { Age } from "~/ui/time";
import { notify } from "~/ui/toast";

export interface SecretDialogProps {
  tenant: string;
  isOpen: boolean;
  onClose: () => void;
  onSaved?: (name: string) => void;
  /** The secret that gets another value. */
  name?: string;
}

/** Keeps a secret, or gives it another value. */
export function SecretDialog(props: SecretDialogProps) {
  return (
    <Dialog title={props.name === undefined ? "Keep a secret" : `New value of ${props.name}`} isOpen={props.isOpen} onClose={props.onClose}>
      <SecretForm {...props} />
    </Dialog>
  );
}

function SecretForm({ tenant, onClose, onSaved, name: known }: SecretDialogProps) {
  const client = useQueryClient();
  const [name, setName] = useState(known ?? "");
  const [value, setValue] = useState("");
  const save = useMutation({
    mutationFn: () => work.putSecret(tenant, name, value),
    onSuccess: () => {
      void client.invalidateQueries({ queryKey: keys.secrets(tenant) });
      notify({ tone: "good", title: `${name} kept`, text: "Sandboxes that start from now on get this value." });
      onSaved?.(name);
      onClose();
    },
  });
  const missing = name.trim() === "" ? "Enter a name first." : value === "" ? "Enter a value first." : null;
  return (
    <Form
      className="flex flex-col gap-4"
      onSubmit={(event) => {
        event.preventDefault();
        if (missing === null && !save.isPending) save.mutate();
      }}
    >
      {known === undefined ? <Field label="Secret name" value={name} onChange={setName} mono autoFocus autoComplete="off" placeholder="registry-token" /> : null}
      <Field label="Value" type="password" value={value} onChange={setValue} mono autoComplete="new-password" description="It is encrypted, given to sandboxes that name it, and never shown again." />
      {save.isError ? <InlineError error={save.error} /> : null}
      <DialogActions>
        <Button onPress={onClose}>Cancel</Button>
        <Button kind="primary" type="submit" isPending={save.isPending} pendingLabel="Saving" disabledReason={missing}>
          Keep secret
        </Button>
      </DialogActions>
    </Form>
  );
}

const COLUMNS = (tenant: string): ColumnDef<SecretInfo>[] => [
  { id: "name", header: "Name", rowHeader: true, sort: (secret) => secret.name, phone: "title", cell: (secret) => <code className="font-mono text-sm font-medium">{secret.name}</code> },
  { id: "version", header: "Version", cell: (secret) => <span className="tabular text-muted">{secret.version ?? 1}</span> },
  { id: "changed", header: "Changed", phone: "line", cell: (secret) => <span className="text-muted">{secret.updatedAt !== undefined ? <Age at={secret.updatedAt} /> : "–"}</span> },
  { id: "actions", header: "Actions", hideHeader: true, phone: "aside", className: "text-right", cell: (secret) => <SecretActions tenant={tenant} secret={secret} /> },
];

function SecretActions({ tenant, secret }: { tenant: string; secret: SecretInfo }) {
  const client = useQueryClient();
  const [open, setOpen] = useState<"value" | "delete" | null>(null);
  const close = () => {
    setOpen(null);
  };
  const remove = useMutation({
    mutationFn: () => work.deleteSecret(tenant, secret.name),
    onSuccess: () => {
      client.setQueryData<SecretInfo[]>(keys.secrets(tenant), (list) => list?.filter((item) => item.name !== secret.name));
    },
    onError: (error) => {
      notify({ tone: "bad", title: `${secret.name} was not deleted`, text: explain(error).what });
    },
  });
  return (
    <>
      <Button size="sm" kind="quiet" aria-label={`Change ${secret.name}`} onPress={() => { setOpen("value"); }}>
        Change
      </Button>
      <Button size="sm" kind="quiet" aria-label={`Delete ${secret.name}`} onPress={() => { setOpen("delete"); }}>
        Delete
      </Button>
      <SecretDialog tenant={tenant} name={secret.name} isOpen={open === "value"} onClose={close} />
      <Dialog title={`Delete ${secret.name}`} role="alertdialog" isOpen={open === "delete"} onClose={close}>
        <p>Sandboxes that name it cannot start any more. What runs keeps the value it has.</p>
        <DialogActions>
          <Button onPress={close}>Cancel</Button>
          <Button kind="danger" isPending={remove.isPending} pendingLabel="Deleting" onPress={() => { remove.mutate(); }}>
            Delete secret
          </Button>
        </DialogActions>
      </Dialog>
    </>
  );
}

/** The secrets of a tenant. */
export function Secrets({ tenant }: { tenant: string }) {
  const [adding, setAdding] = useState(false);
  const secrets = useQuery(queries.secrets(tenant));
  const add = (
    <Button onPress={() => { setAdding(true); }}>
      <PlusIcon /> Keep a secret
    </Button>
  );
  return (
    <section className="flex flex-col gap-3" aria-labelledby="secrets">
      <div className="flex items-center justify-between gap-4">
        <h2 id="secrets" className="text-lg font-semibold">
          Secrets
        </h2>
        {secrets.data !== undefined && secrets.data.length > 0 ? add : null}
      </div>
      <Panel>
        {secrets.data === undefined ? (
          secrets.isError ? (
            <WorkError error={secrets.error} title="Secrets could not be loaded" onRetry={() => void secrets.refetch()} />
          ) : (
            <TableSkeleton label="secrets" rows={2} />
          )
        ) : secrets.data.length === 0 ? (
          <EmptyState title="No secrets yet" action={add}>
            A secret is a value that sandboxes get as a variable, without anybody seeing it again.
          </EmptyState>
        ) : (
          <DataTable label="Secrets" rows={secrets.data} rowId={(secret) => secret.name} columns={COLUMNS(tenant)} empty={null} />
        )}
      </Panel>
      <SecretDialog tenant={tenant} isOpen={adding} onClose={() => { setAdding(false); }} />
    </section>
  );
}
