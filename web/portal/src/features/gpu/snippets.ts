import type { SubmitJob } from "~/api/gpu";
import { quoteWord } from "~/features/sandboxes/argv";

/** The same job from a terminal, with the API alone. */
export function submitCurl(job: SubmitJob, origin: string): string {
  return [
    `curl ${origin}/api/gpu/jobs \\`,
    '  -H "Authorization: Bearer $NIMBUS_TOKEN" \\',
    "  -H 'Content-Type: application/json' \\",
    `  -d ${quoteWord(JSON.stringify(job, null, 2))}`,
  ].join("\n");
}

const MIB = 1024 ** 2;

/** The same job with the command line, which reads what the API does. */
export function submitCommand(job: SubmitJob): string {
  const { memory_bytes: memory, time_limit_seconds: time, command } = job;
  const words = [
    "nimbus gpu submit",
    ...Object.entries(job.env ?? {}).map(([name, value]) => `-e ${quoteWord(`${name}=${value}`)}`),
    ...(job.datasets ?? []).map((each) => `--dataset ${each.name}${each.writable ? ":rw" : ""}`),
    job.pool === undefined ? "" : `--pool ${quoteWord(job.pool)}`,
    time === undefined ? "" : `--time ${time}s`,
    memory === undefined ? "" : `--memory ${memory % MIB === 0 ? `${memory / MIB}MiB` : String(memory)}`,
    job.priority === undefined ? "" : `--priority=${job.priority}`,
    job.rerun === true ? "--rerun" : "",
    typeof command === "string" ? `--shell=${quoteWord(command)}` : "",
    "--follow",
    quoteWord(job.image),
    Array.isArray(command) ? `-- ${command.map(quoteWord).join(" ")}` : "",
  ];
  return words.filter((word) => word !== "").join(" ");
}

/** Ways to ask a model, each complete: where, with which key, and what. */
export function chatSnippets(base: string, model: string): { curl: string; python: string; js: string } {
  const name = JSON.stringify(model);
  return {
    curl: [
      `curl ${base}/chat/completions \\`,
      '  -H "Authorization: Bearer $NIMBUS_TOKEN" \\',
      "  -H 'Content-Type: application/json' \\",
      `  -d ${quoteWord(JSON.stringify({ model, messages: [{ role: "user", content: "Why is the sky blue?" }] }))}`,
    ].join("\n"),
    python: [
      "import os",
      "from openai import OpenAI",
      "",
      `client = OpenAI(base_url="${base}", api_key=os.environ["NIMBUS_TOKEN"])`,
      "stream = client.chat.completions.create(",
      `    model=${name},`,
      '    messages=[{"role": "user", "content": "Why is the sky blue?"}],',
      "    stream=True,",
      ")",
      "for chunk in stream:",
      "    if chunk.choices:",
      '        print(chunk.choices[0].delta.content or "", end="", flush=True)',
    ].join("\n"),
    js: [
      'import OpenAI from "openai";',
      "",
      `const client = new OpenAI({ baseURL: "${base}", apiKey: process.env.NIMBUS_TOKEN });`,
      "const stream = await client.chat.completions.create({",
      `  model: ${name},`,
      '  messages: [{ role: "user", content: "Why is the sky blue?" }],',
      "  stream: true,",
      "});",
      "for await (const chunk of stream) {",
      '  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");',
      "}",
    ].join("\n"),
  };
}
