import type { Span } from "~/api/types";

export interface WaterfallRow {
  span: Span;
  depth: number;
  /** Time in which nothing below the span ran, in microseconds. */
  selfUs: number;
}

/** Spans in the order of a waterfall: parents before children, children by start. Orphans count as roots. */
export function waterfall(spans: readonly Span[]): WaterfallRow[] {
  const known = new Set(spans.map((span) => span.span_id));
  const children = new Map<string | null, Span[]>();
  for (const span of spans) {
    const parent = span.parent_id != null && known.has(span.parent_id) && span.parent_id !== span.span_id ? span.parent_id : null;
    const list = children.get(parent);
    if (list) list.push(span);
    else children.set(parent, [span]);
  }
  const rows: WaterfallRow[] = [];
  const seen = new Set<string>();
  const visit = (span: Span, depth: number): Span[] => {
    if (seen.has(span.span_id)) return [];
    seen.add(span.span_id);
    const row: WaterfallRow = { span, depth, selfUs: 0 };
    rows.push(row);
    const own = [...(children.get(span.span_id) ?? [])].sort((a, b) => a.start_us - b.start_us);
    // Work that was handed over goes on after the span that ordered it has ended, and counts for all above.
    const below = own.flatMap((child) => visit(child, depth + 1));
    row.selfUs = span.duration_us - covered(span, below);
    return [span, ...below];
  };
  for (const root of [...(children.get(null) ?? [])].sort((a, b) => a.start_us - b.start_us)) visit(root, 0);
  // Whatever a broken parent chain hides is still shown.
  for (const span of spans) visit(span, 0);
  return rows;
}

/** How much of a span others cover, overlaps counted once. */
function covered(span: Span, others: readonly Span[]): number {
  const from = span.start_us;
  const to = span.start_us + span.duration_us;
  let total = 0;
  let end = from;
  for (const child of [...others].sort((a, b) => a.start_us - b.start_us)) {
    const start = Math.max(child.start_us, end);
    const stop = Math.min(child.start_us + child.duration_us, to);
    if (stop > start) {
      total += stop - start;
      end = stop;
    }
  }
  return total;
}

/** What a span is called for a reader: a call of the cluster by what it asks. */
export function spanTitle(span: Span): string {
  const { method, path } = span.attributes;
  return span.name === "pve" && typeof method === "string" && typeof path === "string" ? `${method} ${path}` : span.name;
}

/** The span that spent the most time itself. */
export function slowest(rows: readonly WaterfallRow[]): WaterfallRow | null {
  return rows.reduce<WaterfallRow | null>((best, row) => (best === null || row.selfUs > best.selfUs ? row : best), null);
}

export function extent(spans: readonly Span[]): { from: number; to: number } {
  if (spans.length === 0) return { from: 0, to: 1 };
  const from = Math.min(...spans.map((span) => span.start_us));
  const to = Math.max(...spans.map((span) => span.start_us + span.duration_us));
  return { from, to: Math.max(to, from + 1) };
}
