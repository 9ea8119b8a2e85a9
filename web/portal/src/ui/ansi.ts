/** A stretch of text in one look. */
export interface AnsiSpan {
  text: string;
  className: string;
}

const COLOURS = [
  "text-fg",
  "text-bad-text",
  "text-good-text",
  "text-wait-text",
  "text-accent-text",
  "text-[light-dark(#8e4ec6,#d19dff)]",
  "text-info-text",
  "text-muted",
];

// eslint-disable-next-line no-control-regex -- control characters are what this is about
const SEQUENCE = /\x1b\[([0-9;]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b./g;

interface Look {
  bold: boolean;
  dim: boolean;
  italic: boolean;
  underline: boolean;
  colour: number | null;
}

const PLAIN: Look = { bold: false, dim: false, italic: false, underline: false, colour: null };

function classes(look: Look): string {
  return [
    look.colour === null ? "" : (COLOURS[look.colour] ?? ""),
    look.bold ? "font-semibold" : "",
    look.dim ? "text-muted" : "",
    look.italic ? "italic" : "",
    look.underline ? "underline" : "",
  ]
    .filter((name) => name !== "")
    .join(" ");
}

function apply(look: Look, codes: string): Look {
  let next = look;
  const numbers = codes === "" ? [0] : codes.split(";").map(Number);
  for (let at = 0; at < numbers.length; at += 1) {
    const code = numbers[at] ?? 0;
    if (code === 0) next = PLAIN;
    else if (code === 1) next = { ...next, bold: true };
    else if (code === 2) next = { ...next, dim: true };
    else if (code === 3) next = { ...next, italic: true };
    else if (code === 4) next = { ...next, underline: true };
    else if (code === 22) next = { ...next, bold: false, dim: false };
    else if (code === 23) next = { ...next, italic: false };
    else if (code === 24) next = { ...next, underline: false };
    else if (code >= 30 && code <= 37) next = { ...next, colour: code - 30 };
    else if (code >= 90 && code <= 97) next = { ...next, colour: code - 90 };
    else if (code === 39) next = { ...next, colour: null };
    // Of other colours only their length matters here.
    else if (code === 38 || code === 48) at += numbers[at + 1] === 2 ? 4 : 2;
  }
  return next;
}

/** One line of a log as it was meant to look; what moves a cursor is left out. */
export function ansi(line: string): AnsiSpan[] {
  const spans: AnsiSpan[] = [];
  let look = PLAIN;
  let from = 0;
  const push = (text: string) => {
    // A progress bar writes over its own line: only the last state is of interest.
    const seen = text.slice(text.lastIndexOf("\r") + 1);
    if (seen !== "") spans.push({ text: seen, className: classes(look) });
  };
  const text = line.replace(/\r?\n?$/, "");
  for (const match of text.matchAll(SEQUENCE)) {
    push(text.slice(from, match.index));
    from = match.index + match[0].length;
    if (match[2] === "m") look = apply(look, match[1] ?? "");
  }
  push(text.slice(from));
  return spans;
}
