import { act, screen, waitFor, within } from "@testing-library/react";
import { http, HttpResponse } from "msw";
import { describe, expect, it } from "vitest";
import * as data from "~/mocks/data";
import { FakeEventSource } from "~/mocks/event-source";
import * as mock from "~/mocks/gpu";
import { ok } from "~/mocks/handlers";
import { renderApp } from "~/mocks/render";
import { server } from "~/mocks/server";

const asMember = () => {
  server.use(http.get("*/api/me", () => ok({ ...data.me, is_admin: false })));
};

const chunk = (text: string) => `data: ${JSON.stringify({ choices: [{ delta: { content: text } }] })}\n\n`;

describe("inference", () => {
  it("shows where the models are, and how to ask them", async () => {
    const { user } = renderApp("/gpu");
    expect(await screen.findByRole("region", { name: "base URL" })).toHaveTextContent("http://nimbus.test/api/gpu/v1");
    expect(within(screen.getByRole("list", { name: "Models" })).getAllByRole("listitem")).toHaveLength(2);
    expect(screen.getByRole("region", { name: "curl snippet" })).toHaveTextContent("microsoft/Phi-3-mini-4k-instruct");
    await user.click(screen.getByRole("radio", { name: "Python" }));
    expect(screen.getByRole("region", { name: "Python snippet" })).toHaveTextContent('base_url="http://nimbus.test/api/gpu/v1"');
  });

  it("talks to a model, word by word, and says what it cost", async () => {
    const sent: unknown[] = [];
    server.use(
      http.post("*/api/gpu/v1/chat/completions", async ({ request }) => {
        sent.push(await request.json());
        return mock.stream([chunk("Because "), chunk("of scattering."), `data: ${JSON.stringify({ choices: [], usage: { prompt_tokens: 9, completion_tokens: 4 } })}\n\n`, "data: [DONE]\n\n"]);
      }),
    );
    const { user } = renderApp("/gpu");
    await user.type(await screen.findByLabelText("Message"), "Why is the sky blue?{Enter}");
    const answer = await screen.findByRole("article", { name: "microsoft/Phi-3-mini-4k-instruct" });
    await waitFor(() => {
      expect(answer).toHaveTextContent("Because of scattering.");
    });
    expect(answer).toHaveTextContent("4 tokens");
    expect(sent).toEqual([{ model: "microsoft/Phi-3-mini-4k-instruct", messages: [{ role: "user", content: "Why is the sky blue?" }], stream: true, stream_options: { include_usage: true } }]);
    expect(screen.getByLabelText("Message")).toHaveValue("");
  });

  it("gives a question back that was refused", async () => {
    server.use(http.post("*/api/gpu/v1/chat/completions", () => HttpResponse.json({ error: { message: "the model is gone", type: "upstream", code: "gpu.inference_down" } }, { status: 502 })));
    const { user } = renderApp("/gpu");
    await user.type(await screen.findByLabelText("Message"), "hello{Enter}");
    expect(await screen.findByRole("alert")).toHaveTextContent("The model is gone.");
    expect(screen.getByLabelText("Message")).toHaveValue("hello");
    expect(screen.queryByRole("article")).toBeNull();
  });

  it("says what to do while there is nothing", async () => {
    server.use(
      http.get("*/api/gpu/inference", () => mock.okay({ ...mock.inference, status: "unconfigured", enabled: false, model: null, models: [] })),
      http.get("*/api/gpu/workers", () => mock.okay([])),
    );
    const first = renderApp("/gpu");
    expect(await screen.findByRole("heading", { name: "No GPU box is paired" })).toBeVisible();
    expect(screen.getByRole("link", { name: "Pair a box" })).toHaveAttribute("href", "/settings/gpu");
    first.unmount();
    asMember();
    renderApp("/gpu");
    expect(await screen.findByText(/ask them/)).toBeVisible();
    expect(screen.queryByRole("link", { name: "Pair a box" })).toBeNull();
  });
});

describe("jobs", () => {
  it("are listed with what they do, and follow the events", async () => {
    const { user } = renderApp("/gpu/jobs");
    const table = await screen.findByRole("grid", { name: "Jobs" });
    expect(within(table).getByRole("row", { name: /echo one/ })).toHaveTextContent("Queued1 job before it");
    expect(within(table).getAllByRole("row", { name: /train\.py/ })[0]).toHaveTextContent("Running");
    act(() => {
      FakeEventSource.last.open();
      FakeEventSource.last.say("gpu_job", mock.job({ state: "succeeded", phase: null, exit_code: 0, finished_at: new Date().toISOString() }));
    });
    await waitFor(() => {
      expect(within(table).queryByText("Running")).toBeNull();
    });
    // What is over stays over, whatever comes late.
    act(() => {
      FakeEventSource.last.say("gpu_job", mock.job());
    });
    expect(within(table).queryByText("Running")).toBeNull();
    await user.type(screen.getByRole("searchbox", { name: "Filter jobs" }), "failed");
    await waitFor(() => {
      expect(within(table).getAllByRole("row")).toHaveLength(2);
    });
  });

  it("shows a log as it comes, in colour, and what it was cut by", async () => {
    server.use(http.get("*/api/gpu/jobs/:id", () => mock.okay(mock.job({ log_truncated: true, log_end: 16 * 1024 ** 2, log_bytes: 112 * 1024 ** 2 }))));
    const asked: string[] = [];
    server.use(
      http.get("*/api/gpu/jobs/:id/logs", ({ request }) => {
        asked.push(new URL(request.url).search);
        return mock.stream([mock.logEvent(16 * 1024 ** 2 - 524_288, "epoch 1\n\u001b[31mloss\u001b[0m 0.4\n")], true);
      }),
    );
    const { user } = renderApp(`/gpu/jobs/${mock.JOB_ID}`);
    const log = await screen.findByRole("log", { name: "log" });
    expect(log).toHaveTextContent("epoch 1");
    expect(within(log).getByText("loss")).toHaveClass("text-bad-text");
    expect(asked).toEqual(["?follow=true&offset=16252928"]);
    expect(screen.getByText("The first 15.5 MiB are not shown.")).toBeVisible();
    expect(screen.getByText(/It printed 112 MiB; the first 16 MiB are kept/)).toBeVisible();
    await user.click(screen.getByRole("button", { name: "Show all" }));
    await waitFor(() => {
      expect(asked.at(-1)).toBe("?follow=true&offset=0");
    });
  });

  it("looks again when the log says that the job is over", async () => {
    let isOver = false;
    server.use(
      http.get("*/api/gpu/jobs/:id", () => mock.okay(isOver ? mock.job({ state: "succeeded", phase: null, exit_code: 0, artifact_bytes: 2048, finished_at: new Date().toISOString() }) : mock.job())),
      http.get("*/api/gpu/jobs/:id/logs", () => {
        isOver = true;
        return mock.stream([mock.logEvent(0, "done\n"), mock.stateEvent("succeeded")]);
      }),
    );
    renderApp(`/gpu/jobs/${mock.JOB_ID}`);
    expect(await screen.findByRole("link", { name: /Artifact · 2 KiB/ })).toHaveAttribute("href", `/api/gpu/jobs/${mock.JOB_ID}/artifact`);
    expect(screen.getByText("Succeeded")).toBeVisible();
    expect(screen.getByText("Complete")).toBeVisible();
    expect(screen.getByRole("button", { name: "Cancel job" })).toHaveAttribute("aria-disabled", "true");
  });

  it("is cancelled after a question, because what runs is lost", async () => {
    let cancelled = 0;
    server.use(
      http.post("*/api/gpu/jobs/:id/cancel", () => {
        cancelled += 1;
        return mock.okay(mock.job({ state: "cancelled", phase: null, finished_at: new Date().toISOString() }));
      }),
    );
    const { user } = renderApp(`/gpu/jobs/${mock.JOB_ID}`);
    await user.click(await screen.findByRole("button", { name: "Cancel job" }));
    const dialog = await screen.findByRole("alertdialog");
    expect(cancelled).toBe(0);
    await user.click(within(dialog).getByRole("button", { name: "Cancel job" }));
    expect(await screen.findByText("Cancelled")).toBeVisible();
    expect(cancelled).toBe(1);
  });

  it("says why one failed", async () => {
    renderApp("/gpu/jobs/job_0196a0c2d7e57b4c9a10f2b3c4d5e603");
    expect(await screen.findByText("It used more memory than it may")).toBeVisible();
    expect(screen.getByText("It used more than 2 GiB.")).toBeVisible();
  });
});

describe("submit", () => {
  it("sends exactly what was chosen, once", async () => {
    const sent: unknown[] = [];
    server.use(
      http.post("*/api/gpu/jobs", async ({ request }) => {
        sent.push(await request.json(), request.headers.get("idempotency-key"));
        return mock.okay(mock.job(), 201);
      }),
    );
    const { user, router } = renderApp("/gpu/jobs/new");
    await user.click(await screen.findByRole("button", { name: "Submit job" }));
    expect(screen.getAllByText("Enter an image.")[0]).toBeVisible();
    await user.type(screen.getByRole("combobox", { name: "Image" }), "python:3.13-slim");
    await user.keyboard("{Escape}");
    await user.type(screen.getByLabelText("Command"), "python train.py | tail -n 1");
    await user.type(screen.getByLabelText("Memory limit"), "2");
    await user.click(screen.getByRole("button", { name: /Environment/ }));
    await user.click(screen.getByRole("button", { name: "Add variable" }));
    await user.type(screen.getByLabelText("Name 1"), "EPOCHS");
    await user.type(screen.getByLabelText("Value 1"), "3");
    expect(screen.getByRole("region", { name: "CLI snippet" })).toHaveTextContent("nimbus gpu submit -e EPOCHS=3 --memory 2048MiB --shell='python train.py | tail -n 1' --follow python:3.13-slim");
    await user.click(screen.getByRole("radio", { name: "curl" }));
    expect(screen.getByRole("region", { name: "curl snippet" })).toHaveTextContent('"EPOCHS": "3"');
    await user.click(screen.getByRole("button", { name: "Submit job" }));
    await waitFor(() => {
      expect(router.state.location.pathname).toBe(`/gpu/jobs/${mock.JOB_ID}`);
    });
    expect(sent).toEqual([{ image: "python:3.13-slim", command: "python train.py | tail -n 1", env: { EPOCHS: "3" }, memory_bytes: 2 * 1024 ** 3 }, expect.stringMatching(/^[0-9a-f]{32}$/)]);
  });

  it("begins with the job that is submitted again, and shows what the server refuses", async () => {
    asMember();
    server.use(http.post("*/api/gpu/jobs", () => mock.refusal(409, "gpu.quota_exceeded", "5 of your jobs are queued or running")));
    const { user } = renderApp(`/gpu/jobs/new?from=${mock.JOB_ID}`);
    expect(await screen.findByLabelText("Command")).toHaveValue("python train.py --note 'two words'");
    expect(screen.getByLabelText("Name 1")).toHaveValue("EPOCHS");
    await user.click(screen.getByRole("button", { name: /Where and when/ }));
    expect(screen.queryByLabelText("Priority")).toBeNull();
    await user.click(screen.getByRole("button", { name: "Submit job" }));
    expect(await screen.findByText("5 of your jobs are queued or running.")).toBeVisible();
    expect(screen.getByText(/gpu\.quota_exceeded/)).toBeVisible();
  });
});

describe("workers", () => {
  it("show how busy they are, and are drained", async () => {
    const sent: unknown[] = [];
    server.use(
      http.patch("*/api/gpu/workers/:id", async ({ request, params }) => {
        sent.push(params["id"], await request.json());
        return mock.okay(mock.worker({ standing: "draining" }));
      }),
    );
    const { user } = renderApp("/gpu/workers");
    const busy = await screen.findByRole("region", { name: "Worker gx10-a" });
    expect(within(busy).getByRole("meter", { name: "Load of the GPU of gx10-a" })).toHaveAttribute("aria-valuetext", "87 % busy");
    expect(await within(busy).findByRole("link", { name: /python:3\.13-slim/ })).toHaveAttribute("href", `/gpu/jobs/${mock.JOB_ID}`);
    expect(screen.getByRole("region", { name: "Worker gx10-b" })).toHaveTextContent("It gets no jobs until it is heard of again.");
    await user.click(within(busy).getByRole("button", { name: "Drain gx10-a" }));
    expect(await within(busy).findByText("Draining")).toBeVisible();
    expect(sent).toEqual(["gx10-a", { standing: "draining" }]);
  });

  it("are only looked at by members", async () => {
    asMember();
    renderApp("/gpu/workers");
    expect(await screen.findByRole("region", { name: "Worker gx10-a" })).toBeVisible();
    expect(screen.queryByRole("button", { name: /Drain|Pause/ })).toBeNull();
  });
});

describe("usage", () => {
  it("adds up, and marks what is an estimate", async () => {
    renderApp("/gpu/usage");
    const table = await screen.findByRole("grid", { name: "Usage by model" });
    expect(within(table).getByRole("row", { name: /Phi-3/ })).toHaveTextContent("15~ 3.1 k~ 9.9 k");
    expect(screen.getByRole("img", { name: /Tokens by day/ })).toBeVisible();
    expect(screen.getByText(/counted by their pieces/)).toBeVisible();
  });
});

describe("settings", () => {
  it("pairs a box: one line, a clock, and what becomes of it", async () => {
    let boxes = mock.workers();
    server.use(http.get("*/api/gpu/workers", () => mock.okay(boxes)));
    const { user } = renderApp("/settings/gpu");
    await screen.findByRole("grid", { name: "Boxes" });
    await user.click(screen.getByRole("button", { name: "Pair a box" }));
    expect(await screen.findByRole("region", { name: "pairing command" })).toHaveTextContent(mock.PAIRING.curl);
    expect(screen.getByRole("timer")).toHaveTextContent(/good for (5:00|4:5\d)/);
    boxes = [...boxes, mock.worker({ id: "gx10-c", state: "new", job_id: null, seen_at: null, paired_at: new Date().toISOString(), gpus: [] })];
    expect(await screen.findByText("Install the worker on gx10-c")).toBeVisible();
    boxes = boxes.map((box) => (box.id === "gx10-c" ? { ...box, state: "online" as const, seen_at: new Date(Date.now() + 1_000).toISOString() } : box));
    expect(await screen.findByRole("heading", { name: "gx10-c is paired" })).toBeVisible();
    await user.click(screen.getByRole("button", { name: "Done" }));
    expect(screen.queryByRole("region", { name: "Pair a box" })).toBeNull();
  });

  it("says why no token is made", async () => {
    server.use(
      http.get("*/api/gpu/workers", () => mock.okay([])),
      http.post("*/api/settings/gpu/pairing", () => mock.refusal(412, "gpu.pairing_unreachable", "this portal is only known as localhost")),
    );
    const { user } = renderApp("/settings/gpu");
    await user.click(await screen.findByRole("button", { name: "Pair a box" }));
    const alert = await screen.findByText("This portal is only known as localhost.");
    expect(alert).toBeVisible();
    expect(screen.getByText(/gpu\.pairing_unreachable/)).toBeVisible();
  });

  it("unpairs after a question, and leaves the line that cleans up", async () => {
    let boxes = [mock.worker()];
    server.use(
      http.get("*/api/gpu/workers", () => mock.okay(boxes)),
      http.delete("*/api/gpu/workers/:id", () => {
        boxes = [];
        return mock.okay({ cancelled_jobs: 1, workers: ["gx10-a"], cleanup_cmd: "sudo /opt/nimbus/uninstall.sh" });
      }),
    );
    const { user } = renderApp("/settings/gpu");
    await user.click(await screen.findByRole("button", { name: "Actions for gx10-a" }));
    await user.click(await screen.findByRole("menuitem", { name: "Unpair" }));
    await user.click(within(await screen.findByRole("alertdialog")).getByRole("button", { name: "Unpair box" }));
    expect(await screen.findByRole("region", { name: "cleanup command for gx10-a" })).toHaveTextContent("sudo /opt/nimbus/uninstall.sh");
    expect(screen.getByText(/1 job cancelled/)).toBeVisible();
    // The last box leaves the list, and its line stays to be read.
    await waitFor(() => {
      expect(screen.queryByRole("grid", { name: "Boxes", hidden: true })).toBeNull();
    });
    expect(screen.getByRole("region", { name: "cleanup command for gx10-a" })).toBeVisible();
  });

  it("saves what was changed, and never sends an empty key", async () => {
    const sent: unknown[] = [];
    server.use(
      http.put("*/api/settings/gpu", async ({ request }) => {
        sent.push(await request.json());
        return mock.okay({ ...mock.settings, job_quota: 7 });
      }),
    );
    const { user } = renderApp("/settings/gpu");
    const quota = await screen.findByLabelText("Jobs per member");
    expect(screen.getByRole("button", { name: "Save settings" })).toHaveAttribute("aria-disabled", "true");
    await user.clear(quota);
    await user.type(quota, "7");
    await user.click(screen.getByRole("button", { name: "Save settings" }));
    expect(await screen.findByText("Settings saved")).toBeVisible();
    expect(sent).toEqual([{ enabled: true, base_url: "http://10.0.0.9:8000", inference_model: "microsoft/Phi-3-mini-4k-instruct", job_quota: 7 }]);
  });

  it("is nothing for members", async () => {
    asMember();
    renderApp("/settings/gpu");
    expect(await screen.findByRole("heading", { name: "Administrators only" })).toBeVisible();
  });
});
