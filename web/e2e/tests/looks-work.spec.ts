import { look } from "../src/look";
import { expect, signIn, story, title } from "../src/story";
import { IMAGE } from "../src/world";

// Every page of workloads, with things on it.
const test = story("looks-work", { settings: { TENANT_POLICY: "resources,ports,egress,mounts", NIMBUS_SANDBOX_WARM: "1" } });

test.describe.configure({ timeout: 180_000 });

test("before there is anything", async ({ page, world }) => {
  await signIn(page, await world.admin());
  for (const [path, heading, name] of [
    ["/sandboxes", "No sandboxes yet", "sandboxes-empty"],
    ["/services", "No services yet", "services-empty"],
    ["/sessions", "No sessions yet", "sessions-empty"],
  ] as const) {
    await page.goto(path);
    await expect(page.getByRole("heading", { name: heading })).toBeVisible();
    await look(page, name);
  }
  await page.goto("/sandboxes/new");
  await expect(page.getByRole("complementary", { name: "What will happen" })).toBeVisible();
  await page.getByRole("combobox", { name: "Image" }).fill(IMAGE);
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: /^Resources/ }).click();
  await page.getByRole("button", { name: /^Network/ }).click();
  await page.getByRole("button", { name: "Allow a destination" }).click();
  await look(page, "sandbox-create");
  await page.goto("/services/new");
  await expect(title(page, "Create service")).toBeVisible();
  await look(page, "service-create");
});

test("with things on them", async ({ page, world }) => {
  const admin = await world.admin();
  const tenant = await world.tenant(admin);
  const first = await world.sandbox(admin, "batch-job");
  await world.sandbox(admin, "indexer");
  const over = await world.sandbox(admin, "finished");
  await world.work(admin, "POST", `/api/tenants/${tenant}/sandboxes/${over}/stop`);
  const sandbox = {
    owner: { kind: "service" },
    backend: "container",
    root: { kind: "oci_image", source: { kind: "reference", reference: IMAGE } },
    process: { argv: ["sh", "-c", "echo it ticks; exec sleep 3600"] },
  };
  await world.work(admin, "POST", `/api/tenants/${tenant}/services`, { metadata: { name: "worker", labels: { team: "search" } }, spec: { backend: { kind: "sandbox", sandbox } } });
  await world.work(admin, "POST", `/api/tenants/${tenant}/services`, { metadata: { name: "balancer" }, spec: { backend: { kind: "builtIn", provider: "loadBalancer" } } });
  await world.work(admin, "POST", `/api/tenants/${tenant}/services/worker/start`);
  const session = await world.work<{ metadata: { id: string } }>(admin, "POST", "/api/sessions", { tenantId: tenant, target: { sandbox: { id: first } }, channels: ["stdio", "files"] });
  await signIn(page, admin);

  await page.goto("/sandboxes");
  await expect(page.getByRole("row", { name: /batch-job/ })).toContainText("Ready");
  await look(page, "sandboxes");
  await page.goto(`/sandboxes/${first}`);
  await expect(page.getByRole("region", { name: "Terminal" }).getByText("Attached")).toBeVisible();
  await page.getByRole("textbox", { name: "Shell in batch-job" }).focus();
  await page.keyboard.type("uname -s; ls --color /\n");
  await expect(page.locator(".xterm-accessibility-tree")).toContainText("Linux");
  await look(page, "sandbox");
  for (const tab of ["Log", "Commands", "Conditions", "Preview", "From a program"]) {
    await page.getByRole("tab", { name: tab }).click();
    await expect(page.getByRole("tabpanel", { name: tab })).toBeVisible();
    await look(page, `sandbox-${tab.toLowerCase().replaceAll(" ", "-")}`);
  }
  await page.goto(`/sandboxes/${over}`);
  await expect(page.getByRole("region", { name: "Terminal" })).toContainText("It is stopped.");
  await look(page, "sandbox-stopped");
  await page.goto("/sandboxes/gone-01jzzzzzzzzzzzzzzzzzzzzzzz");
  await expect(page.getByRole("alert")).toContainText("There is nothing here");
  await look(page, "sandbox-missing");

  await page.goto("/services");
  await expect(page.getByRole("row", { name: /worker/ })).toContainText("Ready");
  await look(page, "services");
  await page.goto("/services/worker");
  await expect(title(page, "worker")).toBeVisible();
  await look(page, "service");
  await page.goto("/services/worker/edit");
  await expect(page.getByText("Arguments and variables are sealed")).toBeVisible();
  await look(page, "service-edit");

  await page.goto("/sessions");
  await expect(page.getByRole("grid", { name: "Sessions" })).toContainText("batch-job");
  await look(page, "sessions");
  await page.getByRole("button", { name: "Open session" }).click();
  await expect(page.getByRole("dialog", { name: "Open session" })).toBeVisible();
  await look(page, "session-open", { whole: false });
  await page.goto(`/sessions/${session.metadata.id}`);
  await expect(page.getByRole("region", { name: "Terminal" }).getByText("Attached")).toBeVisible();
  await look(page, "session");

  await page.goto("/hosts");
  await expect(page.getByRole("list", { name: "Hosts" })).toBeVisible();
  await look(page, "hosts");
  await page.goto("/access");
  await expect(page.getByRole("heading", { name: "No API keys yet" })).toBeVisible();
  await page.getByRole("button", { name: "Create API key" }).click();
  await expect(page.getByRole("dialog")).toBeVisible();
  await look(page, "api-key-create", { whole: false });
  await page.goto("/sandboxes?tenant=not-there");
  await expect(page.getByRole("button", { name: "Go to your personal tenant" })).toBeVisible();
  await look(page, "tenant-missing");
});
