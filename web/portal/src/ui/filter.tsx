import { useEffect, useRef } from "react";
import { Input } from "react-aria-components/Input";
import { SearchField } from "react-aria-components/SearchField";
import { SearchIcon } from "./icons";

function typing(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}

/** Narrows a list; `/` anywhere on the page goes here. */
export function Filter({ label, value, onChange }: { label: string; value: string; onChange: (value: string) => void }) {
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
      event.preventDefault();
      input.current?.focus();
    };
    document.addEventListener("keydown", onKey);
    return () => {
      document.removeEventListener("keydown", onKey);
    };
  }, []);
  return (
    <SearchField aria-label={label} value={value} onChange={onChange} className="relative w-full sm:w-64">
      <SearchIcon className="pointer-events-none absolute top-2 left-2.5 text-faint" />
      <Input
        ref={input}
        placeholder={label}
        className="h-8 w-full rounded border border-line-strong bg-panel pr-8 pl-8 text-sm placeholder:text-muted data-focused:border-accent data-focused:outline-2 data-focused:outline-offset-0 data-focused:outline-accent-line [&::-webkit-search-cancel-button]:hidden"
      />
      <kbd aria-hidden="true" className="pointer-events-none absolute top-1.5 right-2 rounded-sm border border-line px-1.5 font-mono text-xs text-muted max-sm:hidden">
        /
      </kbd>
    </SearchField>
  );
}

