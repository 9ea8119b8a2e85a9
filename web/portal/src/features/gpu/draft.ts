import type { Dataset, Job, SubmitJob } from "~/api/gpu";
import { splitCommand } from "~/features/sandboxes/argv";
import { commandText, limitText } from "./rules";

/** What runs in the image: a line for its shell, exact words, or what it runs by itself. */
export type Run = "shell" | "words" | "image";

/** What the form holds: text as it was typed, so that nothing typed is lost. */
export interface JobDraft {
  image: string;
  run: Run;
  command: string;
  env: { name: string; value: string }[];
  datasets: { name: string; access: "read" | "write" }[];
  pool: string;
  time: string;
  memoryGib: string;
  priority: string;
  rerun: boolean;
}

const DAY_S = 86_400;

export const EMPTY: JobDraft = {
  image: "",
  run: "shell",
  command: "",
  env: [],
  datasets: [],
  pool: "default",
  time: String(DAY_S),
  memoryGib: "",
  priority: "0",
  rerun: false,
};

const TIMES: readonly { key: string; label: string }[] = [
  { key: "600", label: "10 minutes" },
  { key: "3600", label: "1 hour" },
  { key: "21600", label: "6 hours" },
  { key: "86400", label: "24 hours" },
  { key: "259200", label: "3 days" },
  { key: "604800", label: "7 days" },
];

/** What to choose from; a job that is submitted again may bring a limit of its own. */
export function timesWith(chosen: string): readonly { key: string; label: string }[] {
  return TIMES.some((time) => time.key === chosen) ? TIMES : [...TIMES, { key: chosen, label: limitText(Number(chosen)) }];
}

const STORE = "nimbus-gpu-draft";

/** What was chosen last time. Variables often hold secrets: they are not kept. */
export function loadDraft(): JobDraft {
  try {
    const kept: unknown = JSON.parse(sessionStorage.getItem(STORE) ?? "null");
    if (typeof kept !== "object" || kept === null) return EMPTY;
    const text = (name: keyof JobDraft, otherwise: string): string => {
      const found: unknown = Reflect.get(kept, name);
      return typeof found === "string" ? found : otherwise;
    };
    const run = text("run", EMPTY.run);
    return { ...EMPTY, image: text("image", ""), command: text("command", ""), run: run === "words" || run === "image" ? run : "shell", time: text("time", EMPTY.time), memoryGib: text("memoryGib", "") };
  } catch {
    return EMPTY;
  }
}

export function saveDraft({ image, run, command, time, memoryGib }: JobDraft): void {
  try {
    sessionStorage.setItem(STORE, JSON.stringify({ image, run, command, time, memoryGib }));
  } catch {
    // Without storage the draft lasts as long as the page.
  }
}

const GIB = 1024 ** 3;

/** The form that would submit a job once more. */
export function draftOf(job: Job): JobDraft {
  return {
    image: job.image,
    run: job.command === null ? "image" : typeof job.command === "string" ? "shell" : "words",
    command: commandText(job.command),
    env: Object.entries(job.env).map(([name, value]) => ({ name, value })),
    datasets: job.datasets.map((each) => ({ name: each.name, access: each.writable ? "write" : "read" })),
    pool: job.pool,
    time: String(job.time_limit_seconds ?? DAY_S),
    memoryGib: job.memory_bytes === null ? "" : String(job.memory_bytes / GIB),
    priority: "0",
    rerun: job.rerun,
  };
}

const IMAGE = /^[a-z0-9]+((?:[._-]+|\/|:|@)[a-z0-9]+)*$/i;
const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]*$/;
const DATASET = /^[a-z0-9][a-z0-9_-]{0,62}$/;
const POOL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const MOST_VARIABLES = 256;
const MOST_DATASETS = 16;
const LEAST_MEMORY = 6 * 1024 ** 2;

export type Problems = Partial<Record<"image" | "command" | "env" | "datasets" | "pool" | "memoryGib" | "priority", string>>;

export function problems(draft: JobDraft): Problems {
  const found: Problems = {};
  const image = draft.image.trim();
  if (image === "") found.image = "Enter an image.";
  else if (!IMAGE.test(image)) found.image = "This is no image reference: python:3.13-slim or registry.example.org/team/image:tag.";
  if (draft.run !== "image" && draft.command.trim() === "") found.command = "Enter a command, or let the image run its own.";
  else if (draft.run === "words" && splitCommand(draft.command) === null) found.command = "A quote is not closed.";
  const names = draft.env.filter((each) => each.name !== "" || each.value !== "").map((each) => each.name);
  const wrong = names.find((name) => !VARIABLE.test(name));
  if (wrong === "") found.env = "A variable has a value and no name.";
  else if (wrong !== undefined) found.env = `“${wrong}” is no name of a variable: letters, digits and _, not beginning with a digit.`;
  else if (new Set(names).size < names.length) found.env = "A variable is there twice.";
  else if (names.length > MOST_VARIABLES) found.env = `At most ${MOST_VARIABLES} variables.`;
  const sets = draft.datasets.filter((each) => each.name !== "").map((each) => each.name);
  const odd = sets.find((name) => !DATASET.test(name));
  if (odd !== undefined) found.datasets = `“${odd}” is no name of a dataset: lower-case letters, digits, - and _.`;
  else if (new Set(sets).size < sets.length) found.datasets = "A dataset is there twice.";
  else if (sets.length > MOST_DATASETS) found.datasets = `At most ${MOST_DATASETS} datasets.`;
  if (!POOL.test(draft.pool.trim())) found.pool = "A pool is named in lower-case letters, digits and -.";
  const memory = Number(draft.memoryGib);
  if (draft.memoryGib.trim() !== "" && !(memory * GIB >= LEAST_MEMORY)) found.memoryGib = "Enter gibibytes, at least 0.01, or nothing.";
  const priority = Number(draft.priority);
  if (draft.priority.trim() === "" || !Number.isInteger(priority) || priority < -100 || priority > 100) found.priority = "From -100 to 100.";
  return found;
}

/** What the server is asked for. Whatever is at its default is left out. */
export function toRequest(draft: JobDraft): SubmitJob {
  const words = draft.run === "words" ? splitCommand(draft.command) : null;
  const env = draft.env.filter((each) => each.name !== "");
  const datasets: Dataset[] = draft.datasets.filter((each) => each.name !== "").map((each) => ({ name: each.name, writable: each.access === "write" }));
  const pool = draft.pool.trim();
  const time = Number(draft.time);
  const memory = Number(draft.memoryGib);
  const priority = Number(draft.priority);
  return {
    image: draft.image.trim(),
    ...(draft.run === "shell" ? { command: draft.command } : {}),
    ...(words === null ? {} : { command: words }),
    ...(env.length === 0 ? {} : { env: Object.fromEntries(env.map((each) => [each.name, each.value])) }),
    ...(datasets.length === 0 ? {} : { datasets }),
    ...(pool === "" || pool === "default" ? {} : { pool }),
    ...(time === DAY_S ? {} : { time_limit_seconds: time }),
    ...(memory > 0 ? { memory_bytes: Math.round(memory * GIB) } : {}),
    ...(priority === 0 ? {} : { priority }),
    ...(draft.rerun ? { rerun: true } : {}),
  };
}
