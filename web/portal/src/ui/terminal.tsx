import "@xterm/xterm/css/xterm.css";
import { FitAddon } from "@xterm/addon-fit";
import { SearchAddon } from "@xterm/addon-search";
import { Terminal as XTerm, type ITheme } from "@xterm/xterm";
import { useEffect, useRef, useState } from "react";
import { withAdoptedStyles } from "./adopted";
import { Button, IconButton } from "./button";
import { copyText } from "./clipboard";
import { CrossIcon } from "./icons";
import type { Screen } from "./screen";

const FONT = '"JetBrains Mono Variable", ui-monospace, monospace';
const FONT_SIZE = 13;

/** Colours as the browser computes them from our tokens, because the terminal knows no variables. */
function colours(host: HTMLElement): ITheme {
  const probe = document.createElement("span");
  // Where motion is reduced every change of a colour is a very short transition, and would be read before its end.
  probe.style.setProperty("transition", "none", "important");
  host.append(probe);
  const of = (value: string) => {
    probe.style.color = value;
    return getComputedStyle(probe).color;
  };
  const theme: ITheme = {
    background: of("var(--panel)"),
    foreground: of("var(--slate-12)"),
    cursor: of("var(--indigo-9)"),
    cursorAccent: of("var(--panel)"),
    selectionBackground: of("var(--indigo-5)"),
    black: of("light-dark(#1c2024, #43484e)"),
    red: of("var(--tomato-11)"),
    green: of("var(--grass-11)"),
    yellow: of("var(--amber-11)"),
    blue: of("var(--indigo-11)"),
    magenta: of("light-dark(#8e4ec6, #d19dff)"),
    cyan: of("var(--sky-11)"),
    white: of("light-dark(#60646c, #edeef0)"),
    brightBlack: of("var(--slate-11)"),
    brightRed: of("var(--tomato-11)"),
    brightGreen: of("var(--grass-11)"),
    brightYellow: of("var(--amber-11)"),
    brightBlue: of("var(--indigo-11)"),
    brightMagenta: of("light-dark(#8e4ec6, #d19dff)"),
    brightCyan: of("var(--sky-11)"),
    brightWhite: of("var(--slate-12)"),
  };
  probe.remove();
  return theme;
}

export interface TerminalProps {
  label: string;
  screen: Screen;
  onInput: (text: string) => void;
  onSize: (cols: number, rows: number) => void;
  autoFocus?: boolean;
}

interface Open {
  term: XTerm;
  search: SearchAddon;
}

/** A terminal. Tab and Escape belong to what runs in it; F6 leaves it. */
export default function Terminal({ label, screen, onInput, onSize, autoFocus = false }: TerminalProps) {
  const host = useRef<HTMLDivElement>(null);
  const events = useRef({ onInput, onSize });
  const [opened, setOpened] = useState<Open | null>(null);
  const [finding, setFinding] = useState(false);

  useEffect(() => {
    events.current = { onInput, onSize };
  });

  useEffect(() => {
    const element = host.current;
    if (element === null) return;
    let closed = false;
    let close: () => void = () => undefined;
    // The size of a letter is measured once, so the font must be there before.
    void document.fonts.load(`${FONT_SIZE}px ${FONT}`).catch(() => []).then(() => {
      if (closed) return;
      const open = openTerminal(element, label, screen, events, () => {
        setFinding(true);
      });
      close = open.close;
      setOpened(open);
      if (autoFocus) open.term.focus();
    });
    return () => {
      closed = true;
      close();
    };
  }, [label, screen, autoFocus]);

  return (
    <div className="relative flex min-h-0 min-w-0 flex-1 flex-col bg-panel">
      {finding && opened !== null ? (
        <FindBar
          open={opened}
          onClose={() => {
            setFinding(false);
            opened.search.clearDecorations();
            opened.term.focus();
          }}
        />
      ) : null}
      <div ref={host} data-terminal className="min-h-0 min-w-0 flex-1 overflow-hidden pt-2 pl-3" />
    </div>
  );
}

function openTerminal(
  element: HTMLElement,
  label: string,
  screen: Screen,
  events: { current: Pick<TerminalProps, "onInput" | "onSize"> },
  onFind: () => void,
): Open & { close: () => void } {
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  const term = new XTerm({
    fontFamily: FONT,
    fontSize: FONT_SIZE,
    lineHeight: 1.2,
    cursorBlink: !calm,
    scrollback: 10_000,
    // What is on the screen is also there as text, for those who listen to it.
    screenReaderMode: true,
    theme: colours(element),
  });
  const fit = new FitAddon();
  const search = new SearchAddon();
  withAdoptedStyles(() => {
    term.loadAddon(fit);
    term.loadAddon(search);
    term.open(element);
  });
  // Drawing by the graphics card is faster where there is one; without, the page's own text does.
  void import("@xterm/addon-webgl")
    .then(({ WebglAddon }) => {
      if (!element.isConnected) return;
      const webgl = new WebglAddon();
      webgl.onContextLoss(() => {
        withAdoptedStyles(() => {
          webgl.dispose();
        });
      });
      withAdoptedStyles(() => {
        term.loadAddon(webgl);
      });
    })
    .catch(() => undefined);

  term.textarea?.setAttribute("aria-label", `${label}. F6 leaves the terminal.`);
  term.attachCustomKeyEventHandler((event) => {
    if (event.type !== "keydown") return true;
    if (event.key === "F6") {
      event.preventDefault();
      leave(element, event.shiftKey);
      return false;
    }
    if (event.ctrlKey && event.shiftKey && event.code === "KeyC") {
      event.preventDefault();
      if (term.hasSelection()) void copyText(term.getSelection());
      return false;
    }
    if (event.ctrlKey && event.shiftKey && event.code === "KeyF") {
      event.preventDefault();
      onFind();
      return false;
    }
    return true;
  });
  term.onData((text) => {
    events.current.onInput(text);
  });
  term.onResize(({ cols, rows }) => {
    events.current.onSize(cols, rows);
  });
  const detach = screen.attach((data) => {
    term.write(data);
  });

  let frame = 0;
  const refit = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => {
      fit.fit();
    });
  };
  const observer = new ResizeObserver(refit);
  observer.observe(element);
  fit.fit();
  events.current.onSize(term.cols, term.rows);

  const recolour = () => {
    term.options.theme = colours(element);
  };
  const themes = new MutationObserver(recolour);
  themes.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", recolour);

  return {
    term,
    search,
    close: () => {
      cancelAnimationFrame(frame);
      observer.disconnect();
      themes.disconnect();
      system.removeEventListener("change", recolour);
      detach();
      term.dispose();
    },
  };
}

/** Moves the focus to the next thing on the page after, or before, the terminal. */
function leave(element: HTMLElement, back: boolean): void {
  const all = [...document.querySelectorAll<HTMLElement>("a[href], button:not(:disabled), input, select, [tabindex='0']")].filter(
    (each) => !element.contains(each) && each.offsetParent !== null,
  );
  const isAfter = (each: HTMLElement) => (element.compareDocumentPosition(each) & Node.DOCUMENT_POSITION_FOLLOWING) !== 0;
  const target = back ? all.findLast((each) => !isAfter(each)) : (all.find(isAfter) ?? all[0]);
  target?.focus();
}

function FindBar({ open: { search }, onClose }: { open: Open; onClose: () => void }) {
  const [needle, setNeedle] = useState("");
  return (
    <form
      role="search"
      className="absolute top-2 right-4 z-10 flex items-center gap-1 rounded border border-line bg-panel p-1 shadow-float"
      onSubmit={(event) => {
        event.preventDefault();
        search.findNext(needle);
      }}
      onKeyDown={(event) => {
        if (event.key === "Escape") onClose();
      }}
    >
      <input
        aria-label="Find in the terminal"
        autoFocus
        value={needle}
        onChange={(event) => {
          setNeedle(event.target.value);
          search.findNext(event.target.value, { incremental: true });
        }}
        className="h-7 w-40 rounded-sm border border-line bg-panel px-2 text-sm"
      />
      <Button
        size="sm"
        kind="quiet"
        onPress={() => {
          search.findPrevious(needle);
        }}
      >
        Previous
      </Button>
      <Button size="sm" kind="quiet" type="submit">
        Next
      </Button>
      <IconButton label="Close search" onPress={onClose}>
        <CrossIcon width={12} height={12} />
      </IconButton>
    </form>
  );
}
