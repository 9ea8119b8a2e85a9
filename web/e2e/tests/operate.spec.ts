import { expect, row, signIn, story, title } from "../src/story";

const test = story("operate");

test("nodes show their score, and one that takes nothing says why", async ({ page, world }) => {
  await signIn(page, await world.admin());
  await page.goto("/nodes");
  await expect(title(page, "Nodes")).toBeVisible();
  const nodes = page.getByRole("list", { name: "Nodes" });
  const node = (name: string) => nodes.getByRole("region", { name: `Node ${name}` });
  await expect(node("pve1")).toContainText("Online");
  await expect(node("pve1")).toContainText(/Score [01]\.\d{3}/);
  await expect(page.getByRole("region", { name: "Next placement" })).toContainText(/Small\s*pve[12]/);
  await expect(node("pve1").getByRole("meter", { name: "Memory of pve1" })).toBeVisible();
  await node("pve1").getByRole("button", { name: "How it is scored" }).click();
  const table = node("pve1").getByRole("table", { name: "Score of pve1 by component" });
  await expect(table.getByRole("row", { name: /^Total/ })).toContainText(/\d\.\d{4}/);

  // The third node is nearly full.
  await page.getByRole("radiogroup", { name: "Score for size" }).getByRole("radio", { name: "XL" }).click();
  await expect(node("pve3")).toContainText("Refused for xl: not enough memory left");

  // The server may know the cluster by a picture that is a few seconds old.
  const becomes = (text: string) =>
    expect(async () => {
      await page.reload();
      await expect(node("pve2")).toContainText(text, { timeout: 1_500 });
    }).toPass();
  await world.cluster.node("pve2", false);
  await becomes("Refused for medium: offline");
  await expect(node("pve2")).toContainText("Offline");
  await world.cluster.node("pve2", true);
  await becomes("Online");
});

test("addresses show who has them, and a comparison finds a stranger's", async ({ page, world }) => {
  const admin = await world.admin();
  const machine = await world.machine(admin, "addressed");
  await signIn(page, admin);
  await page.goto("/addresses");
  await expect(title(page, "Addresses")).toBeVisible();
  const table = page.getByRole("grid", { name: "Addresses" });
  await expect(table.getByRole("row", { name: machine.ip })).toContainText("addressed");
  await expect(table.getByRole("row", { name: machine.ip })).toContainText("Allocated");
  await expect(page.getByRole("meter", { name: "Addresses in use" })).toHaveAttribute("aria-valuetext", "1 of 20 in use");

  await page.getByRole("button", { name: "Reconcile now" }).click();
  const report = page.getByRole("region", { name: "Reconcile report" });
  await expect(report).toContainText("Pool and cluster agree");

  await world.cluster.stranger({ name: "squatter", node: "pve1", address: "10.77.0.60/24", running: true });
  await page.getByRole("button", { name: "Reconcile now" }).click();
  await expect(report).toContainText("1 difference found");
  await expect(report).toContainText("10.77.0.60 adopted");
  await expect(table.getByRole("row", { name: "10.77.0.60" })).toContainText("adopted from the cluster");

  await page.keyboard.press("/");
  await page.keyboard.type("squat");
  await expect(table.getByRole("row", { name: "10.77.0.60" })).toBeVisible();
  await expect(table.getByRole("row", { name: machine.ip })).toBeHidden();
});

test("the trace of a provision shows where its time went", async ({ page, world }) => {
  const admin = await world.admin();
  await world.machine(admin, "traced");
  await signIn(page, admin);
  await page.goto("/traces");
  await expect(title(page, "Traces")).toBeVisible();
  const traces = page.getByRole("grid", { name: "Traces" });
  await page.getByRole("searchbox", { name: "Filter traces" }).fill("POST /api/vms");
  await traces.getByRole("row", { name: /POST \/api\/vms/ }).first().click();
  await expect(page).toHaveURL(/\/traces\/[0-9a-f]{32}$/);
  const spans = page.getByRole("list", { name: "Spans" });
  await expect(page.getByText("slowest")).toBeVisible();
  await expect(page.getByText(/Most of it, .* was spent in/)).toBeVisible();
  await expect(spans.getByRole("button", { name: /clone/ }).first()).toBeVisible();
  for (const service of ["gateway", "provisioner", "ippool"]) await expect(page.getByText(service, { exact: true }).first()).toBeVisible();
  await spans.getByRole("button").first().click();
  await expect(spans.getByText("time of its own")).toBeVisible();

  // The same from the machine.
  await page.goto("/machines");
  await row(page, "traced").getByRole("rowheader").click();
  await expect(title(page, "traced")).toBeVisible();
  await page.getByRole("link", { name: "Trace", exact: true }).click();
  await expect(spans.getByRole("listitem").first()).toBeVisible();
  await expect(page.getByRole("link", { name: "Back to the operation" })).toBeVisible();
});

test("activity lists what was done", async ({ page, world }) => {
  const admin = await world.admin();
  await world.machine(admin, "busy");
  await signIn(page, admin);
  await page.goto("/activity");
  await expect(title(page, "Activity")).toBeVisible();
  await expect(page.getByText("busy is ready")).toBeVisible();
});

test("a member sees machines of their own, and nothing to operate", async ({ page, world }) => {
  const member = await world.member("Mary Shelley", "mary@example.org");
  const theirs = await world.machine(await world.admin(), "not-hers");
  await signIn(page, member);
  await page.goto("/machines");
  await expect(page.getByText("No machines yet")).toBeVisible();
  const menu = page.getByRole("navigation", { name: "Main" });
  await expect(menu.getByRole("link", { name: "Machines" })).toBeVisible();
  for (const name of ["Nodes", "Cluster", "Addresses", "Activity", "Traces"]) {
    await expect(menu.getByRole("link", { name })).toBeHidden();
    await page.goto(`/${name.toLowerCase()}`);
    await expect(title(page, "Administrators only")).toBeVisible();
  }
  const asked = await page.request.get("/api/nodes");
  expect(asked.status()).toBe(403);
  // What belongs to somebody else does not exist.
  await page.goto(`/machines/${theirs.id}`);
  await expect(page.getByRole("alert")).toContainText("There is nothing here");

  await page.goto("/machines/new");
  await expect(page.getByRole("radio", { name: /^Small/ })).toBeVisible();
  await page.getByRole("textbox", { name: "Hostname" }).fill("hers");
  await page.getByRole("button", { name: "Create machine" }).click();
  await expect(title(page, "hers is ready")).toBeVisible();
  await expect(page.getByText("1 machine, 1 running · 1 of 5 used")).toBeHidden();
  await page.getByRole("link", { name: "All machines" }).click();
  await expect(page.getByText("1 machine, 1 running · 1 of 5 used")).toBeVisible();
});
