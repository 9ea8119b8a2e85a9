import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useState, type ReactElement } from "react";
import { ApiError } from "~/api/client";
import { keys } from "~/api/queries";
import { work, type Service } from "~/api/workloads";
import { explain, InlineError } from "~/app/problem";
import { isActive, serviceRefusal } from "~/features/work/rules";
import { Button } from "~/ui/button";
import { Dialog, DialogActions } from "~/ui/dialog";
import { Field } from "~/ui/field";
import { Menu, type MenuEntry } from "~/ui/menu";
import { notify } from "~/ui/toast";

export function useKeepService() {
  const client = useQueryClient();
  return (service: Service) => {
    const { tenantId, name } = service.metadata;
    client.setQueryData<Service>(keys.service(tenantId, name), service);
    client.setQueryData<Service[]>(keys.services(tenantId), (list) =>
      list?.some((item) => item.metadata.name === name) ? list.map((item) => (item.metadata.name === name ? service : item)) : list && [...list, service],
    );
  };
}

type Verb = "start" | "stop" | "restart";
const VERBS: readonly { key: Verb; label: string }[] = [
  { key: "start", label: "Start" },
  { key: "stop", label: "Stop" },
  { key: "restart", label: "Restart" },
];

export function useServiceVerb(service: Service) {
  const keep = useKeepService();
  return useMutation({
    mutationFn: (verb: Verb) => work.serviceVerb(service.metadata.tenantId, service.metadata.name, verb),
    onSuccess: keep,
    onError: (error, verb) => {
      notify({ tone: "bad", title: `${VERBS.find((item) => item.key === verb)?.label ?? verb} of ${service.metadata.name} was refused`, text: explain(error).what });
    },
  });
}

/** The menu of one service. The trigger is the child. */
export function ServiceMenu({ service, children, onDeleted }: { service: Service; children: ReactElement; onDeleted?: () => void }) {
  const verb = useServiceVerb(service);
  const navigate = useNavigate();
  const [asking, setAsking] = useState(false);
  const { name } = service.metadata;
  const close = () => {
    setAsking(false);
  };
  const entries: MenuEntry[] = [
    ...VERBS.map((item) => ({
      type: "item" as const,
      id: item.key,
      label: item.label,
      reason: serviceRefusal(service, item.key),
      onAction: () => {
        verb.mutate(item.key);
      },
    })),
    { type: "line", id: "l1" },
    {
      type: "item",
      id: "session",
      label: "Open a session",
      reason: serviceRefusal(service, "session"),
      onAction: () => void navigate({ to: "/sessions", search: { target: `service:${name}` } }),
    },
    {
      type: "item",
      id: "edit",
      label: "Change definition",
      reason: serviceRefusal(service, "edit"),
      onAction: () => void navigate({ to: "/services/$serviceName/edit", params: { serviceName: name } }),
    },
    { type: "line", id: "l2" },
    {
      type: "item",
      id: "delete",
      label: "Delete",
      danger: true,
      reason: serviceRefusal(service, "delete"),
      onAction: () => {
        setAsking(true);
      },
    },
  ];
  return (
    <>
      <Menu label={`Actions for ${name}`} entries={entries}>
        {children}
      </Menu>
      <Dialog title={`Delete ${name}`} role="alertdialog" isOpen={asking} onClose={close}>
        <DeleteForm service={service} onClose={close} {...(onDeleted ? { onDeleted } : {})} />
      </Dialog>
    </>
  );
}

function DeleteForm({ service, onClose, onDeleted }: { service: Service; onClose: () => void; onDeleted?: () => void }) {
  const client = useQueryClient();
  const { tenantId, name, generation } = service.metadata;
  const [typed, setTyped] = useState("");
  const runs = isActive(service.status.lifecycleState);
  const remove = useMutation({
    mutationFn: () => work.deleteService(tenantId, name, generation, runs),
    onSuccess: () => {
      client.setQueryData<Service[]>(keys.services(tenantId), (list) => list?.filter((item) => item.metadata.name !== name));
      onClose();
      onDeleted?.();
    },
    onError: (error) => {
      // Another try must speak about the definition as it is now.
      if (error instanceof ApiError && error.status === 412) void client.invalidateQueries({ queryKey: keys.service(tenantId, name) });
    },
  });
  const ready = !runs || typed.trim() === name;
  return (
    <form
      className="flex flex-col gap-4"
      onSubmit={(event) => {
        event.preventDefault();
        if (ready && !remove.isPending) remove.mutate();
      }}
    >
      <p>{runs ? "It runs: it is stopped, its open sessions end, and the definition is removed. Whoever depends on its name loses it." : "The definition is removed. Whoever depends on its name loses it."}</p>
      {runs ? <Field label={`Type ${name} to confirm`} value={typed} onChange={setTyped} mono autoFocus autoComplete="off" /> : null}
      {remove.isError ? <InlineError error={remove.error} /> : null}
      <DialogActions>
        <Button onPress={onClose}>Cancel</Button>
        <Button kind="danger" type="submit" isPending={remove.isPending} pendingLabel="Deleting" disabledReason={ready ? null : "Type the name of the service first."}>
          Delete service
        </Button>
      </DialogActions>
    </form>
  );
}
