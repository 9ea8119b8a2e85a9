import { act, fireEvent, screen, waitFor, within } from "@testing-library/react";
import { http, HttpResponse } from "msw";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { FakeEventSource } from "~/mocks/event-source";
import { FakeSocket } from "~/mocks/socket";
import { renderApp } from "~/mocks/render";
import { server } from "~/mocks/server";
import * as mock from "~/mocks/work";
import { ok, refuse } from "~/mocks/handlers";
import * as data from "~/mocks/data";

// The terminal draws with a canvas, which the simulated browser has none of.
vi.mock("~/ui/terminal", () => ({
  default: ({ label, onInput }: { label: string; onInput: (text: string) => void }) => (
    <input
      aria-label={label}
      onChange={(event) => {
        onInput(event.target.value);
      }}
    />
  ),
}));

const [ready] = mock.sandboxes();
if (!ready) throw new Error("the mock has sandboxes");
const PATH = `/sandboxes/${ready.metadata.id}`;

beforeEach(() => {
  FakeSocket.all.length = 0;
  vi.stubGlobal("WebSocket", FakeSocket);
});

describe("sandboxes", () => {
  it("lists them with state, image, host and how they started, and filters", async () => {
    const { user } = renderApp("/sandboxes");
    const table = await screen.findByRole("grid", { name: "Sandboxes" });
    const row = within(table).getByRole("row", { name: /batch-job/ });
    expect(row).toHaveTextContent("Ready");
    expect(row).toHaveTextContent("python:3.12-slim");
    expect(row).toHaveTextContent("warm, 3.8 ms");
    expect(row).toHaveTextContent("host-a");
    expect(within(table).getByRole("row", { name: /browser-agent/ })).toHaveTextContent("cold, 2.1 s");
    await user.type(screen.getByRole("searchbox", { name: "Filter sandboxes" }), "desktop cold");
    await waitFor(() => {
      expect(within(table).queryByRole("row", { name: /batch-job/ })).toBeNull();
    });
    expect(within(table).getByRole("row", { name: /browser-agent/ })).toBeVisible();
  });

  it("follows the events", async () => {
    renderApp("/sandboxes");
    const table = await screen.findByRole("grid", { name: "Sandboxes" });
    act(() => {
      FakeEventSource.last.open();
      FakeEventSource.last.say("sandbox", { tenant: mock.TENANT, ...mock.sandbox({ name: "build", n: 3, state: "ready" }) });
      FakeEventSource.last.say("sandbox", { tenant: mock.TENANT, id: ready.metadata.id, removed: true });
    });
    await waitFor(() => {
      expect(within(table).getByRole("row", { name: /build/ })).toHaveTextContent("Ready");
    });
    expect(within(table).queryByRole("row", { name: /batch-job/ })).toBeNull();
  });

  it("has an empty state, and an error with its code", async () => {
    server.use(http.get("*/api/tenants/:tenant/sandboxes", () => mock.collection([])));
    const first = renderApp("/sandboxes");
    expect(await screen.findByRole("heading", { name: "No sandboxes yet" })).toBeVisible();
    first.unmount();
    server.use(http.get("*/api/tenants/:tenant/sandboxes", () => mock.denied(503, "service.unavailable", "the store is away")));
    renderApp("/sandboxes");
    const alert = await screen.findByRole("alert");
    expect(alert).toHaveTextContent("The store is away.");
    expect(alert).toHaveTextContent("service.unavailable");
  });

  it("says when the tenant is gone, and leads back", async () => {
    server.use(http.get("*/api/tenants/gone/sandboxes", () => mock.denied(404, "session.tenant_not_found", "there is no such tenant")));
    const { user, router } = renderApp("/sandboxes?tenant=gone");
    await user.click(await screen.findByRole("button", { name: "Go to your personal tenant" }));
    expect(await screen.findByRole("grid", { name: "Sandboxes" })).toBeVisible();
    expect(router.state.location.search).toEqual({});
  });
});

describe("create sandbox", () => {
  it("sends exactly what the snippets say", async () => {
    const sent: unknown[] = [];
    server.use(
      http.post("*/api/tenants/:tenant/sandboxes", async ({ request }) => {
        sent.push(await request.json());
        return HttpResponse.json(ready, { status: 201 });
      }),
    );
    const { user, router } = renderApp("/sandboxes/new");
    const image = await screen.findByRole("combobox", { name: "Image" });
    await user.click(screen.getByRole("button", { name: "Create sandbox" }));
    expect(screen.getAllByText("Enter an image.")[0]).toBeVisible();
    await user.type(image, "busybox:1");
    await user.keyboard("{Escape}");
    await user.click(screen.getByRole("radio", { name: /A command/ }));
    await user.type(screen.getByLabelText("Command"), "echo 'a b'");
    await user.click(screen.getByRole("button", { name: /Environment/ }));
    await user.click(screen.getByRole("button", { name: "Add variable" }));
    await user.type(screen.getByLabelText("Name 1"), "MODE");
    await user.type(screen.getByLabelText("Value 1"), "fast");
    const snippet = screen.getByRole("region", { name: "SDK snippet" });
    expect(snippet).toHaveTextContent('argv: ["echo", "a b"]');
    expect(snippet).toHaveTextContent('env: ["MODE=fast"]');
    await user.click(screen.getByRole("button", { name: "Create sandbox" }));
    await waitFor(() => {
      expect(router.state.location.pathname).toBe(PATH);
    });
    expect(sent).toEqual([
      {
        profile: "worker",
        spec: {
          owner: { kind: "standalone" },
          backend: "container",
          root: { kind: "oci_image", source: { kind: "reference", reference: "busybox:1" } },
          process: { argv: ["echo", "a b"], env: ["MODE=fast"] },
          ttlMs: 3_600_000,
        },
      },
    ]);
  });

  it("says what the policy forbids, and what the server refuses", async () => {
    server.use(
      http.get("*/api/tenants/:tenant", () => HttpResponse.json({ ...mock.tenant, policy: { resources: false, ports: true, egress: false, mounts: false } })),
      http.post("*/api/tenants/:tenant/sandboxes", () => mock.denied(429, "rate.resource_exhausted", "the tenant has no memory left", { dimension: "memory" })),
    );
    const { user } = renderApp("/sandboxes/new");
    await user.type(await screen.findByRole("combobox", { name: "Image" }), "busybox:1");
    await user.keyboard("{Escape}");
    await user.click(await screen.findByRole("button", { name: /Resources.*fixed by policy/ }));
    expect(screen.getAllByText(/policy of this tenant/)[0]).toBeVisible();
    await user.click(screen.getByRole("button", { name: "Create sandbox" }));
    const alert = await screen.findByRole("alert");
    expect(alert).toHaveTextContent("The tenant has no memory left.");
    expect(alert).toHaveTextContent("rate.resource_exhausted");
  });
});

describe("a sandbox", () => {
  it("opens a session for its terminal, and closes it when the page is left", async () => {
    const closed: string[] = [];
    server.use(
      http.post("*/api/sessions/:id/close", ({ params }) => {
        closed.push(String(params["id"]));
        return HttpResponse.json(mock.session(1, "closed"));
      }),
    );
    const { router } = renderApp(PATH);
    const terminal = await screen.findByLabelText("Shell in batch-job");
    await waitFor(() => {
      expect(FakeSocket.all).toHaveLength(1);
    });
    const socket = FakeSocket.last;
    const url = new URL(socket.url);
    expect(url.pathname).toMatch(/^\/api\/sessions\/ses_[^/]+\/channels\/stdio$/);
    expect(url.searchParams.get("argv")).toBe('["sh"]');
    expect(url.searchParams.get("tty")).toBe("1");
    expect(url.searchParams.get("ticket")).toBe("t-1");
    act(() => {
      socket.open();
      socket.control({ type: "opened", targetGeneration: 1 });
    });
    expect(await screen.findByText("Attached")).toBeVisible();
    fireEvent.change(terminal, { target: { value: "ls" } });
    expect(socket.frames.at(-1)).toEqual([0, ...new TextEncoder().encode("ls")]);

    // A lost connection comes back to the same shell.
    act(() => {
      socket.lose(1006);
    });
    expect(await screen.findByText(/Lost, trying again/)).toBeVisible();
    await waitFor(() => {
      expect(FakeSocket.all).toHaveLength(2);
    });
    expect(new URL(FakeSocket.last.url).searchParams.get("command")).toBe(url.searchParams.get("command"));
    act(() => {
      FakeSocket.last.open();
      FakeSocket.last.control({ type: "opened", targetGeneration: 1 });
    });
    expect(await screen.findByText("Attached")).toBeVisible();

    // The end of the program is said, and can be followed by another one.
    act(() => {
      FakeSocket.last.control({ type: "exit", code: 3 });
      FakeSocket.last.lose(1000);
    });
    expect(await screen.findByText("The program ended with code 3.")).toBeVisible();
    expect(screen.getByRole("button", { name: "Start again" })).toBeVisible();

    await act(() => router.navigate({ to: "/sandboxes" }));
    await waitFor(() => {
      expect(closed).toEqual([mock.session(1).metadata.id]);
    });
  });

  it("shows its files, facts, log, commands and conditions", async () => {
    const { user } = renderApp(PATH);
    const list = await screen.findByRole("list", { name: "Entries of /" });
    expect(within(list).getByRole("link", { name: /notes.txt/ })).toHaveAttribute("href", expect.stringMatching(/files\/content\?path=%2Fnotes\.txt$/) as string);
    expect(screen.getByRole("tabpanel", { name: "Facts" })).toHaveTextContent("1 vCPU · 512 MiB");
    await user.click(screen.getByRole("tab", { name: "Log" }));
    expect(await screen.findByRole("log", { name: "log" })).toHaveTextContent("listening on 8080");
    await user.click(screen.getByRole("tab", { name: "Commands" }));
    expect(await screen.findByRole("list", { name: "Commands" })).toHaveTextContent("sleep infinity");
    await user.click(screen.getByRole("tab", { name: /Conditions/ }));
    expect(screen.getByRole("list", { name: "Conditions" })).toHaveTextContent("The process runs.");
  });

  it("runs a command and shows what it wrote", async () => {
    const sent: unknown[] = [];
    server.use(
      http.post("*/api/tenants/:tenant/sandboxes/:id/exec", async ({ request }) => {
        sent.push(await request.json());
        return HttpResponse.json({ exitCode: 2, stdout: "", stderr: "no such thing\n", truncated: false });
      }),
    );
    const { user } = renderApp(PATH);
    await user.click(await screen.findByRole("tab", { name: "Commands" }));
    await user.type(screen.getByLabelText("Command"), "ls '/a b'{Enter}");
    expect(await screen.findByText("Ended with code 2")).toBeVisible();
    expect(screen.getByRole("region", { name: "error output" })).toHaveTextContent("no such thing");
    expect(sent).toEqual([{ argv: ["ls", "/a b"] }]);
  });

  it("is stopped, and says why the rest cannot be done then", async () => {
    const stopped = mock.sandbox({ name: "batch-job", n: 1, state: "stopped" });
    server.use(http.post("*/api/tenants/:tenant/sandboxes/:id/stop", () => HttpResponse.json(stopped)));
    const { user } = renderApp(PATH);
    server.use(http.get("*/api/tenants/:tenant/sandboxes/:id", () => HttpResponse.json(stopped)));
    await user.click(await screen.findByRole("button", { name: "Stop" }));
    expect((await screen.findAllByText("Stopped"))[0]).toBeVisible();
    expect(screen.getByRole("region", { name: "Terminal" })).toHaveTextContent("It is stopped.");
    expect(screen.getByRole("button", { name: "Stop" })).toHaveAttribute("aria-disabled", "true");
  });

  it("says why it failed", async () => {
    const failed = mock.sandboxes()[3];
    if (!failed) throw new Error("the mock has a failed sandbox");
    renderApp(`/sandboxes/${failed.metadata.id}`);
    expect(await screen.findByText(/It could not be launched: no such file: \/app\/run/)).toBeVisible();
  });
});

describe("services", () => {
  it("starts one, and says why another cannot be started", async () => {
    const verbs: string[] = [];
    server.use(
      http.post("*/api/tenants/:tenant/services/:name/:verb", ({ params }) => {
        verbs.push(`${String(params["name"])} ${String(params["verb"])}`);
        return HttpResponse.json(mock.services()[0]);
      }),
    );
    const { user } = renderApp("/services");
    await user.click(await screen.findByRole("button", { name: "Actions for worker" }));
    await user.click(await screen.findByRole("menuitem", { name: "Restart" }));
    await waitFor(() => {
      expect(verbs).toEqual(["worker restart"]);
    });
    await user.click(screen.getByRole("button", { name: "Actions for directory" }));
    expect(await screen.findByRole("menuitem", { name: /^Start/ })).toHaveTextContent("only declared");
  });

  it("shows whose change was faster, and lets both be kept", async () => {
    const [worker] = mock.services();
    if (!worker) throw new Error("the mock has services");
    const sent: { metadata: { generation: number } }[] = [];
    server.use(
      http.put("*/api/tenants/:tenant/services/worker", async ({ request }) => {
        const body: unknown = await request.json();
        if (typeof body === "object" && body !== null && "metadata" in body) {
          const metadata: unknown = body.metadata;
          if (typeof metadata === "object" && metadata !== null && "generation" in metadata) sent.push({ metadata: { generation: Number(metadata.generation) } });
        }
        return sent.length === 1
          ? mock.denied(412, "op.precondition_failed", "the generation is 4", { expectedGeneration: 3, currentGeneration: 4 })
          : HttpResponse.json({ ...worker, metadata: { ...worker.metadata, generation: 5 } });
      }),
    );
    const { user, router } = renderApp("/services/worker/edit");
    const editor = await screen.findByLabelText("Definition, from generation 3");
    expect(screen.getByText("Arguments and variables are sealed")).toBeVisible();
    fireEvent.change(editor, { target: { value: '{"labels":{"team":"mine"},"backend":{"kind":"builtIn","provider":"loadBalancer"}}' } });
    server.use(http.get("*/api/tenants/:tenant/services/worker", () => HttpResponse.json({ ...worker, metadata: { ...worker.metadata, generation: 4, labels: { team: "theirs" } } })));
    await user.click(screen.getByRole("button", { name: "Save as generation 4" }));
    const alert = await screen.findByRole("alert");
    expect(alert).toHaveTextContent("You began with generation 3; it is at 4 now.");
    expect(within(alert).getByRole("region", { name: "Differences" })).toHaveTextContent("theirs");
    await user.click(within(alert).getByRole("button", { name: "Save mine over it" }));
    await waitFor(() => {
      expect(router.state.location.pathname).toBe("/services/worker");
    });
    expect(sent.map((each) => each.metadata.generation)).toEqual([3, 4]);
  });
});

describe("sessions", () => {
  it("lists what is open, and closes it", async () => {
    const { user } = renderApp("/sessions");
    const table = await screen.findByRole("grid", { name: "Sessions" });
    expect(within(table).getByRole("row", { name: /worker service/ })).toHaveTextContent("stdiofiles");
    await user.click(within(table).getByRole("button", { name: "Close session on batch-job" }));
    await waitFor(() => {
      expect(within(table).queryByRole("row", { name: /batch-job/ })).toBeNull();
    });
  });

  it("opens one on what runs", async () => {
    const sent: unknown[] = [];
    server.use(
      http.post("*/api/sessions", async ({ request }) => {
        sent.push(await request.json());
        return HttpResponse.json(mock.session(2), { status: 201 });
      }),
    );
    const { user, router } = renderApp("/sessions?target=service:worker");
    const dialog = await screen.findByRole("dialog", { name: "Open session" });
    await user.click(await within(dialog).findByRole("checkbox", { name: /Files/ }));
    await user.click(within(dialog).getByRole("button", { name: "Open session" }));
    await waitFor(() => {
      expect(router.state.location.pathname).toBe(`/sessions/${mock.session(2).metadata.id}`);
    });
    expect(sent).toEqual([{ tenantId: mock.TENANT, target: { service: { name: "worker" } }, channels: ["stdio"], requestedTtlMs: 900_000 }]);
  });
});

describe("keys, tenants and hosts", () => {
  it("makes a key that may only do what was granted, and shows it once", async () => {
    const sent: unknown[] = [];
    server.use(
      http.post("*/api/tenants/:tenant/api-keys", async ({ request }) => {
        sent.push(await request.json());
        return HttpResponse.json({ ...mock.apiKeys[0], name: "ci", key: "nimbus_ak_secret" }, { status: 201 });
      }),
    );
    const { user } = renderApp("/access");
    await user.click(await screen.findByRole("button", { name: "Create API key" }));
    const dialog = await screen.findByRole("dialog", { name: "Create API key" });
    await user.type(within(dialog).getByLabelText("Name"), "ci");
    await user.click(within(dialog).getByRole("checkbox", { name: /Open sessions/ }));
    await user.click(within(dialog).getByRole("button", { name: "Create API key" }));
    expect(await within(dialog).findByText("nimbus_ak_secret")).toBeVisible();
    expect(sent).toEqual([
      {
        name: "ci",
        grants: [{ actions: ["sandboxes.create", "sandboxes.stop", "sandboxes.exec", "sandboxes.list", "sandboxes.get"], sandboxes: "own" }],
        expiresAt: expect.stringMatching(/^\d{4}-/) as string,
      },
    ]);
  });

  it("switches the tenant, and keeps it in the address", async () => {
    const { user, router } = renderApp("/sandboxes");
    await user.click(await screen.findByRole("button", { name: /Tenant Personal/ }));
    await user.click(await screen.findByRole("menuitemradio", { name: "search-team" }));
    await waitFor(() => {
      expect(router.state.location.search).toEqual({ tenant: "search-team" });
    });
    await act(() => router.navigate({ to: "/services" }));
    expect(router.state.location.search).toEqual({ tenant: "search-team" });
  });

  it("forgets a host that is lost", async () => {
    const forgotten: string[] = [];
    server.use(
      http.delete("*/api/hosts/:name", ({ params }) => {
        forgotten.push(String(params.name));
        return forgotten.length === 1 ? refuse(409, "op.conflict", "the host host-b is heard") : new HttpResponse(null, { status: 204 });
      }),
    );
    const { user } = renderApp("/hosts");
    // Only of one that is lost.
    expect(await screen.findAllByRole("button", { name: "Forget" })).toHaveLength(1);
    await user.click(screen.getByRole("button", { name: "Forget" }));
    await user.click(await screen.findByRole("button", { name: "Forget host" }));
    expect(await screen.findByText("The host host-b is heard.")).toBeVisible();
    await user.click(screen.getByRole("button", { name: "Forget host" }));
    expect(await screen.findByText("host-b is forgotten")).toBeVisible();
    expect(forgotten).toEqual(["host-b", "host-b"]);
  });

  it("shows hosts to administrators only", async () => {
    const first = renderApp("/hosts");
    expect(await screen.findByRole("region", { name: "Host host-a" })).toHaveTextContent("4 × python:3.12-slim");
    expect(screen.getByRole("region", { name: "Host host-b" })).toHaveTextContent("Lost");
    first.unmount();
    server.use(http.get("*/api/me", () => ok({ ...data.me, is_admin: false })));
    renderApp("/hosts");
    expect(await screen.findByRole("heading", { level: 1, name: "Administrators only" })).toBeVisible();
  });
});
