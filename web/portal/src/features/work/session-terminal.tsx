import { lazy, Suspense, useEffect, useState, useSyncExternalStore } from "react";
import { Shell, type ShellState } from "~/api/shell";
import { Button, IconButton } from "~/ui/button";
import { cx } from "~/ui/cx";
import { ExpandIcon } from "~/ui/icons";
import { Screen } from "~/ui/screen";
import { Segments } from "~/ui/segments";
import { StatusDot } from "~/ui/status";
import { useNow } from "~/ui/time";

const Terminal = lazy(() => import("~/ui/terminal"));

export interface SessionTerminalProps {
  /** What it leads to, for those who hear the page. */
  label: string;
  /** Gives an open session that carries `stdio`. */
  session: (over: string | null) => Promise<string>;
  /** Why nothing can be attached to; the terminal then waits. */
  refusal: string | null;
  className?: string;
}

const MODES = [
  { key: "shell", label: "Shell" },
  { key: "main", label: "Main process" },
] as const;

/** A terminal into a sandbox: a shell of its own, or the main process. */
export function SessionTerminal(props: SessionTerminalProps) {
  const [mode, setMode] = useState<"shell" | "main">("shell");
  const [whole, setWhole] = useState(false);
  return (
    <section
      aria-label="Terminal"
      className={cx(
        "flex min-h-0 min-w-0 flex-col overflow-hidden border-line bg-panel",
        whole ? "fixed inset-0 z-40 rounded-none border-0" : "rounded-lg border",
        !whole && props.className,
      )}
    >
      {props.refusal !== null ? (
        <>
          <Bar mode={mode} setMode={setMode} whole={whole} setWhole={setWhole}>
            <StatusDot tone="idle">Not attached</StatusDot>
          </Bar>
          <p className="m-auto max-w-sm p-6 text-center text-sm text-muted">{props.refusal} The terminal opens by itself when it can be used.</p>
        </>
      ) : (
        <Attached key={mode} {...props} mode={mode} setMode={setMode} whole={whole} setWhole={setWhole} />
      )}
    </section>
  );
}

interface BarProps {
  mode: "shell" | "main";
  setMode: (mode: "shell" | "main") => void;
  whole: boolean;
  setWhole: (whole: boolean) => void;
}

function Bar({ mode, setMode, whole, setWhole, children }: BarProps & { children: React.ReactNode }) {
  return (
    <div className="flex min-h-11 flex-wrap items-center gap-x-3 gap-y-1 border-b border-line px-2 py-1.5 text-sm">
      <Segments label="What is attached" options={MODES} value={mode} onChange={setMode} />
      <span className="ml-auto inline-flex items-center gap-2">{children}</span>
      <IconButton
        label={whole ? "Leave full screen" : "Full screen"}
        onPress={() => {
          setWhole(!whole);
        }}
      >
        <ExpandIcon />
      </IconButton>
    </div>
  );
}

function Attached({ label, session, ...bar }: SessionTerminalProps & BarProps) {
  const { mode } = bar;
  const [screen] = useState(() => new Screen());
  const [shell] = useState(
    () =>
      new Shell({
        session,
        argv: mode === "shell" ? ["sh"] : null,
        onOutput: (bytes) => {
          screen.write(bytes);
        },
        onReturn: () => {
          screen.clear();
        },
      }),
  );
  const state = useSyncExternalStore(shell.subscribe, shell.read);
  useEffect(() => {
    shell.start();
    return () => {
      shell.stop();
    };
  }, [shell]);
  return (
    <>
      <Bar {...bar}>
        <ShellNote
          state={state}
          onAgain={() => {
            screen.remark("Started again.");
            shell.start();
          }}
        />
      </Bar>
      <Suspense fallback={<p className="m-auto p-6 text-sm text-muted">Loading the terminal.</p>}>
        <Terminal
          label={`${mode === "shell" ? "Shell in" : "Main process of"} ${label}`}
          screen={screen}
          onInput={(text) => {
            shell.send(text);
          }}
          onSize={(cols, rows) => {
            shell.resize(cols, rows);
          }}
        />
      </Suspense>
      <p className="border-t border-line px-3 py-1 text-xs text-muted max-sm:hidden">
        <kbd className="font-mono">F6</kbd> leaves the terminal, <kbd className="font-mono">Ctrl Shift F</kbd> finds, <kbd className="font-mono">Ctrl Shift C</kbd> copies
      </p>
    </>
  );
}

function ShellNote({ state, onAgain }: { state: ShellState; onAgain: () => void }) {
  const now = useNow(state.kind === "waiting");
  switch (state.kind) {
    case "opening":
      return (
        <span role="status">
          <StatusDot tone="info" moving>
            {state.step === "session" ? "Opening a session" : "Attaching"}
          </StatusDot>
        </span>
      );
    case "live":
      return (
        <span role="status">
          <StatusDot tone="good">Attached</StatusDot>
        </span>
      );
    case "waiting":
      return (
        <span role="status">
          <StatusDot tone="wait" moving>
            Lost, trying again in {Math.max(0, Math.ceil((state.at - now) / 1000))} s
          </StatusDot>
        </span>
      );
    case "ended":
      return (
        <>
          <span role="status" className="min-w-0">
            <StatusDot tone={state.tone}>
              <span className="whitespace-normal">{state.what}</span>
            </StatusDot>
          </span>
          <Button size="sm" onPress={onAgain}>
            Start again
          </Button>
        </>
      );
  }
}
