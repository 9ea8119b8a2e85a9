import {
  OS_KEYS,
  TIER_KEYS,
  type Catalog,
  type CatalogView,
  MACHINE_STATUSES,
  OPERATION_STATES,
  STEP_STATES,
  type Machine,
  type MachineView,
  type Operation,
  type OperationView,
} from "./types";

function known<K extends string>(values: readonly K[], value: string, otherwise: K): K {
  return values.find((candidate) => candidate === value) ?? otherwise;
}

function amount(value: unknown): number | null {
  return typeof value === "number" ? value : null;
}

/** Only what can be ordered with the requests this page knows. */
export function toCatalog(view: CatalogView): Catalog {
  return {
    ...view,
    quota: { used: amount(view.quota.used) ?? 0, limit: amount(view.quota.limit) },
    tiers: view.tiers.flatMap((tier) => {
      const key = TIER_KEYS.find((candidate) => candidate === tier.key);
      return key === undefined ? [] : [{ ...tier, key }];
    }),
    os: view.os.flatMap((os) => {
      const key = OS_KEYS.find((candidate) => candidate === os.key);
      return key === undefined ? [] : [{ ...os, key }];
    }),
  };
}

/** A machine of a newer server may have a state that this page does not know. */
export function toMachine(view: MachineView): Machine {
  return { ...view, status: known(MACHINE_STATUSES, view.status, "unknown") };
}

export function toOperation(view: OperationView): Operation {
  return {
    ...view,
    state: known(OPERATION_STATES, view.state, "running"),
    steps: view.steps.map((step) => ({ ...step, state: known(STEP_STATES, step.state, "pending") })),
  };
}
