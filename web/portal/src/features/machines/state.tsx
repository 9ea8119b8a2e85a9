import { useQuery } from "@tanstack/react-query";
import { queries } from "~/api/queries";
import { usePollInterval } from "~/api/events";
import type { Machine } from "~/api/types";
import { StatusDot } from "~/ui/status";
import { STATUS } from "./rules";

/** The state of a machine; while an operation runs on it, which step it is at. */
export function MachineState({ machine }: { machine: Machine }) {
  const poll = usePollInterval();
  const { data: operation } = useQuery({
    ...queries.operation(machine.operation_id ?? ""),
    enabled: machine.operation_id != null,
    refetchInterval: poll,
  });
  const status = STATUS[machine.status];
  if (machine.operation_id != null && operation && (operation.state === "running" || operation.state === "queued")) {
    const index = operation.steps.findIndex((step) => step.state === "running" || step.state === "undoing");
    const step = operation.steps[index];
    const verb = OPERATION_WORD[operation.type] ?? status.label;
    return (
      <span className="flex flex-col">
        <StatusDot tone="info" moving>
          {verb}
        </StatusDot>
        <span className="max-w-44 truncate pl-4 text-xs text-muted">
          {operation.state === "queued" ? "Waiting" : step ? `${index + 1} of ${operation.steps.length} · ${step.label}` : operation.message}
        </span>
      </span>
    );
  }
  return (
    <StatusDot tone={status.tone} moving={status.moving}>
      {status.label}
    </StatusDot>
  );
}

export const OPERATION_WORD: Record<string, string> = {
  "vm.provision": "Provisioning",
  "vm.delete": "Deleting",
  "vm.start": "Starting",
  "vm.shutdown": "Shutting down",
  "vm.stop": "Stopping",
  "vm.reboot": "Rebooting",
};
