import type { QueryClient, QueryKey } from "@tanstack/react-query";
import { useSyncExternalStore } from "react";
import { isFinal, toJob, toWorker, type Job, type Worker } from "./gpu";
import { watchLateAnswers } from "./late";
import { keys } from "./queries";
import { toMachine, toOperation } from "./narrow";
import type { AddressRow, Machine, MachineEvent, MachineView, Operation, OperationView } from "./types";
import { toSandbox, toService, toSession, type Sandbox, type Service, type WorkSession } from "./workloads";

/** What the event stream tells us, already told apart. */
export type PortalEvent =
  | { type: "operation"; data: Operation }
  | { type: "machine"; data: MachineEvent }
  | { type: "address"; data: AddressRow }
  | { type: "node" }
  | { type: "sandbox"; data: Sandbox | Removed }
  | { type: "service"; data: Service | Removed }
  | { type: "session"; data: WorkSession | Removed }
  | { type: "gpu_job"; data: Job }
  | { type: "gpu_worker"; data: Worker | { id: string; removed: true } }
  | { type: "gpu_settings" }
  | { type: "reset" };

/** Something of a tenant that is gone, by its id or its name. */
export interface Removed {
  removed: true;
  tenant: string;
  key: string;
}

export const EVENT_TYPES = ["operation", "machine", "address", "node", "sandbox", "service", "session", "gpu_job", "gpu_worker", "gpu_settings", "reset"] as const;

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
function isOperation(value: unknown): value is OperationView {
  return isRecord(value) && typeof value["id"] === "string" && Array.isArray(value["steps"]);
}
function isMachineEvent(value: unknown): value is { kind: string; vm: MachineView } {
  return isRecord(value) && typeof value["kind"] === "string" && isRecord(value["vm"]) && typeof value["vm"]["ID"] === "string";
}
function isAddress(value: unknown): value is AddressRow {
  return isRecord(value) && typeof value["ip"] === "string" && typeof value["status"] === "string";
}

function machineKind(kind: string): MachineEvent["kind"] {
  return kind === "created" || kind === "deleted" ? kind : "changed";
}

function toRemoved(value: unknown): Removed | null {
  if (!isRecord(value) || value["removed"] !== true || typeof value["tenant"] !== "string") return null;
  const key = value["id"] ?? value["name"];
  return typeof key === "string" ? { removed: true, tenant: value["tenant"], key } : null;
}

/** A removal, or the resource; null for what cannot be read. */
function workload<T>(value: unknown, read: (value: unknown) => T): T | Removed | null {
  try {
    return toRemoved(value) ?? read(value);
  } catch {
    return null;
  }
}

function readable<T>(value: unknown, read: (value: unknown) => T): T | null {
  try {
    return read(value);
  } catch {
    return null;
  }
}

function toWorkerEvent(value: unknown): Worker | { id: string; removed: true } {
  if (isRecord(value) && value["removed"] === true && typeof value["id"] === "string") return { id: value["id"], removed: true };
  return toWorker(value);
}

/** Reads one message of the stream; null for what this version does not know. */
export function parseEvent(type: string, text: string): PortalEvent | null {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch {
    return null;
  }
  switch (type) {
    case "operation":
      return isOperation(data) ? { type, data: toOperation(data) } : null;
    case "machine":
      return isMachineEvent(data) ? { type, data: { kind: machineKind(data.kind), vm: toMachine(data.vm) } } : null;
    case "address":
      return isAddress(data) ? { type, data } : null;
    case "sandbox": {
      const found = workload(data, toSandbox);
      return found === null ? null : { type, data: found };
    }
    case "service": {
      const found = workload(data, toService);
      return found === null ? null : { type, data: found };
    }
    case "session": {
      const found = workload(data, toSession);
      return found === null ? null : { type, data: found };
    }
    case "gpu_job": {
      const found = readable(data, toJob);
      return found === null ? null : { type, data: found };
    }
    case "gpu_worker": {
      const found = readable(data, toWorkerEvent);
      return found === null ? null : { type, data: found };
    }
    case "node":
    case "gpu_settings":
    case "reset":
      return { type };
    default:
      return null;
  }
}

function rank(operation: Operation): number {
  const settled = operation.state === "succeeded" || operation.state === "failed";
  const moved = operation.steps.reduce((sum, step) => {
    if (step.state === "pending") return sum;
    return sum + (step.state === "running" ? 1 : step.state === "undoing" ? 3 : step.state === "undone" ? 4 : 2);
  }, 0);
  return (settled ? 1000 : operation.state === "running" ? 1 : 0) + moved;
}

/** A late answer or a replayed event must never take an operation back. */
export function newer(before: Operation | undefined, next: Operation): Operation {
  return before !== undefined && rank(before) > rank(next) ? before : next;
}

function settled(operation: Operation): boolean {
  return operation.state === "succeeded" || operation.state === "failed";
}

/** Puts a resource into its list and its own place, or takes it out of both. Lists stay sorted by what they are named after. */
function place<T extends object>(
  client: QueryClient,
  [own, list]: Places,
  data: T | Removed,
  nameOf: (item: T) => string,
): void {
  const gone = "removed" in data;
  const name = gone ? data.key : nameOf(data);
  client.setQueryData<T[]>(list, (before) => {
    if (before === undefined) return undefined;
    if (gone) return before.filter((item) => nameOf(item) !== name);
    return before.some((item) => nameOf(item) === name) ? before.map((item) => (nameOf(item) === name ? data : item)) : [...before, data];
  });
  if (gone) void client.invalidateQueries({ queryKey: own });
  else client.setQueryData<T>(own, data);
}

/** What is over stays over; events leave the environment of a job out. */
function newerJob(before: Job | undefined, next: Job): Job {
  if (before === undefined) return next;
  if (isFinal(before.state) && !isFinal(next.state)) return before;
  return Object.keys(next.env).length === 0 ? { ...next, env: before.env } : next;
}

type Places = readonly [own: QueryKey, list: QueryKey];

/** The places of a workload, which is told of with its tenant whether it is there or gone. */
function workPlaces(event: Extract<PortalEvent, { type: "sandbox" | "service" | "session" }>): Places {
  const { type, data } = event;
  switch (type) {
    case "sandbox": {
      const [tenant, id] = "removed" in data ? [data.tenant, data.key] : [data.metadata.tenantId, data.metadata.id];
      return [keys.sandbox(tenant, id), keys.sandboxes(tenant)];
    }
    case "service": {
      const [tenant, name] = "removed" in data ? [data.tenant, data.key] : [data.metadata.tenantId, data.metadata.name];
      return [keys.service(tenant, name), keys.services(tenant)];
    }
    case "session": {
      const [tenant, id] = "removed" in data ? [data.tenant, data.key] : [data.metadata.tenantId, data.metadata.id];
      return [keys.session(id), keys.sessions(tenant)];
    }
  }
}

/** What an event tells about: a resource's own place and its list. */
function places(event: PortalEvent): readonly QueryKey[] {
  switch (event.type) {
    case "operation":
      return [keys.operation(event.data.id), keys.operations];
    case "machine":
      return [keys.machine(event.data.vm.ID), keys.machines];
    case "address":
      return [keys.addresses];
    case "sandbox":
    case "service":
    case "session":
      return workPlaces(event);
    case "gpu_job":
      return [keys.gpuJob(event.data.id), keys.gpuJobs];
    case "gpu_worker":
      return [keys.gpuWorkers];
    // These are asked for anew, which ends what is under way.
    case "node":
    case "gpu_settings":
    case "reset":
      return [];
  }
}

/** Applies one event to the cache. Lists that were never loaded stay unloaded. */
export function applyEvent(client: QueryClient, event: PortalEvent): void {
  switch (event.type) {
    case "operation": {
      const operation = event.data;
      client.setQueryData<Operation>(keys.operation(operation.id), (before) => newer(before, operation));
      client.setQueryData<Operation[]>(keys.operations, (list) => {
        if (list === undefined) return undefined;
        return list.some((item) => item.id === operation.id)
          ? list.map((item) => (item.id === operation.id ? newer(item, operation) : item))
          : [operation, ...list];
      });
      if (settled(operation)) {
        // Capacity, quota and placement changed, whichever way it ended.
        void client.invalidateQueries({ queryKey: keys.catalog });
        void client.invalidateQueries({ queryKey: ["placement"] });
        void client.invalidateQueries({ queryKey: ["nodes"] });
      }
      return;
    }
    case "machine": {
      const { kind, vm } = event.data;
      if (kind === "deleted") {
        client.setQueryData<Machine[]>(keys.machines, (list) => list?.filter((item) => item.ID !== vm.ID));
        void client.invalidateQueries({ queryKey: keys.machine(vm.ID) });
        return;
      }
      client.setQueryData<Machine>(keys.machine(vm.ID), vm);
      client.setQueryData<Machine[]>(keys.machines, (list) => {
        if (list === undefined) return undefined;
        return list.some((item) => item.ID === vm.ID)
          ? list.map((item) => (item.ID === vm.ID ? vm : item))
          : [vm, ...list];
      });
      return;
    }
    case "address": {
      const row = event.data;
      client.setQueryData<AddressRow[]>(keys.addresses, (list) =>
        list?.map((item) => (item.ip === row.ip ? row : item)),
      );
      return;
    }
    case "node":
      void client.invalidateQueries({ queryKey: ["nodes"] });
      void client.invalidateQueries({ queryKey: keys.catalog });
      return;
    case "sandbox":
      place<Sandbox>(client, workPlaces(event), event.data, (item) => item.metadata.id);
      return;
    case "service":
      place<Service>(client, workPlaces(event), event.data, (item) => item.metadata.name);
      return;
    case "session":
      place<WorkSession>(client, workPlaces(event), event.data, (item) => item.metadata.id);
      return;
    case "gpu_job": {
      const job = event.data;
      client.setQueryData<Job>(keys.gpuJob(job.id), (before) => (before === undefined ? undefined : newerJob(before, job)));
      client.setQueryData<Job[]>(keys.gpuJobs, (list) => {
        if (list === undefined) return undefined;
        return list.some((item) => item.id === job.id) ? list.map((item) => (item.id === job.id ? newerJob(item, job) : item)) : [job, ...list];
      });
      return;
    }
    case "gpu_worker": {
      const worker = event.data;
      client.setQueryData<Worker[]>(keys.gpuWorkers, (list) => {
        if (list === undefined) return undefined;
        if ("removed" in worker) return list.filter((item) => item.id !== worker.id);
        return list.some((item) => item.id === worker.id) ? list.map((item) => (item.id === worker.id ? worker : item)) : [...list, worker];
      });
      return;
    }
    case "gpu_settings":
      void client.invalidateQueries({ queryKey: keys.gpuSettings });
      void client.invalidateQueries({ queryKey: keys.gpuInference });
      return;
    case "reset":
      void client.invalidateQueries();
      return;
  }
}

export type StreamState = "connecting" | "live" | "polling";

let state: StreamState = "connecting";
/** Whether this stream tells about workloads at all: until it has, they are asked for. */
let tells = false;
const listeners = new Set<() => void>();

function setState(next: StreamState): void {
  if (state === next) return;
  state = next;
  for (const listener of listeners) listener();
}

const RECONNECT_MS = 5_000;
export const POLL_MS = 5_000;

/** Opens the one stream of this tab; returns what closes it. */
export function openStream(client: QueryClient, make: (url: string) => EventSource = (url) => new EventSource(url)): () => void {
  let source: EventSource | null = null;
  let timer: ReturnType<typeof setTimeout> | null = null;
  let lost = false;
  let closed = false;
  const late = watchLateAnswers(client);

  const connect = () => {
    const current = make("/api/events");
    source = current;
    current.onopen = () => {
      setState("live");
      // Whatever happened while the stream was down is not replayed for certain.
      if (lost) void client.invalidateQueries();
      lost = false;
    };
    current.onerror = () => {
      lost = true;
      setState("polling");
      // The browser retries by itself unless the server refused the request.
      if (current.readyState === 2 && !closed) {
        current.close();
        timer = setTimeout(connect, RECONNECT_MS);
      }
    };
    for (const type of EVENT_TYPES) {
      current.addEventListener(type, (message: MessageEvent<string>) => {
        const event = parseEvent(type, message.data);
        if (event === null) return;
        if (!tells && (event.type === "sandbox" || event.type === "service" || event.type === "session")) {
          tells = true;
          for (const listener of listeners) listener();
        }
        // Before it is applied: what is asked for because of it is not late.
        late.told(places(event));
        applyEvent(client, event);
      });
    }
  };
  connect();

  return () => {
    closed = true;
    if (timer) clearTimeout(timer);
    source?.close();
    late.stop();
    tells = false;
    setState("connecting");
  };
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function useStreamState(): StreamState {
  return useSyncExternalStore(subscribe, () => state);
}

/** For live queries: the stream does the work, and polling takes over while it is down. */
export function usePollInterval(): number | false {
  return useStreamState() === "polling" ? POLL_MS : false;
}

const SETTLED_MS = 15_000;
const UNTOLD_MS = 2_000;

/** The same for workloads, which are looked at now and then even while the stream works. */
export function useWorkPoll(): number {
  return useSyncExternalStore(subscribe, () => (state === "live" && tells ? SETTLED_MS : UNTOLD_MS));
}
