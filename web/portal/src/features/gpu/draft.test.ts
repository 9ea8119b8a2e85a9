import { beforeEach, describe, expect, it } from "vitest";
import { job } from "~/mocks/gpu";
import { draftOf, EMPTY, loadDraft, problems, saveDraft, toRequest, type JobDraft } from "./draft";
import { submitCommand, submitCurl } from "./snippets";

const draft = (part: Partial<JobDraft>): JobDraft => ({ ...EMPTY, image: "python:3.13", command: "python a.py", ...part });

describe("what is submitted", () => {
  it("says only what was chosen", () => {
    expect(toRequest(draft({}))).toEqual({ image: "python:3.13", command: "python a.py" });
    expect(toRequest(draft({ run: "image" }))).toEqual({ image: "python:3.13" });
    expect(
      toRequest(
        draft({
          run: "words",
          command: `sh -c 'echo "$A" b'`,
          env: [{ name: "A", value: "" }, { name: "", value: "" }],
          datasets: [{ name: "imagenet", access: "write" }, { name: "", access: "read" }],
          pool: "lab",
          time: "3600",
          memoryGib: "0.5",
          priority: "-3",
          rerun: true,
        }),
      ),
    ).toEqual({
      image: "python:3.13",
      command: ["sh", "-c", 'echo "$A" b'],
      env: { A: "" },
      datasets: [{ name: "imagenet", writable: true }],
      pool: "lab",
      time_limit_seconds: 3_600,
      memory_bytes: 536_870_912,
      priority: -3,
      rerun: true,
    });
  });

  it("is the same when a job is submitted again, whatever its command", () => {
    for (const command of [null, "a | b\nc 'd'", ["python", "a b", "it's", "", '"']]) {
      const request = toRequest(draftOf(job({ command, memory_bytes: 2 * 1024 ** 3, rerun: true })));
      expect(request.command ?? null).toEqual(command);
      expect(request).toMatchObject({ env: { EPOCHS: "3" }, memory_bytes: 2 * 1024 ** 3, rerun: true });
    }
  });

  it("is refused in words before it is sent", () => {
    expect(problems(draft({}))).toEqual({});
    const wrong: [Partial<JobDraft>, keyof ReturnType<typeof problems>][] = [
      [{ image: " " }, "image"],
      [{ image: "two words" }, "image"],
      [{ command: " " }, "command"],
      [{ run: "words", command: "echo 'open" }, "command"],
      [{ env: [{ name: "1A", value: "" }] }, "env"],
      [{ env: [{ name: "A", value: "1" }, { name: "A", value: "2" }] }, "env"],
      [{ env: [{ name: "", value: "lost" }] }, "env"],
      [{ datasets: [{ name: "Up", access: "read" }] }, "datasets"],
      [{ pool: "" }, "pool"],
      [{ memoryGib: "0.001" }, "memoryGib"],
      [{ memoryGib: "much" }, "memoryGib"],
      [{ priority: "1.5" }, "priority"],
      [{ priority: "101" }, "priority"],
    ];
    for (const [part, field] of wrong) expect(Object.keys(problems(draft(part))), JSON.stringify(part)).toEqual([field]);
  });
});

describe("what is kept of the form", () => {
  beforeEach(() => {
    sessionStorage.clear();
  });

  it("is no variable, which may be a secret", () => {
    saveDraft(draft({ run: "words", env: [{ name: "TOKEN", value: "s3cret" }] }));
    for (let at = 0; at < sessionStorage.length; at += 1) expect(sessionStorage.getItem(sessionStorage.key(at) ?? "")).not.toContain("s3cret");
    expect(loadDraft()).toEqual(draft({ run: "words" }));
  });
});

describe("the same from a terminal", () => {
  it("is one command, whatever was chosen", () => {
    expect(submitCommand({ image: "python:3.13", command: ["python", "-c", "print('a b')", ""] })).toBe(
      `nimbus gpu submit --follow python:3.13 -- python -c 'print('\\''a b'\\'')' ''`,
    );
    expect(
      submitCommand({
        image: "i",
        env: { A: "b c" },
        datasets: [{ name: "d", writable: true }],
        pool: "lab",
        time_limit_seconds: 600,
        memory_bytes: 10_000_000,
        priority: -3,
        rerun: true,
      }),
    ).toBe("nimbus gpu submit -e 'A=b c' --dataset d:rw --pool lab --time 600s --memory 10000000 --priority=-3 --rerun --follow i");
  });

  it("quotes as a shell reads it", () => {
    expect(submitCurl({ image: "a", command: "it's" }, "http://n")).toBe(
      `curl http://n/api/gpu/jobs \\\n  -H "Authorization: Bearer $NIMBUS_TOKEN" \\\n  -H 'Content-Type: application/json' \\\n  -d '{\n  "image": "a",\n  "command": "it'\\''s"\n}'`,
    );
  });
});
