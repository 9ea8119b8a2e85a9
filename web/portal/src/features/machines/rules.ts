import type { Machine, MachineStatus } from "~/api/types";
import type { Tone } from "~/ui/status";

export type Verb = "start" | "shutdown" | "stop" | "reboot" | "delete";

export const VERB_LABEL: Record<Verb, string> = {
  start: "Start",
  shutdown: "Shut down",
  stop: "Stop now",
  reboot: "Reboot",
  delete: "Delete",
};

export const STATUS: Record<MachineStatus, { label: string; tone: Tone; moving: boolean }> = {
  provisioning: { label: "Provisioning", tone: "info", moving: true },
  running: { label: "Running", tone: "good", moving: false },
  stopped: { label: "Stopped", tone: "idle", moving: false },
  paused: { label: "Paused", tone: "wait", moving: false },
  unknown: { label: "Unknown", tone: "wait", moving: false },
  deleting: { label: "Deleting", tone: "wait", moving: true },
  failed: { label: "Failed", tone: "bad", moving: false },
};

const OFF = "The machine is not running.";

/** What may be done in which state: null when it may, else the reason why not. One table for every menu and button. */
const TABLE: Record<MachineStatus, Record<Verb, string | null>> = {
  provisioning: {
    start: "It is still being created.",
    shutdown: "It is still being created.",
    stop: "It is still being created.",
    reboot: "It is still being created.",
    delete: "Wait until it is created.",
  },
  running: { start: "It runs already.", shutdown: null, stop: null, reboot: null, delete: null },
  stopped: { start: null, shutdown: OFF, stop: OFF, reboot: OFF, delete: null },
  paused: { start: null, shutdown: "It is paused.", stop: null, reboot: "It is paused.", delete: null },
  unknown: {
    start: "The cluster does not tell its state.",
    shutdown: "The cluster does not tell its state.",
    stop: "The cluster does not tell its state.",
    reboot: "The cluster does not tell its state.",
    delete: null,
  },
  deleting: {
    start: "It is being deleted.",
    shutdown: "It is being deleted.",
    stop: "It is being deleted.",
    reboot: "It is being deleted.",
    delete: "It is being deleted.",
  },
  failed: {
    start: "It was never created.",
    shutdown: "It was never created.",
    stop: "It was never created.",
    reboot: "It was never created.",
    delete: null,
  },
};

export function refusal(machine: Pick<Machine, "status" | "operation_id">, verb: Verb): string | null {
  const byState = TABLE[machine.status][verb];
  if (byState !== null) return byState;
  return machine.operation_id != null ? "Another operation runs on it." : null;
}

/** `small` → `Small`, `xl` → `XL`. */
export function tierLabel(key: string): string {
  return key.length <= 2 ? key.toUpperCase() : key.charAt(0).toUpperCase() + key.slice(1);
}

const OS_LABEL: Record<string, string> = {
  "ubuntu-24.04": "Ubuntu 24.04",
  "ubuntu-22.04": "Ubuntu 22.04",
  "debian-13": "Debian 13",
  "debian-12": "Debian 12",
  "debian-11": "Debian 11",
};

export function osLabel(key: string): string {
  return OS_LABEL[key] ?? key;
}
