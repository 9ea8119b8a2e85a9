import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { CheckboxGroup } from "react-aria-components/CheckboxGroup";
import { Form } from "react-aria-components/Form";
import { Label } from "react-aria-components/Label";
import { keys, queries } from "~/api/queries";
import { work, type Policy, type Tenant } from "~/api/workloads";
import { Button } from "~/ui/button";
import { Check } from "~/ui/choice";
import { Dialog, DialogActions } from "~/ui/dialog";
import { Field } from "~/ui/field";
import { bytes } from "~/ui/format";
import { Meter } from "~/ui/meter";
import { Bone } from "~/ui/states";
import { notify } from "~/ui/toast";
import { explain, InlineError } from "./problem";

const FIELDS: readonly { key: keyof Policy; label: string; text: string }[] = [
  { key: "resources", label: "Resources", text: "CPU, memory and disk other than the defaults, within the limits of the tenant." },
  { key: "ports", label: "Ports", text: "Ports published on the host's loopback." },
  { key: "egress", label: "Network", text: "Destinations that a sandbox may reach." },
  { key: "mounts", label: "Volumes", text: "Storage that outlives the sandbox." },
];

/** What the sandboxes of a tenant may ask for, and how much of it; for administrators. */
export default function TenantSettings({ tenant, name, onClose }: { tenant: string; name: string; onClose: () => void }) {
  const { data, isError, error } = useQuery(queries.tenant(tenant));
  return (
    <Dialog title={`Limits and policy of ${name}`} isOpen onClose={onClose} wide>
      {data === undefined ? isError ? <p role="alert">{explain(error).what}</p> : <Bone className="h-40 w-full" /> : <SettingsForm tenant={data} onClose={onClose} />}
    </Dialog>
  );
}

function SettingsForm({ tenant, onClose }: { tenant: Tenant; onClose: () => void }) {
  const client = useQueryClient();
  const [chosen, setChosen] = useState<string[]>(() => FIELDS.map((field) => field.key).filter((key) => tenant.policy?.[key] === true));
  const [most, setMost] = useState(String(tenant.quota?.limit.sandboxes ?? ""));
  const count = Number(most);
  const wrong = !Number.isInteger(count) || count < 0 ? "Enter a whole number." : null;
  const { limit, used } = tenant.quota ?? {};
  const save = useMutation({
    mutationFn: () => {
      const has = (key: keyof Policy) => chosen.includes(key);
      const policy = { resources: has("resources"), ports: has("ports"), egress: has("egress"), mounts: has("mounts") };
      return work.configureTenant(tenant.id, { policy, ...(most === "" ? {} : { sandboxes: count }) });
    },
    onSuccess: (next) => {
      client.setQueryData(keys.tenant(tenant.id), next);
      notify({ tone: "good", title: "Limits and policy saved", text: "They hold for sandboxes that are created from now on." });
      onClose();
    },
  });
  return (
    <Form
      className="flex flex-col gap-5"
      onSubmit={(event) => {
        event.preventDefault();
        if (wrong === null && !save.isPending) save.mutate();
      }}
    >
      <CheckboxGroup value={chosen} onChange={setChosen} className="flex flex-col gap-2">
        <Label className="text-sm font-medium">A sandbox may ask for</Label>
        {FIELDS.map((field) => (
          <Check key={field.key} value={field.key} label={field.label} text={field.text} />
        ))}
      </CheckboxGroup>
      <div className="grid items-start gap-4 sm:grid-cols-3">
        <Field label="Active sandboxes" value={most} onChange={setMost} inputMode="numeric" error={wrong} description={`${used?.sandboxes ?? 0} in use`} />
        {limit?.vcpus !== undefined ? <Usage title="CPU" used={used?.vcpus ?? 0} total={limit.vcpus} text={`${used?.vcpus ?? 0} of ${limit.vcpus} vCPU`} /> : null}
        {limit?.memoryBytes !== undefined ? (
          <Usage title="Memory" used={used?.memoryBytes ?? 0} total={limit.memoryBytes} text={`${bytes(used?.memoryBytes ?? 0)} of ${bytes(limit.memoryBytes)}`} />
        ) : null}
      </div>
      {save.isError ? <InlineError error={save.error} /> : null}
      <DialogActions>
        <Button onPress={onClose}>Cancel</Button>
        <Button kind="primary" type="submit" isPending={save.isPending} pendingLabel="Saving" disabledReason={wrong}>
          Save
        </Button>
      </DialogActions>
    </Form>
  );
}

function Usage({ title, used, total, text }: { title: string; used: number; total: number; text: string }) {
  return (
    <div className="flex flex-col gap-3.5">
      <span className="text-sm font-medium">{title}</span>
      <Meter label={`${title} of the tenant`} used={used} total={total} text={text} />
    </div>
  );
}
