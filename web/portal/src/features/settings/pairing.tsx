import type { Worker } from "~/api/gpu";
import { Button } from "~/ui/button";
import { CommandLine } from "~/ui/copy";
import { elapsed } from "~/ui/format";
import { Panel } from "~/ui/states";
import { announce, Steps, type StepItem, type StepState } from "~/ui/steps";
import { useNow } from "~/ui/time";
import type { Started } from "./gpu";

type Progress =
  | { at: "waiting" }
  | { at: "registered"; worker: Worker }
  | { at: "online"; worker: Worker };

/** The box that used the token: the one that is new, or that was paired again since. */
export function progressOf(started: Started, workers: readonly Worker[]): Progress {
  const found = workers.find((worker) => (started.worker === null || worker.id === started.worker) && started.before.get(worker.id) !== worker.paired_at);
  if (found === undefined) return { at: "waiting" };
  const isHeard = found.state === "online" && found.seen_at !== null && Date.parse(found.seen_at) >= Date.parse(found.paired_at);
  return { at: isHeard ? "online" : "registered", worker: found };
}

function state(progress: Progress, index: number, isExpired: boolean): StepState {
  const at = progress.at === "waiting" ? 0 : progress.at === "registered" ? 1 : 2;
  if (index < at) return "done";
  if (index > at) return "pending";
  return index === 0 && isExpired ? "failed" : "running";
}

/** One line to paste on the box, and what becomes of it. */
export function PairingPanel({ started, workers, onAgain, isAgain, onClose }: { started: Started; workers: readonly Worker[]; onAgain: () => void; isAgain: boolean; onClose: () => void }) {
  const progress = progressOf(started, workers);
  const now = useNow(progress.at !== "online");
  const leftMs = started.at + started.pairing.expires_in_seconds * 1000 - now;
  const isExpired = progress.at === "waiting" && leftMs <= 0;
  const name = progress.at === "waiting" ? (started.worker ?? "the box") : progress.worker.id;
  const steps: StepItem[] = [
    { key: "wait", label: "Wait for the line to be run", state: state(progress, 0, isExpired), startedAt: new Date(started.at).toISOString(), durationMs: null },
    { key: "register", label: progress.at === "waiting" ? "Install the worker" : `Install the worker on ${name}`, state: state(progress, 1, false), startedAt: progress.at === "registered" ? progress.worker.paired_at : null, durationMs: null },
    { key: "online", label: "Hear of it", state: progress.at === "online" ? "done" : "pending", startedAt: null, durationMs: null },
  ];
  return (
    <Panel label={started.worker === null ? "Pair a box" : `Replace the credentials of ${started.worker}`}>
      <div className="flex flex-col gap-4 p-5">
        <div className="flex flex-wrap items-baseline justify-between gap-3">
          <h2 className="text-lg font-semibold">{progress.at === "online" ? `${name} is paired` : started.worker === null ? "Pair a box" : `Replace the credentials of ${started.worker}`}</h2>
          {progress.at === "waiting" ? (
            <span role="timer" aria-label="Time left" className="tabular font-mono text-sm text-muted">
              {isExpired ? "expired" : `good for ${elapsed(leftMs + 999)}`}
            </span>
          ) : null}
        </div>
        {progress.at === "waiting" ? (
          isExpired ? (
            <p>The token was not used in time, and is of no use any more.</p>
          ) : (
            <>
              <p>Paste this into a terminal on {started.worker === null ? "the box" : <code className="font-mono">{started.worker}</code>}. It works once.</p>
              <CommandLine command={started.pairing.curl} label="pairing command" large wrap />
            </>
          )
        ) : null}
        {progress.at === "online" ? (
          <p>It takes jobs from now on{progress.worker.model === "" ? "" : `, and serves ${progress.worker.model} as soon as the model is loaded`}.</p>
        ) : (
          <Steps steps={steps} now={now} label="Pairing" />
        )}
        <p role="status" aria-live="polite" className="sr-only">
          {progress.at === "online" ? `${name} is paired` : announce(steps)}
        </p>
        <div className="flex gap-2">
          {isExpired ? (
            <Button kind="primary" isPending={isAgain} pendingLabel="Making a token" onPress={onAgain}>
              Make another one
            </Button>
          ) : null}
          <Button kind={progress.at === "online" ? "primary" : "default"} onPress={onClose}>
            {progress.at === "online" ? "Done" : "Close"}
          </Button>
        </div>
      </div>
    </Panel>
  );
}
