import { screen, within } from "@testing-library/react";
import { http } from "msw";
import { describe, expect, it } from "vitest";
import type { Deployment } from "~/api/deployment";
import { ok, refuse } from "~/mocks/handlers";
import { renderApp } from "~/mocks/render";
import { server } from "~/mocks/server";

const instance = (service: string, n: number, version = "1.0.0") => ({ service, id: `${service}-instance-number-${n}`, version, host: "host-a", pid: 40 + n, started_at: new Date(Date.now() - 3_600_000).toISOString(), requests: 12, errors: n });
const calm: Deployment = {
  version: "1.0.0",
  healthy: true,
  problems: [],
  instances: [instance("auth", 0), instance("ippool", 1)],
  streams: [{ name: "EVENTS", messages: 12, bytes: 4_096, replicas: 3, leader: "n1", behind: [], lag: 2, unacknowledged: 1 }],
  leases: [{ name: "ippool.reconcile", holder: "ippool-1", renewed_at: new Date().toISOString() }],
};

describe("cluster", () => {
  it("shows who serves what, and what waits", async () => {
    server.use(http.get("*/api/deployment", () => ok(calm)));
    renderApp("/cluster");
    expect(await screen.findByText(/2 instances of 2 services, all as they should be/)).toBeVisible();
    expect(within(screen.getByRole("grid", { name: "Instances" })).getByRole("row", { name: /ippool/ })).toHaveTextContent("host-a · 41");
    expect(within(screen.getByRole("grid", { name: "Streams" })).getByRole("row", { name: /EVENTS/ })).toHaveTextContent("2 messages");
    expect(within(screen.getByRole("grid", { name: "Leases" })).getByRole("row", { name: /reconcile/ })).toHaveTextContent("ippool-1");
  });

  it("says what is wrong", async () => {
    server.use(http.get("*/api/deployment", () => ok({ ...calm, healthy: false, problems: ["no instance of auth answers", "the stream EVENTS has no leader"], instances: [instance("ippool", 1, "1.0.1")], streams: [{ ...calm.streams[0], leader: null }] })));
    const first = renderApp("/cluster");
    expect(await screen.findByText("No instance of auth answers.")).toBeVisible();
    expect(screen.getByText("no leader")).toBeVisible();
    first.unmount();
    server.use(http.get("*/api/deployment", () => refuse(503, "service.unavailable", "the bus is away")));
    renderApp("/cluster");
    expect(await screen.findByRole("alert")).toHaveTextContent("The bus is away.");
  });
});
