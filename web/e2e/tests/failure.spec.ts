import { expect, signIn, steps, story, title, type Page } from "../src/story";

// One address: who has it has all.
const test = story("failure", { settings: { IP_POOL_START: "10.77.0.50", IP_POOL_END: "10.77.0.50" } });

async function explained(page: Page, code: string): Promise<void> {
  const alert = page.getByRole("alert");
  await expect(alert.getByText(code, { exact: true })).toBeVisible();
  await page.getByRole("button", { name: "Copy request id" }).click();
  const request = await page.evaluate(() => navigator.clipboard.readText());
  expect(request).toMatch(/^(req-|op_)/);
  await expect(alert.getByText(request, { exact: true })).toBeVisible();
}

test("a provision that fails says what happened, takes everything back, and can be tried again", async ({ page, world }) => {
  await signIn(page, await world.admin());
  await world.cluster.order("POST /nodes/{node}/qemu/{vmid}/clone", {
    mode: "task_fail",
    exitstatus: "storage 'local-lvm' is out of space",
    count: 0,
  });
  await page.goto("/machines/new");
  await page.getByRole("textbox", { name: "Hostname" }).fill("unlucky");
  await page.getByText("Debian 12").click();
  await page.getByRole("button", { name: "Create machine" }).click();
  await expect(title(page, "unlucky could not be created")).toBeVisible();
  const alert = page.getByRole("alert");
  await expect(alert).toContainText("“Clone template” failed");
  await expect(alert).toContainText("storage 'local-lvm' is out of space");
  await explained(page, "machine.proxmox_task_failed");
  await page.getByRole("button", { name: "The end of the task’s log" }).click();
  await expect(page.getByRole("region", { name: "Log of the task" })).toContainText("TASK ERROR: storage 'local-lvm' is out of space");
  await expect(steps(page).nth(0)).toContainText("Reserve address, undone");
  await expect(steps(page).nth(2)).toContainText("Clone template, failed");
  expect(await world.cluster.guest("unlucky")).toBeUndefined();

  // What went wrong is there after a reload too.
  await page.reload();
  await expect(alert).toContainText("storage 'local-lvm' is out of space");

  await world.cluster.mend();
  await page.getByRole("link", { name: "Try again" }).click();
  await expect(title(page, "Create machine")).toBeVisible();
  await expect(page.getByRole("textbox", { name: "Hostname" })).toHaveValue("unlucky");
  await expect(page.getByRole("radio", { name: /Debian 12/ })).toBeChecked();
  await page.getByRole("button", { name: "Create machine" }).click();
  await expect(title(page, "unlucky is ready")).toBeVisible();
  await expect(page.getByRole("region", { name: "SSH command" })).toContainText("debian@10.77.0.50");

  // The address came back after the failure, and is in use now: there is none left.
  await page.goto("/machines/new");
  await page.getByRole("textbox", { name: "Hostname" }).fill("too-late");
  await page.getByRole("button", { name: "Create machine" }).click();
  await expect(title(page, "too-late could not be created")).toBeVisible();
  await explained(page, "ippool.exhausted");
  await page.getByRole("link", { name: "Try again" }).click();
  await expect(page.getByRole("textbox", { name: "Hostname" })).toHaveValue("too-late");
});

test("a member's quota and the cluster's absence are said before anything is sent", async ({ page, world }) => {
  const member = await world.member("Mary Shelley", "mary@example.org");
  await signIn(page, member);
  world.cluster.gate.shut();
  await page.goto("/machines/new");
  await expect(page.getByRole("status").filter({ hasText: "The cluster does not answer" })).toBeVisible();
  await expect(page.getByRole("button", { name: "Create machine" })).toHaveAttribute("aria-disabled", "true");
  world.cluster.gate.open();
  await expect(page.getByText("The cluster does not answer", { exact: true })).toBeHidden({ timeout: 40_000 });
  await expect(page.getByRole("button", { name: "Create machine" })).not.toHaveAttribute("aria-disabled", "true");
});
