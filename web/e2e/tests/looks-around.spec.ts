import { findings, look } from "../src/look";
import { expect, signIn, story, title } from "../src/story";

// Every page around the machines, with things on it.
const test = story("looks-around");

test.describe.configure({ timeout: 120_000 });

test("axe is really asked", async ({ page }) => {
  await page.goto("/");
  await expect(title(page, /./)).toBeVisible();
  await page.evaluate(() => document.body.append(document.createElement("img")));
  expect((await findings(page)).join("\n")).toContain("image-alt");
});

test("keys and tokens", async ({ page, world }) => {
  await signIn(page, await world.admin());
  await page.goto("/access");
  await expect(page.getByRole("grid", { name: "Browsers" })).toBeVisible();
  await look(page, "access");
  await page.getByRole("button", { name: "Create token" }).click();
  await expect(page.getByRole("dialog")).toBeVisible();
  await look(page, "token-new", { whole: false });
  await page.getByRole("textbox", { name: "Name" }).fill("laptop");
  await page.getByRole("dialog").getByRole("button", { name: "Create token" }).click();
  await expect(page.getByRole("region", { name: "token", exact: true })).toBeVisible();
  await look(page, "token-shown", { whole: false });
  await page.getByRole("button", { name: "Done" }).click();
  await page.getByRole("button", { name: /^Account of/ }).click();
  await expect(page.getByRole("menu")).toBeVisible();
  await look(page, "account", { whole: false });
});

test("what an administrator operates", async ({ page, world }) => {
  const admin = await world.admin();
  await world.machine(admin, "operated");
  await signIn(page, admin);
  await page.goto("/nodes");
  await page.getByRole("button", { name: "How it is scored" }).first().click();
  await page.getByRole("radio", { name: "XL" }).click();
  await expect(page.getByText("Refused for xl: not enough memory left").first()).toBeVisible();
  await look(page, "nodes");
  await page.goto("/addresses");
  await page.getByRole("button", { name: "Reconcile now" }).click();
  await expect(page.getByRole("region", { name: "Reconcile report" })).toBeVisible();
  await look(page, "addresses");
  await page.goto("/activity");
  await expect(page.getByText("operated is ready")).toBeVisible();
  await look(page, "activity");
  await page.goto("/cluster");
  await expect(page.getByRole("grid", { name: "Instances" }).getByRole("row", { name: /provisioner/ })).toBeVisible();
  await expect(page.getByRole("grid", { name: "Streams" })).toBeVisible();
  await look(page, "cluster");
  await page.goto("/traces");
  await expect(page.getByRole("grid", { name: "Traces" }).getByRole("row", { name: /POST \/api\/vms/ }).first()).toBeVisible();
  // Few rows say as much as many, and axe takes its time for each.
  await page.getByRole("searchbox", { name: "Filter traces" }).fill("POST");
  await look(page, "traces");
  await page.getByRole("searchbox", { name: "Filter traces" }).fill("POST /api/vms");
  await page.getByRole("grid", { name: "Traces" }).getByRole("row", { name: /POST \/api\/vms/ }).first().click();
  await page.getByRole("list", { name: "Spans" }).getByRole("button").first().click();
  await look(page, "trace", { whole: false });
});

test("what is refused, and what is not there", async ({ page, world }) => {
  await signIn(page, await world.member("Mary Shelley", "mary@example.org"));
  await page.goto("/nodes");
  await expect(title(page, "Administrators only")).toBeVisible();
  await look(page, "administrators-only");
  await page.goto("/nowhere");
  await expect(title(page, "Nothing here")).toBeVisible();
  await look(page, "nothing-here");
  // The server goes away while a page is open, and before one is.
  await page.goto("/machines");
  await expect(page.getByText("No machines yet")).toBeVisible();
  await world.halt();
  await expect(page.getByText("Reconnecting, refreshing every 5 s")).toBeVisible();
  await look(page, "reconnecting");
  await world.boot();
});
