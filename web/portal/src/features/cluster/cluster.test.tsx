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

describe("add host", () => {
  it("keeps the token out of arguments, and says why there is none", async () => {
    server.use(http.post("*/api/hosts/join-tokens", () => ok({ token: "nimbus_jt_4f", expires_in_seconds: 900 })));
    const first = renderApp("/hosts");
    await first.user.click(await screen.findByRole("button", { name: "Add host" }));
    await first.user.click(await screen.findByRole("button", { name: "Make token" }));
    const line = await screen.findByRole("region", { name: "join commands" });
    expect(line).toHaveTextContent("printf %s 'nimbus_jt_4f' > join-token");
    expect(line).toHaveTextContent("sudo nimbus node join http://nimbus.test --token-file join-token");
    expect(screen.getByText(/for 15 min/)).toBeVisible();
    first.unmount();
    server.use(http.post("*/api/hosts/join-tokens", () => refuse(409, "op.conflict", "the bus is not reachable from other hosts")));
    const { user } = renderApp("/hosts");
    await user.click(await screen.findByRole("button", { name: "Add host" }));
    await user.click(await screen.findByRole("button", { name: "Make token" }));
    expect(await screen.findByText("The bus is not reachable from other hosts.")).toBeVisible();
  });
});

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
