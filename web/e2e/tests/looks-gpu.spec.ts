import { MODEL, type Box } from "../src/box";
import { look } from "../src/look";
import { expect, signIn, story, title } from "../src/story";

// Every page about GPUs, empty and with things on it.
const test = story("looks-gpu", { cluster: false, settings: { APP_URL: "http://nimbus.example.org" } });

test.describe.configure({ timeout: 240_000 });

const boxes: Box[] = [];
test.afterAll(async () => {
  for (const box of boxes) await box.stop();
});

test("before there is anything", async ({ page, world }) => {
  await signIn(page, await world.admin());
  await page.goto("/gpu");
  await expect(page.getByRole("heading", { name: "No GPU box is paired" })).toBeVisible();
  await look(page, "gpu-empty");
  await page.goto("/gpu/usage");
  await expect(page.getByRole("heading", { name: "Nothing was asked" })).toBeVisible();
  await look(page, "gpu-usage-empty");
  await page.goto("/settings/gpu");
  await page.getByRole("button", { name: "Pair a box" }).first().click();
  await expect(page.getByRole("region", { name: "pairing command" })).toBeVisible();
  await look(page, "gpu-pairing");
});

test("with a box and jobs", async ({ page, world }) => {
  const admin = await world.admin();
  const box = await world.box("gx10-a", { model: true });
  boxes.push(box);
  await signIn(page, admin);
  const submit = (body: object) => world.ask<{ id: string }>(admin, "POST", "/api/gpu/jobs", { image: "nvcr.io/nvidia/pytorch:25.09-py3", ...body });
  const failed = await submit({ command: "python eval.py", memory_bytes: 2 * 1024 ** 3 });
  await box.next();
  await box.running();
  await box.print("loading\n");
  await box.finish({ code: 137, reason: "gpu.out_of_memory", message: "It used more than 2 GiB." });
  const running = await submit({ command: ["python", "train.py", "--epochs", "30"], env: { EPOCHS: "30" }, datasets: [{ name: "imagenet", writable: false }], rerun: true });
  await box.next();
  await box.running();
  for (let epoch = 1; epoch <= 30; epoch += 1) await box.print(`\u001b[32mepoch ${epoch}\u001b[0m loss ${(1 / epoch).toFixed(4)}\n`);
  const queued = await submit({ command: "python export.py > /artifacts/model.onnx" });

  await page.goto("/gpu");
  await expect(page.getByRole("list", { name: "Models" })).toContainText(MODEL);
  await page.getByRole("textbox", { name: "Message" }).fill("Why is the sky blue?");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("article", { name: MODEL })).toContainText("5 tokens");
  await look(page, "gpu");
  await page.goto("/gpu/jobs");
  await expect(page.getByRole("grid", { name: "Jobs" }).getByRole("row")).toHaveCount(4);
  await look(page, "gpu-jobs");
  await page.goto(`/gpu/jobs/${running.id}`);
  await expect(page.getByRole("log", { name: "log" })).toContainText("epoch 30");
  await look(page, "gpu-job");
  await page.goto(`/gpu/jobs/${failed.id}`);
  await expect(page.getByText("It used more memory than it may")).toBeVisible();
  await expect(page.getByText("Complete", { exact: true })).toBeVisible();
  await look(page, "gpu-job-failed");
  await page.goto(`/gpu/jobs/${queued.id}`);
  await expect(page.getByText(/It waits: next in the queue/)).toBeVisible();
  await look(page, "gpu-job-queued");
  await page.goto("/gpu/jobs/new");
  await expect(title(page, "Submit job")).toBeVisible();
  for (const name of [/^Environment/, /^Datasets/, /^Where and when/]) await page.getByRole("button", { name }).click();
  await page.getByRole("button", { name: "Add variable" }).click();
  await page.getByRole("button", { name: "Add dataset" }).click();
  await look(page, "gpu-submit");
  await page.goto("/gpu/workers");
  await expect(page.getByRole("meter", { name: "Load of the GPU of gx10-a" })).toHaveAttribute("aria-valuetext", "91 % busy");
  await look(page, "gpu-workers");
  await page.goto("/gpu/usage");
  await expect(page.getByRole("grid", { name: "Usage by model" })).toBeVisible({ timeout: 60_000 });
  await look(page, "gpu-usage");
  await page.goto("/settings/gpu");
  await expect(page.getByRole("grid", { name: "Boxes" })).toContainText("gx10-a");
  await look(page, "gpu-settings");
  await page.getByRole("button", { name: "Actions for gx10-a" }).click();
  await page.getByRole("menuitem", { name: "Unpair" }).click();
  await expect(page.getByRole("alertdialog")).toBeVisible();
  await look(page, "gpu-unpair", { whole: false });
});
