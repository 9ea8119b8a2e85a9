import { useEffect, useRef, useState } from "react";
import { chat, type ChatMessage } from "~/api/gpu";
import { InlineError } from "~/app/problem";
import { Button } from "~/ui/button";
import { Field } from "~/ui/field";
import { duration, plural } from "~/ui/format";
import { Select } from "~/ui/select";
import { Panel } from "~/ui/states";
import { StatusDot } from "~/ui/status";

/** How an answer came: what it cost, and how fast. */
interface Figures {
  firstMs: number | null;
  totalMs: number;
  tokens: number | null;
}

interface Turn extends ChatMessage {
  figures?: Figures;
  isStopped?: boolean;
}

/** A conversation with a model, through the same endpoint that programs use. */
export function Playground({ models, refusal }: { models: readonly string[]; refusal: string | null }) {
  const [model, setModel] = useState("");
  const [text, setText] = useState("");
  const [turns, setTurns] = useState<Turn[]>([]);
  const [error, setError] = useState<unknown>(null);
  const [running, setRunning] = useState<AbortController | null>(null);
  const end = useRef<HTMLDivElement>(null);
  const chosen = models.includes(model) ? model : (models[0] ?? "");

  useEffect(() => {
    const element = end.current?.parentElement;
    if (element != null) element.scrollTop = element.scrollHeight;
  }, [turns]);
  useEffect(
    () => () => {
      running?.abort();
    },
    [running],
  );

  const ask = async () => {
    const question = text.trim();
    if (question === "" || running !== null || refusal !== null) return;
    const before: Turn[] = [...turns, { role: "user", content: question }];
    const stop = new AbortController();
    setRunning(stop);
    setError(null);
    setText("");
    setTurns([...before, { role: "assistant", content: "" }]);
    let answer = "";
    let pieces = 0;
    let firstMs: number | null = null;
    const began = performance.now();
    const show = (more: Partial<Turn> = {}) => {
      setTurns([...before, { role: "assistant", content: answer, ...more }]);
    };
    try {
      const usage = await chat(
        { model: chosen, messages: before.map(({ role, content }) => ({ role, content })) },
        (piece) => {
          firstMs ??= performance.now() - began;
          pieces += 1;
          answer += piece;
          show();
        },
        stop.signal,
      );
      show({ figures: { firstMs, totalMs: performance.now() - began, tokens: usage?.completion_tokens ?? pieces } });
    } catch (cause) {
      if (stop.signal.aborted) {
        show({ isStopped: true });
      } else {
        // The question goes back to where it was typed, so that it can be asked again.
        if (answer === "") {
          setTurns(turns);
          setText(question);
        } else show({ isStopped: true });
        setError(cause);
      }
    } finally {
      setRunning(null);
    }
  };

  return (
    <Panel label="Playground" className="flex min-w-0 flex-col">
      <div className="flex flex-wrap items-center justify-between gap-3 border-b border-line px-4 py-3">
        <h2 className="font-semibold">Playground</h2>
        <span className="flex items-center gap-2">
          {models.length > 1 ? <Select label="Model" hideLabel options={models.map((key) => ({ key, label: key }))} value={chosen} onChange={setModel} className="max-w-56" /> : null}
          {turns.length > 0 && running === null ? (
            <Button
              size="sm"
              kind="quiet"
              onPress={() => {
                setTurns([]);
                setError(null);
              }}
            >
              Clear
            </Button>
          ) : null}
        </span>
      </div>
      <div tabIndex={0} role="log" aria-label="Conversation" aria-live="off" className="flex max-h-[28rem] min-h-48 flex-col gap-4 overflow-auto p-4 focus-visible:-outline-offset-2">
        {turns.length === 0 ? <p className="text-sm text-muted">Ask something. What is said here is not kept anywhere; it counts as usage.</p> : null}
        {turns.map((turn, index) => (
          <article key={index} aria-label={turn.role === "user" ? "You" : chosen} className="flex flex-col gap-1">
            <h3 className="text-xs font-medium text-muted">{turn.role === "user" ? "You" : chosen}</h3>
            <p className="break-words whitespace-pre-wrap">{turn.content}</p>
            {turn.role === "assistant" && running !== null && index === turns.length - 1 ? (
              <span className="text-xs text-muted">
                <StatusDot tone="info" moving>
                  {turn.content === "" ? "Waiting for the first word" : "Answering"}
                </StatusDot>
              </span>
            ) : null}
            {turn.isStopped === true ? <p className="text-xs text-muted">Stopped before its end.</p> : null}
            {turn.figures ? <FigureLine figures={turn.figures} /> : null}
          </article>
        ))}
        <div ref={end} />
      </div>
      <form
        className="flex flex-col gap-3 border-t border-line p-4"
        onSubmit={(event) => {
          event.preventDefault();
          void ask();
        }}
      >
        {error !== null ? <InlineError error={error} /> : null}
        <div
          onKeyDown={(event) => {
            if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
            event.preventDefault();
            void ask();
          }}
        >
          <Field label="Message" rows={2} value={text} onChange={setText} placeholder="Why is the sky blue?" description="Enter sends, Shift and Enter begin a new line." />
        </div>
        <div className="flex justify-end gap-2">
          {running !== null ? (
            <Button
              onPress={() => {
                running.abort();
              }}
            >
              Stop
            </Button>
          ) : (
            <Button kind="primary" type="submit" disabledReason={refusal}>
              Send
            </Button>
          )}
        </div>
        <p role="status" className="sr-only">
          {running !== null ? "The model answers" : turns.at(-1)?.role === "assistant" ? "The answer is complete" : ""}
        </p>
      </form>
    </Panel>
  );
}

function FigureLine({ figures }: { figures: Figures }) {
  const { firstMs, totalMs, tokens } = figures;
  const streamed = firstMs === null ? 0 : totalMs - firstMs;
  const parts = [
    tokens === null ? null : plural(tokens, "token"),
    firstMs === null ? null : `first after ${duration(firstMs)}`,
    tokens !== null && tokens > 1 && streamed > 0 ? `${((tokens - 1) / (streamed / 1000)).toFixed(streamed > 0 && (tokens - 1) / (streamed / 1000) >= 100 ? 0 : 1)} tokens/s` : null,
  ].filter((part) => part !== null);
  return <p className="tabular text-xs text-muted">{parts.join(" · ")}</p>;
}
