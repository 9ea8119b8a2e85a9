import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { Form } from "react-aria-components/Form";
import { keys, queries } from "~/api/queries";
import { decoded, work, type CommandInfo, type Sandbox } from "~/api/workloads";
import { explain, InlineError } from "~/app/problem";
import { sandboxRefusal } from "~/features/work/rules";
import { Button } from "~/ui/button";
import { CodeBlock } from "~/ui/code";
import { Field } from "~/ui/field";
import { StatusDot } from "~/ui/status";
import { Age } from "~/ui/time";
import { quoteWord, splitCommand } from "./argv";

const REFRESH_MS = 5_000;

/** Runs a command, and shows what runs and ran. */
export function Commands({ sandbox }: { sandbox: Sandbox }) {
  const { tenantId, id } = sandbox.metadata;
  const client = useQueryClient();
  const refusal = sandboxRefusal(sandbox, "use");
  const list = useQuery({ ...queries.commands(tenantId, id), enabled: refusal === null, refetchInterval: REFRESH_MS });
  const [text, setText] = useState("");
  const words = splitCommand(text);
  const run = useMutation({
    mutationFn: (argv: string[]) => work.exec(tenantId, id, { argv }),
    onSettled: () => client.invalidateQueries({ queryKey: keys.commands(tenantId, id) }),
  });
  const wrong = words === null ? "A quote is left open." : words.length === 0 ? "Enter a command first." : null;
  return (
    <div className="flex flex-col gap-4 p-4">
      <Form
        className="flex flex-col gap-3"
        onSubmit={(event) => {
          event.preventDefault();
          if (refusal === null && words !== null && words.length > 0 && !run.isPending) run.mutate(words);
        }}
      >
        <div className="flex flex-wrap items-end gap-2">
          <div className="min-w-0 flex-1">
            <Field label="Command" mono value={text} onChange={setText} autoComplete="off" placeholder="uname -a" isDisabled={refusal !== null} />
          </div>
          <Button type="submit" kind="primary" isPending={run.isPending} pendingLabel="Running" disabledReason={refusal ?? wrong} className="h-9">
            Run
          </Button>
        </div>
        {run.isError ? <InlineError error={run.error} /> : null}
        {run.data !== undefined ? (
          <div className="flex flex-col gap-2" role="status">
            <p className="text-sm">
              <StatusDot tone={run.data.exitCode === 0 ? "good" : "bad"}>{run.data.timedOut === true ? "Ended for its time" : run.data.exitCode === null ? `Ended by ${run.data.signal ?? "a signal"}` : `Ended with code ${run.data.exitCode}`}</StatusDot>
              {run.data.truncated ? <span className="text-muted">, output cut</span> : null}
            </p>
            {run.data.stdout !== "" ? <CodeBlock text={decoded(run.data.stdout, run.data.stdoutEncoding)} label="output" /> : null}
            {run.data.stderr !== "" ? <CodeBlock text={decoded(run.data.stderr, run.data.stderrEncoding)} label="error output" className="border-bad-line" /> : null}
          </div>
        ) : null}
      </Form>
      {refusal !== null ? (
        <p className="text-sm text-muted">{refusal}</p>
      ) : list.data === undefined ? (
        <p className="text-sm text-muted">{list.isError ? explain(list.error).what : "Loading what runs."}</p>
      ) : (
        <ul aria-label="Commands" className="divide-y divide-line border-t border-line text-sm">
          {list.data.map((command) => (
            <CommandLine key={command.id} command={command} />
          ))}
          {list.data.length === 0 ? <li className="py-3 text-muted">Nothing runs.</li> : null}
        </ul>
      )}
    </div>
  );
}

/** What a command is called: what it runs, or whose it is. */
function CommandName({ command }: { command: CommandInfo }) {
  const isNamed = command.argv !== undefined && command.argv.length > 0;
  if (!isNamed && command.id === "main") return <span className="min-w-0 flex-1 truncate">Main process</span>;
  if (!isNamed && command.id.startsWith("terminal-")) return <span className="min-w-0 flex-1 truncate">A terminal of this portal</span>;
  return <code className="min-w-0 flex-1 truncate font-mono">{isNamed ? command.argv?.map(quoteWord).join(" ") : command.id}</code>;
}

function CommandLine({ command }: { command: CommandInfo }) {
  const running = command.state === "running";
  const ended = command.signal != null ? String(command.signal) : `Code ${command.exitCode ?? "unknown"}`;
  return (
    <li className="flex min-h-10 flex-wrap items-center gap-x-4 gap-y-1 py-1.5">
      <span className="w-24 shrink-0">
        <StatusDot tone={running ? "good" : command.exitCode === 0 ? "idle" : "wait"}>{running ? "Running" : ended}</StatusDot>
      </span>
      <CommandName command={command} />
      {command.argv !== undefined && command.argv.length > 0 ? <span className="font-mono text-xs text-muted">{command.id}</span> : null}
      <span className="text-muted">{command.startedAt !== undefined ? <Age at={command.startedAt} /> : null}</span>
    </li>
  );
}
