import { memo, useEffect, useMemo, useRef, useState, type ReactNode } from "react";
import { ToggleButton } from "react-aria-components/ToggleButton";
import { ansi } from "./ansi";
import { Button } from "./button";
import { cx } from "./cx";
import { plural } from "./format";

export interface LogRow {
  /** Grows from line to line. */
  id: number;
  /** When it was written; empty where nobody knows. */
  at: string;
  /** Whether it came as an error. */
  loud: boolean;
  text: string;
}

const CHUNK = 200;
const NEAR_END = 24;

function clock(at: string): string {
  const date = new Date(at);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleTimeString(undefined, { hour12: false });
}

/** The same lines stay in the same chunk while others come and go, so that only what is new is drawn. */
function inChunks(rows: readonly LogRow[]): { key: number; rows: LogRow[] }[] {
  const chunks: { key: number; rows: LogRow[] }[] = [];
  for (const row of rows) {
    const key = Math.floor(row.id / CHUNK);
    const last = chunks.at(-1);
    if (last?.key === key) last.rows.push(row);
    else chunks.push({ key, rows: [row] });
  }
  return chunks;
}

const Line = memo(function Line({ row, wrap, needle }: { row: LogRow; wrap: boolean; needle: string }) {
  const hit = needle !== "" && row.text.toLowerCase().includes(needle);
  return (
    <div className={cx("flex min-h-5 gap-3 px-4", hit && "bg-wait-soft", row.loud && !hit && "bg-bad-faint")}>
      {row.at !== "" ? (
        <time dateTime={row.at} title={row.at} className="shrink-0 text-muted select-none max-sm:hidden">
          {clock(row.at)}
        </time>
      ) : null}
      {row.loud ? <span className="sr-only">stderr </span> : null}
      <span className={cx("min-w-0", wrap ? "break-words whitespace-pre-wrap wrap-anywhere" : "whitespace-pre")}>
        {ansi(row.text).map((span, index) => (
          <span key={index} className={span.className}>
            {span.text}
          </span>
        ))}
      </span>
    </div>
  );
});

function Toggle({ label, isSelected, onChange }: { label: string; isSelected: boolean; onChange: (on: boolean) => void }) {
  return (
    <ToggleButton
      isSelected={isSelected}
      onChange={onChange}
      className="h-7 rounded border border-line px-2.5 text-sm text-muted data-hovered:text-fg data-selected:border-accent data-selected:bg-accent-soft data-selected:text-accent-strong"
    >
      {label}
    </ToggleButton>
  );
}

/** A log to read, search and follow. Parts that are out of sight cost nothing to draw. */
export function LogView({ label, rows, note, empty, tall }: { label: string; rows: readonly LogRow[]; note?: ReactNode; empty: ReactNode; /** Where the log is what the page is about. */ tall?: boolean }) {
  const box = useRef<HTMLDivElement>(null);
  const [follow, setFollow] = useState(true);
  const [wrap, setWrap] = useState(true);
  const [needle, setNeedle] = useState("");
  const wanted = needle.trim().toLowerCase();
  const hits = useMemo(() => (wanted === "" ? null : rows.filter((row) => row.text.toLowerCase().includes(wanted)).length), [rows, wanted]);
  const chunks = useMemo(() => inChunks(rows), [rows]);

  useEffect(() => {
    const element = box.current;
    if (element !== null && follow) element.scrollTop = element.scrollHeight;
  }, [rows, follow, wrap]);

  return (
    <div className="flex min-w-0 flex-col">
      <div className="flex flex-wrap items-center gap-2 border-b border-line px-4 py-2">
        <input
          aria-label={`Find in ${label}`}
          placeholder="Find"
          value={needle}
          onChange={(event) => {
            setNeedle(event.target.value);
          }}
          className="h-7 w-40 rounded border border-line-strong bg-panel px-2 text-sm placeholder:text-muted"
        />
        {hits !== null ? (
          <span role="status" className="text-xs text-muted">
            {plural(hits, "line")}
          </span>
        ) : null}
        <span className="ml-auto flex flex-wrap items-center gap-2">
          {note}
          <Toggle label="Wrap" isSelected={wrap} onChange={setWrap} />
          <Toggle label="Follow" isSelected={follow} onChange={setFollow} />
        </span>
      </div>
      {rows.length === 0 ? (
        <div className="px-4 py-8 text-sm text-muted">{empty}</div>
      ) : (
        <div
          ref={box}
          tabIndex={0}
          role="log"
          aria-label={label}
          aria-live="off"
          onScroll={(event) => {
            const { scrollTop, scrollHeight, clientHeight } = event.currentTarget;
            // Whoever scrolls back wants to read; the end takes up following again.
            const isEnd = scrollHeight - scrollTop - clientHeight < NEAR_END;
            if (isEnd !== follow) setFollow(isEnd);
          }}
          className={cx(tall === true ? "max-h-[min(44rem,70dvh)] min-h-64" : "max-h-96 min-h-24", "overflow-auto py-2 font-mono text-xs leading-5 data-focus-visible:-outline-offset-2")}
        >
          {chunks.map((chunk) => (
            <div key={chunk.key} className="[contain-intrinsic-size:auto_4000px] [content-visibility:auto]">
              {chunk.rows.map((row) => (
                <Line key={row.id} row={row} wrap={wrap} needle={wanted} />
              ))}
            </div>
          ))}
        </div>
      )}
      {!follow && rows.length > 0 ? (
        <div className="border-t border-line px-4 py-1.5">
          <Button
            size="sm"
            kind="quiet"
            onPress={() => {
              setFollow(true);
            }}
          >
            Go to the end
          </Button>
        </div>
      ) : null}
    </div>
  );
}
