import fs from "node:fs";
import { gzipSync } from "node:zlib";
import { ANSWER, Box, MODEL } from "../src/box";
import { expect, signIn, story, title, type Page } from "../src/story";
import type { World } from "../src/world";

// A box does not reach a portal that is only known as localhost.
const GPU = { APP_URL: "http://nimbus.example.org" };
const test = story("gpu", { cluster: false, settings: GPU });

test.describe.configure({ timeout: 120_000 });

const boxes: Box[] = [];
test.afterAll(async () => {
  for (const box of boxes) await box.stop();
});

/** The box of this file; the first story that needs it pairs it. */
let first: Promise<Box> | null = null;
function paired(world: World): Promise<Box> {
  first ??= world.box("box-a", { model: true }).then((box) => {
    boxes.push(box);
    return box;
  });
  return first;
}

const state = (page: Page) => page.getByRole("main").locator("header");

test("an administrator pairs a box, and sees it come", async ({ page, world }) => {
  await signIn(page, await world.admin());
  await page.goto("/gpu");
  await expect(page.getByRole("heading", { name: "No GPU box is paired" })).toBeVisible();
  await page.getByRole("link", { name: "Pair a box" }).click();
  await expect(title(page, "Settings")).toBeVisible();
  await page.getByRole("button", { name: "Pair a box" }).first().click();
  const command = page.getByRole("region", { name: "pairing command" });
  await expect(command).toContainText("curl -fsSL \"http://nimbus.example.org/api/gpu/install.sh?token=");
  await expect(page.getByRole("timer", { name: "Time left" })).toContainText(/good for (5:00|4:\d\d)/);
  const token = /token=([0-9a-f]{48})"/.exec((await command.textContent()) ?? "")?.[1] ?? "";
  const box = await Box.register(world.url, token, "box-b");
  boxes.push(box);
  await expect(page.getByRole("list", { name: "Pairing" })).toContainText("Install the worker on box-b");
  box.work();
  await expect(page.getByRole("heading", { name: "box-b is paired" })).toBeVisible();
  await page.getByRole("button", { name: "Done" }).click();
  await expect(page.getByRole("grid", { name: "Boxes" }).getByRole("row", { name: /box-b/ })).toContainText("Online");
  // A token is good for one box.
  await expect(Box.register(world.url, token, "box-c")).rejects.toThrow(/401/);

  // New credentials end the old ones.
  await page.getByRole("button", { name: "Actions for box-b" }).click();
  await page.getByRole("menuitem", { name: "Replace its credentials" }).click();
  const again = /token=([0-9a-f]{48})"/.exec((await command.textContent()) ?? "")?.[1] ?? "";
  const renewed = await Box.register(world.url, again, "box-b");
  boxes.push(renewed);
  expect(await box.knock()).toBe(401);
  await box.stop();
  renewed.work();
  await expect(page.getByRole("heading", { name: "box-b is paired" })).toBeVisible();

  // And it goes.
  await page.getByRole("button", { name: "Done" }).click();
  await page.getByRole("button", { name: "Actions for box-b" }).click();
  await page.getByRole("menuitem", { name: "Unpair" }).click();
  await page.getByRole("button", { name: "Unpair box" }).click();
  await expect(page.getByRole("region", { name: "cleanup command for box-b" })).toContainText("uninstall.sh");
  expect(await renewed.knock()).toBe(401);
  await page.getByRole("button", { name: "Done" }).click();
  await expect(page.getByRole("row", { name: /box-b/ })).toBeHidden();
  await renewed.stop();
});

test("a job from the form to what it left", async ({ page, world }) => {
  const box = await paired(world);
  await signIn(page, await world.admin());
  await page.goto("/gpu/jobs/new");
  await page.getByRole("combobox", { name: "Image" }).fill("python:3.13-slim");
  await page.keyboard.press("Escape");
  const line = "python train.py --note 'two words' | tee /artifacts/log";
  await page.getByRole("textbox", { name: "Command" }).fill(line);
  await page.getByRole("button", { name: /^Environment/ }).click();
  await page.getByRole("button", { name: "Add variable" }).click();
  await page.getByRole("textbox", { name: "Name 1" }).fill("EPOCHS");
  await page.getByRole("textbox", { name: "Value 1" }).fill("3");
  await expect(page.getByRole("complementary", { name: "What will happen" })).toContainText("box-a is idle");
  await page.getByRole("button", { name: "Submit job" }).click();
  await expect(page).toHaveURL(/\/gpu\/jobs\/job_/);

  const assignment = await box.next();
  expect(assignment.command).toEqual({ shell: line });
  expect(assignment.env).toEqual([{ name: "EPOCHS", value: "3" }]);
  await box.pulling("12 of 40 MiB");
  await expect(state(page)).toContainText("pulling the image, 12 of 40 MiB");
  await box.running();
  await expect(page.getByRole("list", { name: "Progress" }).getByRole("listitem").nth(3)).toHaveAttribute("aria-current", "step");
  await box.print("epoch 1 \u001b[32mgood\u001b[0m\n");
  const log = page.getByRole("log", { name: "log" });
  await expect(log.getByText("good", { exact: true })).toHaveClass(/text-good-text/);
  // A letter that is cut in two arrives whole.
  const euro = Buffer.from("costs 3 €\n");
  await box.print(euro.subarray(0, 9));
  await box.print(euro.subarray(9));
  await expect(log).toContainText("costs 3 €");
  await page.reload();
  await expect(log).toContainText("epoch 1 good");
  await box.print("<b>epoch 2</b>\n");
  await expect(log).toContainText("<b>epoch 2</b>");
  const left = gzipSync(Buffer.from("what it left".repeat(50_000)), { level: 0 });
  box.leave(left);
  await box.finish({ code: 0 });
  await expect(state(page)).toContainText("Succeeded");
  await expect(page.getByText("Complete", { exact: true })).toBeVisible();
  const download = page.waitForEvent("download");
  await page.getByRole("link", { name: /^Artifact/ }).click();
  const file = await (await download).path();
  expect(fs.readFileSync(file).equals(left)).toBe(true);
  await expect(page.getByRole("button", { name: "Cancel job" })).toHaveAttribute("aria-disabled", "true");
});

test("a log goes on where the server left it", async ({ page, world }) => {
  const box = await paired(world);
  const admin = await world.admin();
  await signIn(page, admin);
  const { id } = await world.ask<{ id: string }>(admin, "POST", "/api/gpu/jobs", { image: "busybox:1", command: "yes" });
  await box.next();
  await box.running();
  await page.goto(`/gpu/jobs/${id}`);
  const log = page.getByRole("log", { name: "log" });
  await box.print("before\n");
  await expect(log).toContainText("before");
  await world.halt("SIGKILL");
  await expect(page.getByRole("region", { name: "Log" }).getByText("Reconnecting")).toBeVisible();
  await world.boot();
  await expect(async () => {
    await box.print("after\n");
  }).toPass({ timeout: 20_000 });
  await expect(log).toContainText("after");
  // Nothing twice, and the job goes on.
  expect(((await log.textContent()) ?? "").split("before")).toHaveLength(2);
  await expect(state(page)).toContainText("Running");
  await box.finish({ code: 137, reason: "gpu.out_of_memory", message: "It used more than 2 GiB." });
  await expect(page.getByText("It used more memory than it may")).toBeVisible();
  await page.getByRole("link", { name: "Submit again" }).click();
  await expect(page.getByRole("textbox", { name: "Command" })).toHaveValue("yes");
});

test("a queue: what waits, what goes first, and what is cancelled", async ({ page, world }) => {
  const box = await paired(world);
  const admin = await world.admin();
  await signIn(page, admin);
  const submit = (name: string) => world.ask<{ id: string }>(admin, "POST", "/api/gpu/jobs", { image: "busybox:1", command: ["echo", name] });
  const one = await submit("one");
  await submit("two");
  const three = await submit("three");
  expect((await box.next()).job).toBe(one.id);
  await box.running();
  await page.goto("/gpu/jobs");
  const jobs = page.getByRole("grid", { name: "Jobs" });
  await expect(jobs.getByRole("row", { name: /echo one/ })).toContainText("Running");
  await expect(jobs.getByRole("row", { name: /echo two/ })).toContainText("next in the queue");
  await expect(jobs.getByRole("row", { name: /echo three/ })).toContainText("1 job before it");
  await jobs.getByRole("row", { name: /echo three/ }).getByRole("rowheader").click();
  await page.getByRole("textbox", { name: "Priority of this job" }).fill("7");
  await page.getByRole("button", { name: "Change", exact: true }).click();
  await expect(state(page)).toContainText("priority 7");
  await expect(state(page)).toContainText("next in the queue");

  // The one that runs is stopped on its box; the next one follows.
  await page.goto(`/gpu/jobs/${one.id}`);
  await page.getByRole("button", { name: "Cancel job" }).click();
  await page.getByRole("alertdialog").getByRole("button", { name: "Cancel job" }).click();
  await expect(state(page)).toContainText("Cancelled");
  await box.gone(one.id);
  expect((await box.next()).job).toBe(three.id);

  // A box that is drained ends what it has, and takes no more.
  await page.goto("/gpu/workers");
  const worker = page.getByRole("region", { name: "Worker box-a" });
  await expect(worker.getByRole("link", { name: /busybox:1/ })).toHaveAttribute("href", `/gpu/jobs/${three.id}`);
  await worker.getByRole("button", { name: "Drain box-a" }).click();
  await expect(worker).toContainText("Draining");
  await box.running();
  await box.finish({ code: 0 });
  await expect(worker).toContainText("Paused");
  await worker.getByRole("button", { name: "Resume box-a" }).click();
  await box.next();
  await box.finish({ code: 3 });
  await page.goto("/gpu/jobs");
  await expect(jobs.getByRole("row", { name: /echo two/ })).toContainText("code 3");
});

test("a model answers, and what it said is counted", async ({ page, world }) => {
  await paired(world);
  await signIn(page, await world.admin());
  await page.goto("/gpu");
  await expect(page.getByRole("region", { name: "base URL" })).toContainText("http://nimbus.example.org/api/gpu/v1");
  await expect(page.getByRole("list", { name: "Models" })).toContainText(MODEL);
  await page.getByRole("textbox", { name: "Message" }).fill("Why is the sky blue?");
  await page.keyboard.press("Enter");
  const answer = page.getByRole("article", { name: MODEL });
  await expect(answer).toContainText(ANSWER.join(""));
  await expect(answer).toContainText(`${ANSWER.length} tokens`);
  await page.getByRole("link", { name: "Usage" }).click();
  await expect(async () => {
    await page.reload();
    await expect(page.getByRole("grid", { name: "Usage by model" }).getByRole("row", { name: MODEL })).toContainText(`17${ANSWER.length}`, { timeout: 2_000 });
  }).toPass({ timeout: 30_000 });
});

test("a member sees jobs of their own, up to a number", async ({ page, world }) => {
  const box = await paired(world);
  const admin = await world.admin();
  const { id } = await world.ask<{ id: string }>(admin, "POST", "/api/gpu/jobs", { image: "busybox:1", command: "sleep 60" });
  await box.next();
  await box.running();
  const member = await world.member("Mary Shelley", "mary@example.org");
  await signIn(page, member);
  await page.goto("/gpu/jobs");
  await expect(page.getByRole("heading", { name: "No jobs yet" })).toBeVisible();
  await page.goto(`/gpu/jobs/${id}`);
  await expect(page.getByRole("alert")).toContainText("There is nothing here");
  await page.goto("/gpu/workers");
  await expect(page.getByRole("region", { name: "Worker box-a" })).toContainText("It runs a job of somebody else.");
  await expect(page.getByRole("button", { name: /Drain|Pause/ })).toBeHidden();
  await page.goto("/settings/gpu");
  await expect(title(page, "Administrators only")).toBeVisible();

  for (let at = 0; at < 5; at += 1) await world.ask(member, "POST", "/api/gpu/jobs", { image: "busybox:1", command: `echo ${at}` });
  // By keyboard alone.
  await page.goto("/gpu/jobs");
  await expect(title(page, "GPU")).toBeVisible();
  await page.keyboard.press("Control+k");
  await expect(page.getByRole("dialog", { name: "Search and commands" })).toBeVisible();
  await page.keyboard.type("Submit GPU job");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("combobox", { name: "Image" })).toBeFocused();
  await page.keyboard.type("busybox:1");
  await page.keyboard.press("Escape");
  await page.getByRole("textbox", { name: "Command" }).focus();
  await page.keyboard.type("echo one too many");
  await page.getByRole("button", { name: "Submit job" }).focus();
  await page.keyboard.press("Enter");
  await expect(page.getByRole("alert")).toContainText("gpu.quota_exceeded");
  // What was typed is still there.
  await expect(page.getByRole("textbox", { name: "Command" })).toHaveValue("echo one too many");
  await box.finish({ code: 0 });
});
