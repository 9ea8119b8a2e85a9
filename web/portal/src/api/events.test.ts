import { QueryClient, QueryObserver } from "@tanstack/react-query";
import { act, renderHook } from "@testing-library/react";
import { beforeEach, describe, expect, it, vi } from "vitest";
import * as data from "~/mocks/data";
import { FakeEventSource } from "~/mocks/event-source";
import { applyEvent, newer, openStream, parseEvent, usePollInterval, useStreamState } from "./events";
import { keys } from "./queries";
import type { AddressRow, Machine, Operation } from "./types";

let client: QueryClient;
beforeEach(() => {
  client = new QueryClient();
});

describe("applyEvent", () => {
  it("replaces the operation and puts a new one first", () => {
    const before = data.provision(1);
    client.setQueryData(keys.operations, [before]);
    applyEvent(client, { type: "operation", data: data.provision(4) });
    applyEvent(client, { type: "operation", data: data.provision(0, { id: "op_new" }) });
    const list = client.getQueryData<Operation[]>(keys.operations);
    expect(list?.map((item) => item.id)).toEqual(["op_new", before.id]);
    expect(list?.[1]?.steps[3]?.state).toBe("done");
    expect(client.getQueryData<Operation>(keys.operation(before.id))?.steps[3]?.state).toBe("done");
  });

  it("never takes an operation back", () => {
    applyEvent(client, { type: "operation", data: data.provision(9) });
    applyEvent(client, { type: "operation", data: data.provision(4) });
    expect(client.getQueryData<Operation>(keys.operation(data.provision(9).id))?.state).toBe("succeeded");
    const failed = data.provision(2, { state: "failed", failAt: 2 });
    expect(newer(data.provision(4), failed)).toBe(failed);
  });

  it("changes, adds and removes machines", () => {
    const [first, second] = data.machines();
    if (!first || !second) throw new Error("the mock has machines");
    client.setQueryData(keys.machines, [first]);
    applyEvent(client, { type: "machine", data: { kind: "created", vm: second } });
    applyEvent(client, { type: "machine", data: { kind: "changed", vm: { ...first, status: "running" } } });
    expect(client.getQueryData<Machine[]>(keys.machines)?.map((vm) => [vm.hostname, vm.status])).toEqual([
      [second.hostname, second.status],
      [first.hostname, "running"],
    ]);
    applyEvent(client, { type: "machine", data: { kind: "deleted", vm: first } });
    expect(client.getQueryData<Machine[]>(keys.machines)?.map((vm) => vm.hostname)).toEqual([second.hostname]);
  });

  it("leaves lists alone that were never loaded", () => {
    const [first] = data.machines();
    if (!first) throw new Error("the mock has machines");
    applyEvent(client, { type: "machine", data: { kind: "changed", vm: first } });
    expect(client.getQueryData(keys.machines)).toBeUndefined();
  });

  it("replaces an address row", () => {
    client.setQueryData(keys.addresses, data.addresses());
    const row = data.addresses()[2];
    if (!row) throw new Error("the mock has addresses");
    applyEvent(client, { type: "address", data: { ...row, status: "reserved" } });
    expect(client.getQueryData<AddressRow[]>(keys.addresses)?.[2]?.status).toBe("reserved");
  });

  it("asks for everything again on reset", () => {
    client.setQueryData(keys.machines, []);
    client.setQueryData(keys.catalog, data.catalog);
    applyEvent(client, { type: "reset" });
    expect(client.getQueryState(keys.machines)?.isInvalidated).toBe(true);
    expect(client.getQueryState(keys.catalog)?.isInvalidated).toBe(true);
  });

  it("refreshes capacity when an operation ends, not while it runs", () => {
    client.setQueryData(keys.catalog, data.catalog);
    applyEvent(client, { type: "operation", data: data.provision(4) });
    expect(client.getQueryState(keys.catalog)?.isInvalidated).toBe(false);
    applyEvent(client, { type: "operation", data: data.provision(9) });
    expect(client.getQueryState(keys.catalog)?.isInvalidated).toBe(true);
  });
});

describe("parseEvent", () => {
  it("refuses what it does not know", () => {
    expect(parseEvent("operation", "{")).toBeNull();
    expect(parseEvent("operation", '{"id":5}')).toBeNull();
    expect(parseEvent("machine", '{"kind":"changed"}')).toBeNull();
    expect(parseEvent("future", "{}")).toBeNull();
    expect(parseEvent("reset", "{}")).toEqual({ type: "reset" });
  });
});

describe("openStream", () => {
  it("feeds the cache, and polls while it is down", () => {
    vi.useFakeTimers();
    const state = renderHook(() => ({ state: useStreamState(), poll: usePollInterval() }));
    let close: () => void = () => undefined;
    act(() => {
      close = openStream(client);
    });
    expect(FakeEventSource.last.url).toBe("/api/events");
    act(() => {
      FakeEventSource.last.open();
    });
    expect(state.result.current).toEqual({ state: "live", poll: false });

    client.setQueryData(keys.operations, []);
    FakeEventSource.last.say("operation", data.provision(3));
    FakeEventSource.last.say("operation", "not json");
    expect(client.getQueryData<Operation[]>(keys.operations)).toHaveLength(1);

    act(() => {
      FakeEventSource.last.fail(true);
    });
    expect(state.result.current).toEqual({ state: "polling", poll: 5000 });
    expect(FakeEventSource.all).toHaveLength(1);
    act(() => {
      vi.advanceTimersByTime(5000);
    });
    expect(FakeEventSource.all).toHaveLength(2);
    act(() => {
      FakeEventSource.last.open();
    });
    expect(state.result.current.state).toBe("live");
    expect(client.getQueryState(keys.operations)?.isInvalidated).toBe(true);

    act(() => {
      close();
    });
    expect(FakeEventSource.last.closed).toBe(true);
    vi.useRealTimers();
  });

  it("asks again for what was answered late", async () => {
    const answers: ((operation: Operation) => void)[] = [];
    const id = data.provision(9).id;
    const observer = new QueryObserver<Operation>(client, {
      queryKey: keys.operation(id),
      queryFn: () => new Promise<Operation>((answer) => answers.push(answer)),
    });
    const forget = observer.subscribe(() => undefined);
    const close = openStream(client);
    FakeEventSource.last.open();
    const answer = (step: number) => answers.shift()?.(data.provision(step));

    await vi.waitFor(() => {
      expect(answers).toHaveLength(1);
    });
    FakeEventSource.last.say("operation", data.provision(9));
    // It was asked for before that, and says what was true then.
    answer(6);
    await vi.waitFor(() => {
      expect(answers).toHaveLength(1);
    });
    answer(9);
    await vi.waitFor(() => {
      expect(observer.getCurrentResult().fetchStatus).toBe("idle");
    });
    expect(observer.getCurrentResult().data?.state).toBe("succeeded");

    close();
    forget();
  });
});
