import { Button } from "react-aria-components/Button";
import { Text } from "react-aria-components/Text";
import {
  UNSTABLE_Toast as Toast,
  UNSTABLE_ToastContent as ToastContent,
  UNSTABLE_ToastQueue as ToastQueue,
  UNSTABLE_ToastRegion as ToastRegion,
} from "react-aria-components/Toast";
import { CrossIcon } from "./icons";
import { cx } from "./cx";

interface Note {
  tone: "info" | "good" | "bad";
  title: string;
  text?: string;
}

const queue = new ToastQueue<Note>({ maxVisibleToasts: 3 });

export function notify(note: Note): void {
  queue.add(note, note.tone === "bad" ? {} : { timeout: 5_000 });
}

const DOT = { info: "bg-info", good: "bg-good", bad: "bg-bad" } as const;

export function Toasts() {
  return (
    <ToastRegion
      queue={queue}
      aria-label="Notices"
      className="fixed right-4 bottom-4 z-[60] flex w-[min(22rem,calc(100vw-2rem))] flex-col gap-2 outline-none max-md:bottom-20"
    >
      {({ toast }) => (
        <Toast toast={toast} className="flex items-start gap-3 rounded-lg bg-panel p-3 shadow-float animate-rise">
          <span className={cx("mt-1.5 size-2 shrink-0 rounded-full", DOT[toast.content.tone])} aria-hidden="true" />
          <ToastContent className="min-w-0 flex-1">
            <Text slot="title" className="block text-sm font-medium">
              {toast.content.title}
            </Text>
            {toast.content.text !== undefined ? (
              <Text slot="description" className="block text-sm text-muted">
                {toast.content.text}
              </Text>
            ) : null}
          </ToastContent>
          <Button slot="close" aria-label="Dismiss" className="rounded p-1 text-muted data-hovered:bg-hover">
            <CrossIcon width={12} height={12} />
          </Button>
        </Toast>
      )}
    </ToastRegion>
  );
}
