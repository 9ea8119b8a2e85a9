import { useState } from "react";
import { Button } from "react-aria-components/Button";
import { cx } from "~/ui/cx";
import { duration } from "~/ui/format";
import { Badge } from "~/ui/status";
import { spanTitle, type WaterfallRow } from "./model";

const HUES = ["bg-[var(--indigo-9)]", "bg-[var(--sky-9)]", "bg-[var(--grass-9)]", "bg-[var(--amber-9)]", "bg-[var(--slate-9)]", "bg-[var(--indigo-7)]", "bg-[var(--grass-7)]"];

/** Bars over time, one per span, coloured by service; a row opens to show its attributes. */
export function Waterfall({ rows, from, to, slowestId }: { rows: readonly WaterfallRow[]; from: number; to: number; slowestId: string | null }) {
  const [open, setOpen] = useState<string | null>(null);
  const services = [...new Set(rows.map((row) => row.span.service))];
  const hue = (service: string) => HUES[services.indexOf(service) % HUES.length] ?? "bg-accent";
  const total = to - from;
  const ticks = [0, 0.25, 0.5, 0.75, 1];

  return (
    <div>
      <div className="flex flex-wrap gap-x-5 gap-y-1 border-b border-line px-4 py-2.5 text-xs text-muted">
        {services.map((service) => (
          <span key={service} className="inline-flex items-center gap-2">
            <span aria-hidden="true" className={cx("size-2.5 rounded-sm", hue(service))} />
            {service}
          </span>
        ))}
      </div>
      <div aria-hidden="true" className="tabular grid grid-cols-[minmax(0,22rem)_minmax(0,1fr)] border-b border-line bg-sunken font-mono text-xs text-muted max-md:hidden">
        <span />
        <div className="relative mr-24 h-7">
          {ticks.map((tick) => (
            <span key={tick} className={cx("absolute top-1.5 whitespace-nowrap", tick === 1 ? "-translate-x-full" : tick > 0 && "-translate-x-1/2")} style={{ left: `${tick * 100}%` }}>
              {tick === 0 ? "0" : duration((total * tick) / 1000)}
            </span>
          ))}
        </div>
      </div>
      <ul aria-label="Spans" className="py-1">
        {rows.map(({ span, depth, selfUs }) => {
          const left = ((span.start_us - from) / total) * 100;
          const width = Math.max((span.duration_us / total) * 100, 0.15);
          const expanded = open === span.span_id;
          const failed = span.outcome !== "ok";
          return (
            <li key={span.span_id}>
              <Button
                aria-expanded={expanded}
                onPress={() => {
                  setOpen(expanded ? null : span.span_id);
                }}
                className="grid w-full grid-cols-[minmax(0,22rem)_minmax(0,1fr)] items-center text-left text-sm data-focus-visible:-outline-offset-2 data-hovered:bg-[var(--slate-a2)] max-md:grid-cols-1 max-md:py-1"
              >
                <span className="flex min-w-0 items-center gap-2 py-1 pr-3" style={{ paddingLeft: `${1 + Math.min(depth, 8) * 0.875}rem` }}>
                  <span aria-hidden="true" className={cx("size-2 shrink-0 rounded-sm", hue(span.service))} />
                  <span className={cx("truncate", failed && "font-medium text-bad-text")}>{spanTitle(span)}</span>
                  {span.span_id === slowestId ? <Badge tone="wait">slowest</Badge> : null}
                  {failed ? <Badge tone="bad">error</Badge> : null}
                </span>
                <span className="relative mr-24 h-6 max-md:mr-20 max-md:ml-4 max-md:h-4">
                  <span
                    className={cx("absolute top-1/2 h-2.5 min-w-0.5 -translate-y-1/2 rounded-sm", failed ? "bg-bad" : hue(span.service))}
                    style={{ left: `${left}%`, width: `${width}%` }}
                  />
                  <span className="tabular absolute top-1/2 -right-[5.5rem] w-20 -translate-y-1/2 text-right font-mono text-xs text-muted max-md:-right-[4.5rem] max-md:w-16">
                    {duration(span.duration_us / 1000)}
                  </span>
                </span>
              </Button>
              {expanded ? (
                <dl className="mx-4 my-1 grid grid-cols-[auto_minmax(0,1fr)] gap-x-6 gap-y-0.5 rounded border border-line bg-sunken px-4 py-3 text-xs">
                  <Row name="service" value={span.service} />
                  <Row name="started after" value={duration((span.start_us - from) / 1000)} />
                  <Row name="time of its own" value={duration(selfUs / 1000)} />
                  {Object.entries(span.attributes).map(([name, value]) => (
                    <Row key={name} name={name} value={typeof value === "string" ? value : JSON.stringify(value)} />
                  ))}
                </dl>
              ) : null}
            </li>
          );
        })}
      </ul>
    </div>
  );
}

function Row({ name, value }: { name: string; value: string }) {
  return (
    <>
      <dt className="text-muted">{name}</dt>
      <dd className="font-mono break-all">{value}</dd>
    </>
  );
}
