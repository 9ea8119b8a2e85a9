import { useState } from "react";
import { copyText } from "./clipboard";
import { IconButton, Button } from "./button";
import { CheckIcon, CopyIcon } from "./icons";
import { cx } from "./cx";

function useCopied(text: string): [boolean, () => void] {
  const [copied, setCopied] = useState(false);
  const copy = () => {
    void copyText(text).then((done) => {
      if (!done) return;
      setCopied(true);
      setTimeout(() => {
        setCopied(false);
      }, 1600);
    });
  };
  return [copied, copy];
}

export function CopyButton({ text, label, className }: { text: string; label: string; className?: string }) {
  const [copied, copy] = useCopied(text);
  return (
    <>
      <IconButton label={copied ? "Copied" : label} onPress={copy} {...(className !== undefined ? { className } : {})}>
        {copied ? <CheckIcon className="text-good-text" /> : <CopyIcon />}
      </IconButton>
      <span className="sr-only" role="status">
        {copied ? "Copied" : ""}
      </span>
    </>
  );
}

/** Something to paste into a shell, in mono, with a copy button beside it. */
export function Copyable({ text, shown, label, className }: { text: string; shown?: string; label: string; className?: string }) {
  return (
    <span className={cx("inline-flex max-w-full min-w-0 items-center gap-1", className)}>
      <code className="truncate font-mono text-sm">{shown ?? text}</code>
      <CopyButton text={text} label={label} className="size-6" />
    </span>
  );
}

/** A whole command, ready to copy. */
export function CommandLine({ command, label, large, plain, wrap }: { command: string; label: string; large?: boolean; plain?: boolean; wrap?: boolean }) {
  const [copied, copy] = useCopied(command);
  return (
    <div className={cx("flex gap-3 rounded-lg border border-line bg-sunken", wrap ? "items-start" : "items-center", large ? "p-2 pl-4 max-sm:flex-col max-sm:items-stretch max-sm:pl-2" : "p-1 pl-3")}>
      <pre
        // Long commands scroll, so they must be reachable by keyboard.
        tabIndex={0}
        aria-label={label}
        role="region"
        className={cx("min-w-0 flex-1 overflow-x-auto rounded-sm font-mono", wrap ? "whitespace-pre-wrap break-keep wrap-anywhere" : "whitespace-pre", large ? "py-1.5 text-base max-sm:px-2 max-sm:whitespace-pre-wrap max-sm:wrap-anywhere" : "py-1 text-sm")}
      >
        {plain ? null : (
          <span aria-hidden="true" className="text-muted select-none">
            {"$ "}
          </span>
        )}
        {command}
      </pre>
      <Button kind={large ? "primary" : "default"} size={large ? "md" : "sm"} onPress={copy} aria-label={`Copy ${label}`}>
        {copied ? <CheckIcon /> : <CopyIcon />}
        {copied ? "Copied" : "Copy"}
      </Button>
      <span className="sr-only" role="status">
        {copied ? "Copied" : ""}
      </span>
    </div>
  );
}
