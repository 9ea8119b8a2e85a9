import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useRef, useState, type ReactElement } from "react";
import { Form } from "react-aria-components/Form";
import { api } from "~/api/endpoints";
import { applyEvent } from "~/api/events";
import { keys } from "~/api/queries";
import type { Machine, Operation } from "~/api/types";
import { explain, InlineError } from "~/app/problem";
import { Button } from "~/ui/button";
import { Dialog, DialogActions } from "~/ui/dialog";
import { Field } from "~/ui/field";
import { Menu, type MenuEntry } from "~/ui/menu";
import { notify } from "~/ui/toast";
import { refusal, VERB_LABEL, type Verb } from "./rules";

type PowerVerb = Exclude<Verb, "delete">;
const POWER: readonly PowerVerb[] = ["start", "shutdown", "reboot", "stop"];

function useAccepted(machine: Machine) {
  const client = useQueryClient();
  return (operation: Operation) => {
    applyEvent(client, { type: "operation", data: operation });
    const attach = (row: Machine): Machine => (row.ID === machine.ID ? { ...row, operation_id: operation.id } : row);
    if (operation.state === "queued" || operation.state === "running") {
      client.setQueryData<Machine[]>(keys.machines, (list) => list?.map(attach));
      client.setQueryData<Machine>(keys.machine(machine.ID), (row) => (row ? attach(row) : undefined));
    }
    void client.invalidateQueries({ queryKey: keys.machines });
  };
}

export function usePower(machine: Machine) {
  const accepted = useAccepted(machine);
  return useMutation({
    mutationFn: (verb: PowerVerb) => api.power(machine.ID, verb),
    onSuccess: accepted,
    onError: (error, verb) => {
      const problem = explain(error);
      notify({
        tone: "bad",
        title: `${VERB_LABEL[verb]} of ${machine.hostname} was refused`,
        text: [problem.what, problem.todo].filter((part) => part !== null).join(" "),
      });
    },
  });
}

/** The menu of one machine. The trigger is the child. */
export function MachineMenu({ machine, children, onDeleted }: { machine: Machine; children: ReactElement; onDeleted?: (operation: Operation) => void }) {
  const power = usePower(machine);
  const [asking, setAsking] = useState(false);
  const trigger = useRef<HTMLSpanElement>(null);
  const entries: MenuEntry[] = [
    ...POWER.map((verb) => ({
      type: "item" as const,
      id: verb,
      label: VERB_LABEL[verb],
      reason: refusal(machine, verb),
      onAction: () => {
        power.mutate(verb);
      },
    })),
    { type: "line", id: "line" },
    {
      type: "item",
      id: "delete",
      label: VERB_LABEL.delete,
      danger: true,
      reason: refusal(machine, "delete"),
      onAction: () => {
        setAsking(true);
      },
    },
  ];
  return (
    <>
      <span ref={trigger} className="contents">
        <Menu label={`Actions for ${machine.hostname}`} entries={entries}>
          {children}
        </Menu>
      </span>
      <DeleteDialog
        machine={machine}
        isOpen={asking}
        onClose={() => {
          setAsking(false);
          // What had the focus was the menu, which is gone: go back to what opened it, once the dialog has let go.
          requestAnimationFrame(() => {
            requestAnimationFrame(() => {
              trigger.current?.querySelector("button")?.focus();
            });
          });
        }}
        {...(onDeleted ? { onDeleted } : {})}
      />
    </>
  );
}

export interface DeleteDialogProps {
  machine: Machine;
  isOpen: boolean;
  onClose: () => void;
  onDeleted?: (operation: Operation) => void;
}

export function DeleteDialog(props: DeleteDialogProps) {
  return (
    <Dialog title={`Delete ${props.machine.hostname}`} isOpen={props.isOpen} onClose={props.onClose} role="alertdialog">
      <DeleteForm {...props} />
    </Dialog>
  );
}

function DeleteForm({ machine, onClose, onDeleted }: DeleteDialogProps) {
  const [typed, setTyped] = useState("");
  const accepted = useAccepted(machine);
  const remove = useMutation({
    mutationFn: () => api.deleteMachine(machine.ID),
    onSuccess: (operation) => {
      accepted(operation);
      onClose();
      onDeleted?.(operation);
    },
  });
  const matches = typed.trim() === machine.hostname;
  return (
    <Form
      className="flex flex-col gap-4"
      onSubmit={(event) => {
        event.preventDefault();
        if (matches && !remove.isPending) remove.mutate();
      }}
    >
      <p>
        The machine is stopped, its disk is destroyed
        {machine.ip != null ? (
          <>
            , and <code className="font-mono text-sm">{machine.ip}</code> goes back to the pool
          </>
        ) : null}
        . This cannot be undone.
      </p>
      <Field label={`Type ${machine.hostname} to confirm`} value={typed} onChange={setTyped} mono autoFocus autoComplete="off" />
      {remove.isError ? <InlineError error={remove.error} /> : null}
      <DialogActions>
        <Button onPress={onClose}>Cancel</Button>
        <Button
          kind="danger"
          type="submit"
          isPending={remove.isPending}
          pendingLabel="Deleting"
          disabledReason={matches ? null : "Type the name of the machine first."}
        >
          Delete machine
        </Button>
      </DialogActions>
    </Form>
  );
}
