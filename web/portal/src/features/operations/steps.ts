import type { Operation, Step } from "~/api/types";
import type { StepItem } from "~/ui/steps";

export function stepItems(steps: readonly Step[]): StepItem[] {
  return steps.map((step) => ({
    key: step.key,
    label: step.label,
    state: step.state,
    startedAt: step.started_at ?? null,
    durationMs: step.duration_ms ?? null,
  }));
}

export function isActive(operation: Operation): boolean {
  return operation.state === "queued" || operation.state === "running";
}

/** How long it took, or has taken until `now`. */
export function took(operation: Operation, now: number): number {
  const from = Date.parse(operation.started_at ?? operation.created_at);
  const to = operation.finished_at != null ? Date.parse(operation.finished_at) : now;
  return Math.max(0, to - from);
}

interface Words {
  doing: string;
  done: string;
  failed: string;
}

const WORDS: Record<string, (name: string) => Words> = {
  "vm.provision": (name) => ({ doing: `Creating ${name}`, done: `${name} is ready`, failed: `${name} could not be created` }),
  "vm.delete": (name) => ({ doing: `Deleting ${name}`, done: `${name} is deleted`, failed: `${name} could not be deleted` }),
  "vm.start": (name) => ({ doing: `Starting ${name}`, done: `${name} is started`, failed: `${name} could not be started` }),
  "vm.shutdown": (name) => ({ doing: `Shutting down ${name}`, done: `${name} is shut down`, failed: `${name} could not be shut down` }),
  "vm.stop": (name) => ({ doing: `Stopping ${name}`, done: `${name} is stopped`, failed: `${name} could not be stopped` }),
  "vm.reboot": (name) => ({ doing: `Rebooting ${name}`, done: `${name} is rebooted`, failed: `${name} could not be rebooted` }),
};

export function operationTitle(operation: Operation): string {
  const name = operation.target_label === "" ? "The machine" : operation.target_label;
  const words = WORDS[operation.type]?.(name) ?? {
    doing: `${operation.type} of ${name}`,
    done: `${operation.type} of ${name} is done`,
    failed: `${operation.type} of ${name} failed`,
  };
  switch (operation.state) {
    case "queued":
    case "running":
      return words.doing;
    case "succeeded":
      return words.done;
    case "failed":
      return words.failed;
  }
}
