import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useState, type ReactElement } from "react";
import { keys } from "~/api/queries";
import { work, type Sandbox } from "~/api/workloads";
import { explain, InlineError } from "~/app/problem";
import { isActive, sandboxRefusal } from "~/features/work/rules";
import { Button } from "~/ui/button";
import { copyText } from "~/ui/clipboard";
import { Dialog, DialogActions } from "~/ui/dialog";
import { Menu, type MenuEntry } from "~/ui/menu";
import { notify } from "~/ui/toast";
import { sandboxName } from "./name";

/** Puts a fresh answer where the pages look for it. */
export function useKeepSandbox() {
  const client = useQueryClient();
  return (sandbox: Sandbox) => {
    const { tenantId, id } = sandbox.metadata;
    client.setQueryData<Sandbox>(keys.sandbox(tenantId, id), sandbox);
    client.setQueryData<Sandbox[]>(keys.sandboxes(tenantId), (list) =>
      list?.some((item) => item.metadata.id === id) ? list.map((item) => (item.metadata.id === id ? sandbox : item)) : list && [...list, sandbox],
    );
  };
}

export function useStop(sandbox: Sandbox) {
  const keep = useKeepSandbox();
  return useMutation({
    mutationFn: () => work.stopSandbox(sandbox.metadata.tenantId, sandbox.metadata.id),
    onSuccess: keep,
    onError: (error) => {
      notify({ tone: "bad", title: `${sandboxName(sandbox)} was not stopped`, text: explain(error).what });
    },
  });
}

const HOUR = 3_600_000;

export function useExtend(sandbox: Sandbox) {
  const keep = useKeepSandbox();
  return useMutation({
    mutationFn: (ttlMs: number) => work.extendSandbox(sandbox.metadata.tenantId, sandbox.metadata.id, { ttlMs }),
    onSuccess: (next, ttlMs) => {
      keep(next);
      notify({ tone: "good", title: `${sandboxName(sandbox)} stays`, text: `It runs for another ${ttlMs / HOUR} h from now.` });
    },
    onError: (error) => {
      notify({ tone: "bad", title: `${sandboxName(sandbox)} was not extended`, text: explain(error).what });
    },
  });
}

/** The menu of one sandbox. The trigger is the child. */
export function SandboxMenu({ sandbox, children, onDeleted }: { sandbox: Sandbox; children: ReactElement; onDeleted?: () => void }) {
  const stop = useStop(sandbox);
  const extend = useExtend(sandbox);
  const navigate = useNavigate();
  const [asking, setAsking] = useState(false);
  const name = sandboxName(sandbox);
  const entries: MenuEntry[] = [
    {
      type: "item",
      id: "session",
      label: "Open a session",
      reason: sandboxRefusal(sandbox, "session"),
      onAction: () => void navigate({ to: "/sessions", search: { target: `sandbox:${sandbox.metadata.id}` } }),
    },
    {
      type: "item",
      id: "copy",
      label: "Copy id",
      onAction: () => {
        void copyText(sandbox.metadata.id).then(() => {
          notify({ tone: "good", title: "Id copied", text: sandbox.metadata.id });
        });
      },
    },
    { type: "line", id: "l1" },
    { type: "item", id: "extend1", label: "Extend by 1 hour from now", reason: sandboxRefusal(sandbox, "extend"), onAction: () => { extend.mutate(HOUR); } },
    { type: "item", id: "extend8", label: "Extend by 8 hours from now", reason: sandboxRefusal(sandbox, "extend"), onAction: () => { extend.mutate(8 * HOUR); } },
    { type: "line", id: "l2" },
    { type: "item", id: "stop", label: "Stop", reason: sandboxRefusal(sandbox, "stop"), onAction: () => { stop.mutate(); } },
    { type: "item", id: "delete", label: "Delete", danger: true, reason: sandboxRefusal(sandbox, "delete"), onAction: () => { setAsking(true); } },
  ];
  return (
    <>
      <Menu label={`Actions for ${name}`} entries={entries}>
        {children}
      </Menu>
      <Dialog
        title={`Delete ${name}`}
        role="alertdialog"
        isOpen={asking}
        onClose={() => {
          setAsking(false);
        }}
      >
        <DeleteForm
          sandbox={sandbox}
          onClose={() => {
            setAsking(false);
          }}
          {...(onDeleted ? { onDeleted } : {})}
        />
      </Dialog>
    </>
  );
}

function DeleteForm({ sandbox, onClose, onDeleted }: { sandbox: Sandbox; onClose: () => void; onDeleted?: () => void }) {
  const client = useQueryClient();
  const { tenantId, id } = sandbox.metadata;
  const runs = isActive(sandbox.status.lifecycleState);
  const remove = useMutation({
    mutationFn: () => work.deleteSandbox(tenantId, id, runs),
    onSuccess: () => {
      client.setQueryData<Sandbox[]>(keys.sandboxes(tenantId), (list) => list?.filter((item) => item.metadata.id !== id));
      onClose();
      onDeleted?.();
    },
  });
  return (
    <>
      <p>
        {runs ? "It is stopped, and its" : "Its"} files, its log and its record are removed. Volumes stay. This cannot be undone.
      </p>
      {remove.isError ? <InlineError error={remove.error} /> : null}
      <DialogActions>
        <Button onPress={onClose}>Cancel</Button>
        <Button
          kind="danger"
          isPending={remove.isPending}
          pendingLabel="Deleting"
          onPress={() => {
            remove.mutate();
          }}
        >
          Delete sandbox
        </Button>
      </DialogActions>
    </>
  );
}
