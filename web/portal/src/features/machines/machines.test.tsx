import { act, screen, waitFor, within } from "@testing-library/react";
import { http, HttpResponse } from "msw";
import { describe, expect, it, vi } from "vitest";
import * as data from "~/mocks/data";
import { FakeEventSource } from "~/mocks/event-source";
import { ok, refuse } from "~/mocks/handlers";
import { renderApp } from "~/mocks/render";
import { server } from "~/mocks/server";

const KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH0Zs5w3aJb2xkq0aB6bQd6uQ0g2m7m1dK3JX0M8w3cP ada@laptop";

interface Sent {
  body: unknown;
  key: string | null;
  prefer: string | null;
}

function record(answer: (count: number) => Response) {
  const sent: Sent[] = [];
  server.use(
    http.post("*/api/vms", async ({ request }) => {
      sent.push({ body: await request.json(), key: request.headers.get("idempotency-key"), prefer: request.headers.get("prefer") });
      return answer(sent.length);
    }),
  );
  return sent;
}

describe("create machine", () => {
  it("checks the name as it is typed and offers a valid one", async () => {
    const { user } = renderApp("/machines/new");
    const name = await screen.findByLabelText("Hostname");
    await user.type(name, "Web Server");
    expect(screen.getByText("Use lower case letters.")).toBeVisible();
    await user.click(screen.getByRole("button", { name: "web-server" }));
    expect(name).toHaveValue("web-server");
    expect(name).toBeValid();
  });

  it("knows the names that are taken", async () => {
    const { user } = renderApp("/machines/new");
    await user.type(await screen.findByLabelText("Hostname"), "web-1");
    expect(await screen.findByText("You already have a machine of this name.")).toBeVisible();
    expect(screen.getByRole("button", { name: "web-2" })).toBeVisible();
  });

  it("says how many fit, and why a size or a system cannot be had", async () => {
    renderApp("/machines/new");
    expect(await screen.findByRole("radio", { name: /Small: 1 vCPU, 1 GiB memory, 15 GiB disk/ })).toBeChecked();
    expect(screen.getByText("22 more fit now")).toBeVisible();
    expect(screen.getByRole("radio", { name: /XL.*Administrators only/ })).toBeDisabled();
    expect(screen.getByRole("radio", { name: /Debian 11/ })).toBeDisabled();
    expect(await screen.findByText(/40 of 64 GiB/)).toBeVisible();
  });

  it("sends what was chosen and shows the steps", async () => {
    const sent = record(() => ok(data.provision(0), 202));
    const { user, router } = renderApp("/machines/new");
    await user.type(await screen.findByLabelText("Hostname"), "calm-tern");
    await user.click(screen.getByRole("radio", { name: /Medium/ }));
    await user.click(screen.getByRole("radio", { name: /Debian 12/ }));
    await user.click(screen.getByRole("radio", { name: /Use my own/ }));
    await user.click(screen.getByRole("button", { name: "Create machine" }));
    expect(screen.getByText("Paste a public key, or choose its file.")).toBeVisible();
    expect(sent).toEqual([]);
    await user.click(screen.getByLabelText("Public key"));
    await user.paste(KEY);
    await user.click(screen.getByRole("button", { name: "Create machine" }));
    expect(await screen.findByRole("list", { name: "Progress" })).toBeVisible();
    expect(router.state.location.pathname).toBe(`/operations/${data.provision(0).id}`);
    expect(sent).toEqual([
      {
        body: { hostname: "calm-tern", tier: "medium", os_template: "debian-12", ssh_pubkey: KEY },
        prefer: "respond-async",
        key: expect.stringMatching(/^[0-9a-f]{32}$/) as unknown,
      },
    ]);
  });

  it("repeats a lost request under the same key, and a refused one under a new key", async () => {
    const sent = record((count) =>
      count === 1 ? HttpResponse.error() : count === 2 ? refuse(409, "machine.no_capacity", "No node has room.") : ok(data.provision(0), 202),
    );
    const { user } = renderApp("/machines/new");
    await user.type(await screen.findByLabelText("Hostname"), "calm-tern");
    await user.click(screen.getByRole("button", { name: "Create machine" }));
    expect(await screen.findByText(/Nimbus does not answer/)).toBeVisible();
    await user.click(screen.getByRole("button", { name: "Create machine" }));
    expect(await screen.findByText("No node has room.")).toBeVisible();
    expect(screen.getByLabelText("Hostname")).toHaveValue("calm-tern");
    await user.click(screen.getByRole("button", { name: "Create machine" }));
    await screen.findByRole("list", { name: "Progress" });
    expect(sent[1]?.key).toBe(sent[0]?.key);
    expect(sent[2]?.key).not.toBe(sent[1]?.key);
  });

  it("shows a refused name at the field", async () => {
    record(() => refuse(409, "op.conflict", "Somebody else uses that name.", { detail: { field: "hostname" } }));
    const { user } = renderApp("/machines/new");
    await user.type(await screen.findByLabelText("Hostname"), "calm-tern");
    await user.click(screen.getByRole("button", { name: "Create machine" }));
    expect(await screen.findByText("Somebody else uses that name.")).toBeVisible();
    expect(screen.getByLabelText("Hostname")).toBeInvalid();
  });

  it("keeps what was typed for another try, and only for that", async () => {
    record(() => ok(data.provision(0), 202));
    const first = renderApp("/machines/new");
    await first.user.type(await screen.findByLabelText("Hostname"), "calm-tern");
    await first.user.click(screen.getByRole("radio", { name: /Large/ }));
    await first.user.click(screen.getByRole("button", { name: "Create machine" }));
    await screen.findByRole("list", { name: "Progress" });
    first.unmount();

    const again = renderApp("/machines/new?retry=true");
    expect(await screen.findByLabelText("Hostname")).toHaveValue("calm-tern");
    again.unmount();

    renderApp("/machines/new");
    expect(await screen.findByLabelText("Hostname")).toHaveValue("");
    expect(screen.getByRole("radio", { name: /Large/ })).toBeChecked();
  });

  it("cannot be pressed while the cluster is away, and says so", async () => {
    server.use(http.get("*/api/catalog", () => ok({ ...data.catalog, cluster: { reachable: false, error: "no route to host" } })));
    const sent = record(() => ok(data.provision(0), 202));
    const { user } = renderApp("/machines/new");
    await user.type(await screen.findByLabelText("Hostname"), "calm-tern");
    const button = screen.getByRole("button", { name: "Create machine" });
    expect(button).toHaveAttribute("aria-disabled", "true");
    await user.click(button);
    await user.type(screen.getByLabelText("Hostname"), "{Enter}");
    expect(screen.getByText("The cluster does not answer.")).toBeVisible();
    expect(sent).toEqual([]);
  });
});

describe("progress", () => {
  it("moves with the events and ends with the command and the key, once", async () => {
    // The simulated browser would follow the download and leave the page.
    const save = vi.spyOn(HTMLAnchorElement.prototype, "click").mockImplementation(() => undefined);
    let taken = 0;
    server.use(
      http.post("*/api/operations/:id/private-key", () => {
        taken += 1;
        return taken === 1
          ? ok({ key_name: "nimbus-calm-heron", private_key: "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n" })
          : refuse(404, "op.not_found", "The key was taken already.");
      }),
    );
    const { user } = renderApp(`/operations/${data.provision(2).id}`);
    const list = await screen.findByRole("list", { name: "Progress" });
    expect(within(list).getAllByRole("listitem")[2]).toHaveAttribute("aria-current", "step");
    act(() => {
      FakeEventSource.last.open();
      FakeEventSource.last.say("operation", data.provision(9));
    });
    expect(await screen.findByRole("heading", { level: 1, name: "calm-heron is ready" })).toBeVisible();
    expect(screen.getByLabelText("SSH command")).toHaveTextContent("ssh -i ~/.ssh/nimbus-calm-heron ubuntu@10.77.0.57");
    await user.click(screen.getByRole("button", { name: "Download private key" }));
    expect(await screen.findByLabelText("Private key text")).toHaveTextContent("BEGIN OPENSSH PRIVATE KEY");
    const done = data.provision(9);
    act(() => {
      FakeEventSource.last.say("operation", { ...done, result: { ...done.result, has_private_key: false } });
    });
    await user.click(screen.getByRole("button", { name: "Download again" }));
    expect(taken).toBe(1);
    expect(save).toHaveBeenCalledTimes(2);
    save.mockRestore();
  });

  it("explains a failure and offers another try", async () => {
    server.use(http.get("*/api/operations/:id", () => ok(data.provision(2, { state: "failed", failAt: 2 }))));
    renderApp("/operations/op_failed");
    const alert = await screen.findByRole("alert");
    expect(alert).toHaveTextContent("no space left");
    expect(alert).toHaveTextContent("machine.proxmox_task_failed");
    expect(alert).toHaveTextContent("req-7f3a90c1d2");
    expect(screen.getByRole("link", { name: "Try again" })).toHaveAttribute("href", "/machines/new?retry=true");
  });
});

describe("machines", () => {
  it("lists them, and follows the events", async () => {
    renderApp("/machines");
    const table = await screen.findByRole("grid", { name: "Machines" });
    expect(within(table).getByRole("row", { name: /thesis-db/ })).toHaveTextContent("Stopped");
    const stopped = data.machines().find((machine) => machine.hostname === "thesis-db");
    if (!stopped) throw new Error("the mock has that machine");
    act(() => {
      FakeEventSource.last.say("machine", { kind: "changed", vm: { ...stopped, status: "running" } });
    });
    await waitFor(() => {
      expect(within(table).getByRole("row", { name: /thesis-db/ })).toHaveTextContent("Running");
    });
    act(() => {
      FakeEventSource.last.say("machine", { kind: "deleted", vm: stopped });
    });
    await waitFor(() => {
      expect(within(table).queryByRole("row", { name: /thesis-db/ })).toBeNull();
    });
  });

  it("deletes only after the name was typed", async () => {
    let deleted = 0;
    server.use(
      http.delete("*/api/vms/:id", () => {
        deleted += 1;
        return ok(data.simpleOperation("vm.delete", "web-1", "running", 1), 202);
      }),
    );
    const { user } = renderApp("/machines");
    await user.click(await screen.findByRole("button", { name: "Actions for web-1" }));
    await user.click(await screen.findByRole("menuitem", { name: "Delete" }));
    const dialog = await screen.findByRole("alertdialog", { name: "Delete web-1" });
    const button = within(dialog).getByRole("button", { name: "Delete machine" });
    await user.click(button);
    expect(deleted).toBe(0);
    await user.type(within(dialog).getByLabelText("Type web-1 to confirm"), "web-1");
    await user.click(within(dialog).getByRole("button", { name: "Delete machine" }));
    await waitFor(() => {
      expect(screen.queryByRole("alertdialog")).toBeNull();
    });
    expect(deleted).toBe(1);
  });

  it("says why an action is not possible", async () => {
    const { user } = renderApp("/machines");
    await user.click(await screen.findByRole("button", { name: "Actions for web-1" }));
    const start = await screen.findByRole("menuitem", { name: /Start/ });
    expect(start).toHaveAttribute("aria-disabled", "true");
    expect(start).toHaveTextContent("It runs already.");
  });

  it("has an empty state with the next action", async () => {
    server.use(http.get("*/api/vms", () => ok([])));
    renderApp("/machines");
    expect(await screen.findByRole("heading", { name: "No machines yet" })).toBeVisible();
    expect(screen.getByRole("link", { name: "Create machine" })).toHaveAttribute("href", "/machines/new");
  });

  it("shows an error with its code, and tries again", async () => {
    let count = 0;
    server.use(
      http.get("*/api/vms", () => {
        count += 1;
        return count === 1 ? refuse(500, "op.internal", "The store is broken.") : ok(data.machines());
      }),
    );
    const { user } = renderApp("/machines");
    const alert = await screen.findByRole("alert");
    expect(alert).toHaveTextContent("The store is broken.");
    expect(alert).toHaveTextContent("op.internal");
    await user.click(within(alert).getByRole("button", { name: "Try again" }));
    expect(await screen.findByRole("grid", { name: "Machines" })).toBeVisible();
  });
});

describe("operate", () => {
  it("is not shown to members, and refused by name", async () => {
    server.use(http.get("*/api/me", () => ok({ ...data.me, is_admin: false })));
    renderApp("/nodes");
    expect(await screen.findByRole("heading", { level: 1, name: "Administrators only" })).toBeVisible();
    expect(screen.queryByRole("link", { name: "Addresses" })).toBeNull();
  });

  it("explains why a node is refused", async () => {
    renderApp("/nodes");
    const node = await screen.findByRole("region", { name: "Node pve3" });
    expect(node).toHaveTextContent("not enough memory left, not enough disk left");
    expect(screen.getByRole("region", { name: "Next placement" })).toHaveTextContent("Mediumpve1");
  });

  it("lists what is missing before the cluster is known", async () => {
    server.use(
      http.get("*/api/setup/status", () =>
        ok({ configured: false, needs_admin_setup: false, missing: [{ setting: "PROXMOX_HOST", expected: "the address of a node" }] }),
      ),
    );
    renderApp("/machines");
    expect(await screen.findByRole("heading", { level: 1, name: "Not configured yet" })).toBeVisible();
    expect(screen.getByText("the address of a node")).toBeVisible();
  });
});
